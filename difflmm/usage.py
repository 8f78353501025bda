"""What a command says when its user is mistaken."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer

EXTRA = ("accelerate", "diffusers", "peft", "pydantic", "yaml")  # what the extra `difflmm` brings, as modules


@contextmanager
def usage_errors() -> Iterator[None]:
    """A user's mistake is one line and exit code 2; a full disk one line and exit code 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        typer.echo(f'difflmm: needs {error.name}: pip install "attend-and-segment[difflmm]"', err=True)
        raise typer.Exit(2) from error
    except (ValueError, FileNotFoundError, NotADirectoryError, FileExistsError, PermissionError) as error:
        typer.echo(f"difflmm: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        typer.echo("difflmm: no space left on the device: free some, then run the same command again.", err=True)
        raise typer.Exit(1) from error
