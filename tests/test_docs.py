"""What the documents say: every command parses, every link leads somewhere, every name of `aas` is there."""

import ast
import configparser
import importlib
import inspect
import operator
import re
import shlex
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest
import typer

import aas

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "checkpoints/embedded/README.md"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(ROOT.glob("docs/*.md"))]
DOCUMENTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in [*PAGES, CARDS]}
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:aas|difflmm) [^`…][^`]*)`(?!`)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
OURS = ("aas", "difflmm")
BRACKETS = str.maketrans("", "", "[]")  # around what may be left out
REMARK = re.compile(r" {2,}\(.*\)$")  # behind an example of --help


# ---- finding commands --------------------------------------------------------------------------------


def blocks(text: str, language: str) -> list[str]:
    return [dedent(body).strip() for _, found, body in BLOCK.findall(text) if found == language]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without its comment and variables; `a | b` and `a && b` are two."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), "|"]:
        if word in ("|", "&&"):
            if words:
                yield words
            words = []
        elif words or not re.match("[A-Z_]+=", word):
            words.append(word)


def shell_lines(text: str) -> list[str]:
    return [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def app_of(name: str) -> typer.Typer:
    return importlib.import_module(f"{name}.cli").app


def leaves(command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*path, name))
    if not getattr(command, "commands", {}):
        yield path, command


def epilog_lines() -> dict[str, list[str]]:
    """Of each command's --help: its examples."""
    found = {}
    for name in OURS:
        for path, command in leaves(typer.main.get_command(app_of(name)), (name,)):
            lines = (command.epilog or "").splitlines()
            found[f"{' '.join(path)} --help"] = [REMARK.sub("", line.strip()) for line in lines if line[:2] == "  "]
    return found


def recipe_lines() -> dict[str, list[str]]:
    """Of each recipe: the commands in its comments."""
    commands = re.compile(r"^#   (\S.*)$", re.MULTILINE)
    return {str(path.relative_to(ROOT)): commands.findall(path.read_text()) for path in ROOT.glob("recipes/**/*.yaml")}


LINES = {name: shell_lines(text) for name, text in DOCUMENTS.items()} | epilog_lines() | recipe_lines()
COMMANDS = [
    pytest.param(words, id=f"{where}: {' '.join(words)}")
    for where, lines in LINES.items()
    for line in lines
    for words in simple_commands(line)
]
INLINES = [
    pytest.param(shlex.split(found.translate(BRACKETS)), id=f"{name}: {found}")
    for name, text in DOCUMENTS.items()
    for found in INLINE.findall(BLOCK.sub("", text).replace("\n", " "))
]


# ---- judging commands --------------------------------------------------------------------------------


def without_callbacks(command):
    """The command of an app, which then only reads its arguments."""
    command.callback = None
    for child in getattr(command, "commands", {}).values():
        without_callbacks(child)
    return command


@cache
def parser_of(name: str):
    return without_callbacks(typer.main.get_command(app_of(name)))


def parse(name: str, arguments: list[str]) -> None:
    """Raise what the app would say of these arguments, if they are wrong."""
    parser_of(name).main(arguments, prog_name=name, standalone_mode=False)


