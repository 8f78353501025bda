"""A command's options are the fields of a dataclass; what a user gets wrong is one line and an exit code."""

import errno
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import MISSING, Field, fields
from enum import Enum
from inspect import Parameter, Signature, getdoc
from traceback import format_exception
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo, ParameterInfo

from aas.cli.look import WITH_TRACEBACKS, Command, Group
from aas.loading import is_ours
from aas.store.objects import NotSent
from aas.store.runs import GONE
from aas.store.spools import opened_for

DISK = {
    errno.ENOSPC: "no space left on the device: free some",
    errno.EDQUOT: "no space left for you on the device: free some",
    errno.EROFS: "the file system cannot be written: name another folder with --out, or make it writable",
    errno.EIO: "the device cannot be read or written: mend it",
} | dict.fromkeys(GONE, "the run's folder is gone: bring its disk, or the network's folder, back")
EXTRAS = {  # module that only an extra brings -> what to install
    "peft": '"attend-and-segment[train]"',
    "accelerate": '"attend-and-segment[difflmm]"',
    "diffusers": '"attend-and-segment[difflmm]"',
    "gradio": '"attend-and-segment[demo]"',
    "ray": '"attend-and-segment[cluster]"',
    "pycocoevalcap": '"attend-and-segment[eval]"',
}


@contextmanager
def usage_errors() -> Iterator[None]:
    """A user's mistake (ValueError, a file that is not there) is one line and exit code 2; a full disk one line and
    exit code 1. With `aas -v` the traceback stands before it. A fault of our own is raised as it is."""
    try:
        yield
    except Exception as error:
        said = None if isinstance(error, typer.Exit) else _in_one_line(error)
        if said is None:
            raise
        if WITH_TRACEBACKS.get():
            typer.echo("".join(format_exception(error)), err=True)
        typer.echo(f"aas: {said[0]}", err=True)
        raise typer.Exit(said[1]) from error


def _in_one_line(error: Exception) -> tuple[str, int] | None:
    """What to say of it, and the exit code."""
    if isinstance(error, OSError) and error.errno in DISK:
        # A folder on a read-only file system is a name to change, as one without permission; a full disk is a failure.
        return f"{DISK[error.errno]}, then run the same command again.", 2 if error.errno == errno.EROFS else 1
    if isinstance(error, NotSent) or (isinstance(error, ChildProcessError) and error.errno is None):
        return str(error), 1
    is_of_a_file = isinstance(error, OSError) and error.filename is not None and error.errno != errno.EPIPE
    is_mistake = isinstance(
        error, (ValueError, FileNotFoundError, NotADirectoryError, FileExistsError, PermissionError)
    )
    if is_mistake or is_of_a_file or is_ours(error):
        return str(error), 2
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"needs {error.name}: pip install {EXTRAS[error.name]}", 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "the memory does not suffice: try --batch-size 1, --dtype bfloat16, or a smaller model.", 1
    return None


def command_of(options_class: type, run: Callable[[Any], int], *, without: Collection[str] = ()) -> Callable[..., None]:
    """A function for `typer.Typer.command`: options in, `run(options_class(…))`, its exit code out.

    Options are the fields that are annotated with a `typer.Option` or `typer.Argument`
    (`Annotated[Path, typer.Option(help=…)]`); others, and those named in `without`, keep their default. A field without
    a default must be given, a `Literal` is a choice, a bool a flag, a `tuple[T, …]` an option that may be repeated. The
    class's docstring is the command's help.
    """
    hints = get_type_hints(options_class, include_extras=True)
    chosen = [field for field in fields(options_class) if field.name not in without]
    mine = {field.name: parameter for field in chosen if (parameter := _parameter(field, hints))}
    repeated = {name for name in mine if _is_tuple(hints[name])}

    def command(**given: Any) -> None:
        with usage_errors():
            values = {name: tuple(map(_word, given[name])) for name in repeated if given[name] is not None}
            options = options_class(**(given | values))
            with opened_for(options):
                code = run(options)
        raise typer.Exit(code)

    needed_first = sorted(mine.values(), key=lambda parameter: parameter.default is not Parameter.empty)
    command.__signature__ = Signature(needed_first)  # type: ignore[attr-defined]
    command.__name__, command.__doc__ = options_class.__name__, getdoc(options_class)
    return command


def _parameter(field: Field, hints: Mapping[str, Any]) -> Parameter | None:
    """What typer reads of a field; None for one that is no option."""
    kind, *metadata = get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else (None,)
    infos = [copy(entry) for entry in metadata if isinstance(entry, ParameterInfo)]
    if not infos:
        return None
    if kind is bool and isinstance(infos[0], OptionInfo) and infos[0].default is ...:
        infos[0].default = "--" + field.name.replace("_", "-")  # a name of its own: no `--no-…` beside it
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return Parameter(
        field.name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if default is MISSING else list(default) if isinstance(default, tuple) else default,
        annotation=Annotated[_as_typer_reads(kind, infos[0]), infos[0]],
    )


def _as_typer_reads(kind: Any, info: ParameterInfo) -> Any:
    """Words, where a parser makes values of them."""
    if info.parser:
        return list[str] if _is_tuple(kind) else str
    return _as_list(kind)


def _is_tuple(hint: Any) -> bool:
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return any(get_origin(part) is tuple for part in _alternatives(kind))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _as_list(kind: Any) -> Any:
    """`tuple[T, …]` -> `list[T]`, also where it may be None: typer knows repeated options as lists."""
    parts = [list[_element(part)] if get_origin(part) is tuple else part for part in _alternatives(kind)]  # type: ignore[misc]
    return Union[tuple(parts)]  # noqa: UP007


def _element(kind: Any) -> Any:
    """T of `tuple[T, …]`. Typer takes a Literal alone, and in a list only an Enum of its words."""
    element = get_args(kind)[0]
    return Enum("Choice", {word: word for word in get_args(element)}) if get_origin(element) is Literal else element


def _word(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def examples(*lines: str) -> str:
    """The `epilog` of a command: examples, each a line of its own."""
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])


def lazy_group(table: Mapping[str, Any], made: Callable[[str], tuple[Callable[..., None], str]]) -> type[Group]:
    """The `cls` of a group whose commands are the names of `table`, each made when it is asked for.

    `made(name)` gives the function (as `command_of` does) and its epilog; what it imports costs other commands nothing.
    """

    class LazyGroup(Group):
        def __init__(self, **attributes: Any):
            super().__init__(**attributes)
            self.commands = _Commands(table, made)  # type: ignore[assignment]

        def list_commands(self, ctx: Any) -> list[str]:
            return list(table)

    return LazyGroup


class _Commands(Mapping):
    """Commands by name; see `lazy_group`."""

    def __init__(self, table: Mapping[str, Any], made: Callable[[str], tuple[Callable[..., None], str]]):
        self._table, self._made, self._found = table, made, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self._table:
            raise KeyError(name)
        if name not in self._found:
            function, epilog = self._made(name)
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name, cls=Command, epilog=epilog)(function)
            self._found[name] = typer.main.get_command(alone)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
