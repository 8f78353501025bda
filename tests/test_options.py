"""A command's options are the fields of a dataclass."""

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from aas.cli.options import command_of, examples, lazy_group


@dataclass(frozen=True, kw_only=True)
class Base:
    seed: Annotated[int, typer.Option(min=0, help="Of all.")] = 0


@dataclass(frozen=True, kw_only=True)
class Options(Base):
    """Do a thing."""

    photos: Annotated[tuple[Path, ...], typer.Argument(help="Some.")]
    out_folder: Annotated[Path, typer.Option(help="Where to.")]
    keep: Annotated[Literal["mean", "heads"], typer.Option(help="What.")] = "mean"
    is_quiet: Annotated[bool, typer.Option(help="Hush.")] = False
    json_file: Annotated[Path | None, typer.Option("--json")] = None
    only: Annotated[tuple[str, ...], typer.Option(help="These.")] = ("a", "b")
    drop: Annotated[tuple[str, ...] | None, typer.Option(help="Not these.")] = None
    kinds: Annotated[tuple[Literal["pronouns", "un-seen"], ...], typer.Option(help="Of these.")] = ("pronouns",)
    ids: Annotated[list[int] | None, typer.Option(help="Numbers.")] = field(default_factory=list)
    secret: Annotated[int, "no option"] = 4

    def __post_init__(self) -> None:
        if self.seed == 13:
            raise ValueError("--seed 13: give another number.")


def run(*words: str, without: tuple[str, ...] = (), work: Any = lambda options: 3) -> tuple[Any, Any]:
    seen: list[Options] = []
    app = typer.Typer(rich_markup_mode=None)
    app.command()(command_of(Options, lambda options: seen.append(options) or work(options), without=without))
    return CliRunner().invoke(app, words), seen[0] if seen else None


def test_every_field_is_an_option():
    words = "p q --out-folder o --keep heads --is-quiet --json f --only x --only y --drop z --ids 1 --ids 2 --seed 5"
    result, options = run(*words.split(), "--kinds", "un-seen", "--kinds", "pronouns")
    assert result.exit_code == 3
    assert options == Options(
        photos=(Path("p"), Path("q")), out_folder=Path("o"), keep="heads", is_quiet=True, json_file=Path("f"),
        only=("x", "y"), drop=("z",), ids=[1, 2], seed=5, kinds=("un-seen", "pronouns"),
    )  # fmt: skip


def test_defaults_are_those_of_the_class():
    _, options = run("p", "--out-folder", "o")
    assert options == Options(photos=(Path("p"),), out_folder=Path("o"))


@pytest.mark.parametrize(
    "words, said",
    [
        ("--out-folder o", "Missing argument"),
        ("p", "Missing option '--out-folder'"),
        ("p --out-folder o --keep layers", "'layers' is not one of 'mean', 'heads'"),
        ("p --out-folder o --kinds none", "'none' is not one of 'pronouns', 'un-seen'"),
        ("p --out-folder o --seed -1", "--seed"),
        ("p --out-folder o --seed 13", "aas: --seed 13: give another number."),
        ("p --out-folder o --no-is-quiet", "No such option"),
        ("p --out-folder o --secret 3", "No such option"),
    ],
)
def test_a_mistake_is_one_line(words, said):
    result, options = run(*words.split())
    assert result.exit_code == 2 and options is None
    assert said in result.output and "Traceback" not in result.output


def test_what_is_left_out_keeps_its_default():
    result, _ = run("p", "--out-folder", "o", "--keep", "heads", without=("keep",))
    assert result.exit_code == 2 and "No such option" in result.output


@pytest.mark.parametrize(
    "error, code, said",
    [
        (ValueError("wrong"), 2, "aas: wrong"),
        (FileNotFoundError("x: no such file."), 2, "aas: x: no such file."),
        (OSError(errno.ENOSPC, "full"), 1, "no space left"),
        (OSError(errno.EROFS, "read-only"), 2, "the file system cannot be written"),
        (OSError(errno.EIO, "broken"), 1, "the device cannot be read or written"),
    ],
)
def test_errors_of_the_run(error, code, said):
    def fail(_: Options) -> int:
        raise error

    result, _ = run("p", "--out-folder", "o", work=fail)
    assert result.exit_code == code and said in result.output


def test_errors_of_ours_are_not_hidden():
    def fail(_: Options) -> int:
        raise OSError(errno.EBADF, "a file that we closed")

    assert isinstance(run("p", "--out-folder", "o", work=fail)[0].exception, OSError)


def test_commands_of_a_table_are_made_when_asked_for():
    table, made = {"one": 1, "two": 2}, []

    def make(name: str) -> tuple[Any, str]:
        made.append(name)
        return command_of(Options, lambda options: table[name]), examples(f"aas {name} x")

    app = typer.Typer(cls=lazy_group(table, make), rich_markup_mode=None)
    app.callback()(lambda: None)
    assert CliRunner().invoke(app, ["two", "p", "--out-folder", "o"]).exit_code == 2 and made == ["two"]
    missing = CliRunner().invoke(app, ["tow"])
    assert missing.exit_code == 2 and "Did you mean 'two'" in missing.output and made == ["two"]
    table["three"] = 3
    assert CliRunner().invoke(app, ["three", "p", "--out-folder", "o"]).exit_code == 3
    group = typer.main.get_command(app)
    assert list(group.commands) == ["one", "two", "three"] and "aas one x" in group.commands["one"].epilog
