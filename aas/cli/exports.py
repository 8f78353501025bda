"""`aas export FORMAT` and `aas import FORMAT`: commands made of the registry's tables when they are asked for."""

from collections.abc import Callable

import typer

from aas import registry
from aas.cli.evaluation import joined
from aas.cli.look import group
from aas.cli.options import command_of, examples, lazy_group

Command = tuple[Callable[..., None], str]


def _export(name: str) -> Command:
    from aas.export.run import RunOptions, export

    exporter = registry.load(registry.EXPORTS, name, "format")
    options = joined(exporter, RunOptions, exporter.__doc__)
    lines = (f"aas export {name} {line}" for line in exporter.examples)
    return command_of(options, lambda given: export(given, given)), examples(*lines)


def _import(name: str) -> Command:
    from aas.export.importing import ImportOptions, import_corrected

    importer = registry.load(registry.IMPORTS, name, "format")
    options = joined(importer, ImportOptions, importer.__doc__)
    lines = (f"aas import {name} {line}" for line in importer.examples)
    return command_of(options, lambda given: import_corrected(given, given)), examples(*lines)


def register(app: typer.Typer) -> None:
    """Add both groups of commands."""
    exports = group("Results in the format of another tool.", lazy_group(registry.EXPORTS, _export))
    imports = group("Corrected masks back as results, to evaluate or to export.", lazy_group(registry.IMPORTS, _import))
    app.add_typer(exports, name="export")
    app.add_typer(imports, name="import")
