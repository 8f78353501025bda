"""What every format of `aas export` is: a dataclass of its options, which writes photographs into a folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from aas.export.names import ClassNames
from aas.export.photograph import Photograph


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """A format. Its docstring is the command's help, `examples` what follows `aas export NAME`."""

    examples: ClassVar[tuple[str, ...]] = ("run --out exported",)

    out: Annotated[Path, typer.Option(help="New folder for the files.")]
    link: Annotated[bool, typer.Option(help="Link to the photographs instead of copying them.")] = False

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """Write all files of the format, each photograph when it comes, what lists them last; each thing's `label` is
        its class, which `names` numbers. Returns what people should know of it, in lines."""
        raise NotImplementedError
