"""What a command says when its user is mistaken."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def usage_errors() -> Iterator[None]:
    """A user's mistake is one line and exit code 2."""
    try:
        yield
    except (ValueError, FileNotFoundError, NotADirectoryError, FileExistsError, PermissionError) as error:
        typer.echo(f"difflmm: {error}", err=True)
        raise typer.Exit(2) from error
