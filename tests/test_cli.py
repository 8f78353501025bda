"""The `aas` command itself: its help, its lists, what it says and how loudly, and presets that say the truth."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import typer
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from aas.catalogue import LISTS
from aas.cli import app
from aas.version import __version__
from tests.command import program


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_has_help_with_an_example():
    found = dict(commands(typer.main.get_command(app)))
    assert {
        ("ground",),
        ("infer-attn",),
        ("segment",),
        ("show", "attn"),
        ("eval", "gcg"),
        ("expressions", "png"),
    } <= set(found)
    for path, command in found.items():
        result = run(*path, "--help")
        assert result.exit_code == 0 and f"aas {' '.join(path)}" in result.output, path
        assert command.help and len(command.help) > 20, path


def test_version():
    assert run("--version").stdout.strip() == __version__


@pytest.mark.parametrize("kind", LISTS)
def test_lists(kind):
    rows = json.loads(run("list", kind, "--json").stdout)
    assert rows and all(isinstance(row, dict) for row in rows)
    text = run("list", kind).stdout
    assert all(str(next(iter(row.values()))).split("/")[-1][:10] in text for row in rows[:3])


def test_lists_name_what_can_be_given():
    models = {row.get("id"): row for row in json.loads(run("list", "models", "--json").stdout)}
    assert 0.05 < models["embedded"]["parameters_billion"] < 0.06
    large = models["llava-hf/llava-1.5-7b-hf"]
    assert large["bf16_gib"] == pytest.approx(13.15, abs=0.1) and large["4bit_gib"] < large["bf16_gib"] / 3
    presets = {row["id"]: row for row in json.loads(run("list", "presets", "--json").stdout)}
    assert presets["reference-2024"]["heads"] == [-2] and presets["reference-2025"]["merge"] == "max"
    assert run("list", "nothing").exit_code == 2


@pytest.fixture(scope="module")
def attn(tmp_path_factory):
    root = tmp_path_factory.mktemp("attn")
    (root / "photos").mkdir()
    Image.fromarray(data.chelsea()).save(root / "photos/a.png")
    (root / "answers.jsonl").write_text(json.dumps({"image": "a.png", "answer": "a cat with whiskers"}))
    given = ("infer-attn", "--images", root / "photos", "--answers", root / "answers.jsonl")
    assert run(*given, "--out", root / "all").exit_code == 0
    assert run(*given, "--out", root / "one", "--heads=-2").exit_code == 0
    return root


def test_a_preset_of_other_heads_is_refused(attn, tmp_path):
    """Heads are chosen when attention is captured; what was not captured cannot be segmented."""
    where = ("segment", "gcg", "--images", attn / "photos", "--preset", "reference-2024")
    result = run(*where, "--attn", attn / "all", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "--heads=-2" in result.stderr and not (tmp_path / "out").exists()
    assert run(*where, "--attn", attn / "one", "--out", tmp_path / "one").exit_code == 0
    assert json.loads((tmp_path / "one/run.json").read_text())["preset"]["heads"] == [-2]
    both = run("ground", attn / "photos", "--preset", "reference-2024", "--heads", "all", "--out", tmp_path / "x")
    assert both.exit_code == 2 and "other heads than all" in both.stderr


def test_the_preset_of_one_head_is_what_that_head_sees(attn, tmp_path):
    photo, answer = attn / "photos/a.png", ("--answer", "a cat with whiskers", "--keep-all")
    assert run("ground", photo, *answer, "--preset", "reference-2024", "--out", tmp_path / "ground").exit_code == 0
    where = ("--images", attn / "photos", "--preset", "reference-2024")
    assert run("segment", "gcg", "--attn", attn / "one", *where, "--out", tmp_path / "masks").exit_code == 0
    ground, masks = (json.loads((tmp_path / f"{name}/a.json").read_text()) for name in ("ground", "masks"))
    assert ground["points"] == masks["points"] and ground["pred_masks"] == masks["pred_masks"]
    run("ground", photo, *answer, "--out", tmp_path / "paper")
    paper = json.loads((tmp_path / "paper/a.json").read_text())
    assert not np.array_equal(paper["points"], ground["points"])


def ended(*arguments: object, anew: bool = False) -> tuple[int | None, str, str]:
    with program(*arguments, anew=anew) as process:
        return process.ended()


def test_quiet_and_verbose(attn, tmp_path):
    """Also of a program that was started anew: libraries say things while they are imported."""
    where = ("segment", "gcg", "--attn", attn / "all", "--images")
    assert "1 done" in run(*where, attn / "photos", "--out", tmp_path / "a").stderr
    assert ended("-q", *where, attn / "photos", "--out", tmp_path / "b") == (0, "", "")
    two = [attn / "photos/a.png", attn / "photos/a.png"]
    _, stdout, stderr = ended("-q", "ground", *two, "--answer", "a cat", "--out", tmp_path / "two", anew=True)
    assert stderr == "" and len(stdout.splitlines()) == 2
    (tmp_path / "none").mkdir()
    code, _, stderr = ended("-q", *where, tmp_path / "none", "--out", tmp_path / "c")
    assert code == 3 and "a.png" in stderr, "what failed is said all the same"
    assert run("-v", "list", "presets").exit_code == 0
    assert logging.getLogger("aas").level == logging.DEBUG


def test_status_imports_nothing_heavy(attn, tmp_path):
    code = (
        "import sys\nfrom aas.cli import app\n"
        "try:\n    app(['status', sys.argv[1]])\nexcept SystemExit:\n    pass\n"
        "print(*[m for m in ('torch', 'numpy', 'spacy', 'transformers', 'PIL') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, attn / "all"], capture_output=True, text=True, check=True)
    assert "1 of 1 done" in done.stdout and done.stderr.strip() == ""
