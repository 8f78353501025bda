"""How the commands look: help in panels and colours, messages as plain lines."""

import logging
import os
import sys
from contextvars import ContextVar
from io import TextIOWrapper
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WITH_TRACEBACKS = ContextVar("WITH_TRACEBACKS", default=False)  # before the line of what ends a command


class Command(TyperCommand):
    """Its help has panels; what is wrong with its options stays one plain line, which programs can read too."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """In panels."""
        _rich_help(self, ctx)


class Group(TyperGroup):
    """As `Command`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """In panels."""
        _rich_help(self, ctx)


def _rich_help(of: Any, ctx: Any) -> None:
    from typer.rich_utils import rich_format_help

    rich_format_help(obj=of, ctx=ctx, markup_mode="rich")


def group(help_text: str, cls: type[TyperGroup] = Group, **options: Any) -> typer.Typer:
    """A group of commands."""
    settings = {"help_option_names": ["-h", "--help"]}
    made = typer.Typer(
        help=help_text,
        cls=cls,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=settings,
        **{"add_completion": False, **options},
    )
    made.callback()(_nothing)
    return made


def _nothing() -> None:
    """A group needs something to call before its commands."""


class _Messages(logging.Handler):
    """To stderr, between progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("TQDM_DISABLE") or "tqdm" not in sys.modules:
            print(self.format(record), file=sys.stderr)
        else:
            from tqdm import tqdm

            tqdm.write(self.format(record), file=sys.stderr)


def show_messages(quiet: bool, verbose: bool) -> None:
    """`quiet`: only what failed, and no progress bars; `verbose`: also what the libraries say."""
    if isinstance(sys.stdout, TextIOWrapper):  # what a terminal cannot write is escaped, and ends no run
        sys.stdout.reconfigure(errors="backslashreplace")
    of_aas = logging.getLogger("aas")
    of_aas.handlers, of_aas.propagate = [_Messages()], False
    of_aas.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    if quiet:
        os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if verbose:
        os.environ["TRANSFORMERS_VERBOSITY"] = "info"
