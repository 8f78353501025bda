"""`aas serve`: the app in a browser."""

import typer

from aas.cli.look import Command
from aas.cli.options import command_of, examples
from aas.imports import collector_paused
from aas.serve.options import Serve


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "serve",
        cls=Command,
        epilog=examples(
            "aas serve",
            "aas serve --port 8000 --out corrected",
            "aas serve --model embedded --model Qwen/Qwen3-VL-8B-Instruct --segmenter facebook/sam2.1-hiera-large",
        ),
    )(command_of(Serve, _serve))


def _serve(options: Serve) -> int:
    with collector_paused():
        from aas.serve.app import serve

    return serve(options)