def known_arguments(words: list[str]) -> list[str]:
    """Of `pip install` and `pip wheel`: what is ours, each name and extra checked."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    name, extras = config["metadata"]["name"], set(config["options.extras_require"])
    ours = [match for word in words if (match := re.fullmatch(rf"(?:{name}|\.)(?:\[([\w,]+)\])?", word))]
    assert all(set(match[1].split(",")) <= extras for match in ours if match[1]), words
    assert not {"aas", "difflmm"} & {re.split(r"\[", word)[0] for word in words}, "a stranger's package"
    return [match[0] for match in ours]


def check_script(path: str, arguments: list[str]) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert not [word for word in arguments if word.startswith("--") and f'"{word}"' not in source]


def check(words: list[str]) -> None:
    program = Path(words[0]).name
    module = next((i for i, word in enumerate(words) if word in ("aas.cli", "difflmm.cli")), None)
    if program in OURS:
        parse(program, words[1:])
    elif module:  # torchrun … -m difflmm.cli
        assert words[module - 1] == "-m"
        parse(words[module].removesuffix(".cli"), words[module + 1 :])
    elif program == "pip":
        assert words[1] in ("install", "wheel") and known_arguments(words[2:])
    elif program == "make":
        goals = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(goals)
    elif program == "python" and words[1] != "-m":
        check_script(words[1], words[2:])
    else:
        assert program in ("python", "ruff", "echo"), f"what is {program}?"


@pytest.mark.parametrize("words", COMMANDS)
def test_commands(words):
    check(words)
    folders = ("recipes/", "scripts/", "tests/", "docs/")
    assert not [word for word in words if word.startswith(folders) and not (ROOT / word).exists()]


@pytest.mark.parametrize("words", INLINES)
def test_commands_in_the_text(words):
    """These may be parts: what they name must be there, what they leave out does not matter. Of `a|b`, `a` is tried."""
    arguments = [word.split("|")[0] for word in words[1:] if word != "…"]
    try:
        parse(words[0], arguments)
    except Exception as error:
        if type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError"):
            raise


def test_there_are_commands():
    """That the tests above found them."""
    programs = {Path(case.values[0][0]).name for case in COMMANDS}
    assert len(COMMANDS) > 60 and {"aas", "difflmm", "pip", "python", "torchrun", "make"} <= programs
    assert INLINES and all(lines for where, lines in LINES.items() if where.endswith("--help"))


@pytest.mark.parametrize(
    "wrong",
    [
        "aas grund photo.jpg",
        "aas ground photo.jpg --modle x",
        "aas ground",
        "aas ground a.jpg --max-new-tokens many",
        "aas eval compare one.json",
        "difflmm train",
        "torchrun -m difflmm.cli train --confg x",
        "make tset",
        "pip install 'aas[eval]'",
        "pip install 'attend-and-segment[evl]'",
        "python scripts/none.py",
        "python scripts/study_difflmm.py --wrk study",
    ],
)
def test_a_wrong_command_is_found(wrong):
    with pytest.raises(Exception):  # noqa: B017  of argument parsers, files and asserts
        check(shlex.split(wrong))


# ---- links and Python --------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files_that_are_there(name):
    page = ROOT / name
    for path, anchor in LINK.findall(BLOCK.sub("", DOCUMENTS[name])):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("name", [name for name, text in DOCUMENTS.items() if blocks(text, "python")])
def test_python_compiles_and_names_what_is_there(name):
    for block in blocks(DOCUMENTS[name], "python"):
        in_braces = re.fullmatch(r'".*": .*', block)  # an entry of a table
        tree = ast.parse("{" + block + "\n}" if in_braces else block)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "aas":
                assert hasattr(aas, node.attr), node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("aas."):
                check_keywords(node)
            elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


def check_keywords(call: ast.Call) -> None:
    function = operator.attrgetter(ast.unparse(call.func).removeprefix("aas."))(aas)
    known = set()
    for name, parameter in inspect.signature(function).parameters.items():
        is_typed = parameter.kind is inspect.Parameter.VAR_KEYWORD  # `**how: Unpack[How]`
        known |= set(typing.get_args(parameter.annotation)[0].__annotations__) if is_typed else {name}
    assert {keyword.arg for keyword in call.keywords} <= known


def test_messages_install_what_is_ours():
    """`aas` on the package index is somebody else's."""
    modules = [file for package in OURS for file in (ROOT / package).rglob("*.py")]
    wrong = re.compile(r"""pip install ["'\\]*(aas|difflmm)\b""")
    assert not [file for file in modules if wrong.search(file.read_text(encoding="utf-8"))]
