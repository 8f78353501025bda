"""How the commands look: help in panels and colours; what a user gets wrong is one plain line and an exit code.

`aas.cli` has the same for its own commands: neither package is there for the other's sake.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from difflmm.stopping import stop_at_ctrl_c

DISK = {
    errno.ENOSPC: "no space left on the device: free some",
    errno.EDQUOT: "no space left for you on the device: free some",
    errno.EROFS: "the file system cannot be written: name another folder, or make it writable",
    errno.EIO: "the device cannot be read or written: mend it",
}
EXTRA = ("accelerate", "diffusers", "peft", "pydantic", "yaml")  # what the extra `difflmm` brings, as modules


class Command(TyperCommand):
    """Its help has panels; its errors have none, unlike typer's own where help has them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """For typer, instead of its plain one."""
        _format_help(self, ctx)


class Group(TyperGroup):
    """As `Command`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """For typer, instead of its plain one."""
        _format_help(self, ctx)


def _format_help(of: Any, ctx: Any) -> None:
    from typer.rich_utils import rich_format_help

    rich_format_help(obj=of, ctx=ctx, markup_mode="rich")


@contextmanager
def usage_errors() -> Iterator[None]:
    """A user's mistake is one line and exit code 2; a full disk one line and exit code 1; Ctrl-C one line and 130."""
    undo = stop_at_ctrl_c()
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        typer.echo(f'difflmm: needs {error.name}: pip install "attend-and-segment[difflmm]"', err=True)
        raise typer.Exit(2) from error
    except ValueError as error:
        typer.echo(f"difflmm: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        if error.errno in DISK:
            typer.echo(f"difflmm: {DISK[error.errno]}, then run the same command again.", err=True)
            raise typer.Exit(2 if error.errno == errno.EROFS else 1) from error
        is_mistake = isinstance(error, (FileNotFoundError, NotADirectoryError, FileExistsError, PermissionError))
        if not is_mistake and (error.filename is None or error.errno == errno.EPIPE):
            raise
        typer.echo(f"difflmm: {error}", err=True)
        raise typer.Exit(2) from error
    finally:
        undo()
