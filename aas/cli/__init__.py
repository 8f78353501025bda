"""The `aas` command. Heavy imports happen inside the commands, so that `aas --help` is quick."""

from typing import Annotated

import typer

from aas.cli import evaluation, exports, models, runs, serve, slurm, stages
from aas.cli.compare import compare
from aas.cli.heads import head
from aas.cli.look import WITH_TRACEBACKS, group, show_messages
from aas.cli.show import show
from aas.cli.stopping import stop_at_ctrl_c
from aas.imports import own_process
from aas.version import __version__

app = group(
    "Ask a multimodal model about images and ground every noun phrase of its answer to a mask.", add_completion=True
)
stages.register(app)
runs.register(app)
slurm.register(app)
models.register(app)
app.add_typer(show, name="show")
app.add_typer(compare, name="compare")
app.add_typer(head, name="head")
evaluation.register(app)
exports.register(app)
serve.register(app)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only what failed.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also what the libraries say, and tracebacks.")
    ] = False,
) -> None:
    """What holds for all commands: how much is said."""
    show_messages(quiet, verbose)
    before = WITH_TRACEBACKS.set(verbose)
    context.call_on_close(lambda: WITH_TRACEBACKS.reset(before))
    context.call_on_close(stop_at_ctrl_c())


def run(prog_name: str | None = None) -> None:
    """The command, in a process of its own."""
    own_process()
    app(prog_name=prog_name)
