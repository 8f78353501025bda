"""A few of the kills that `scripts/chaos.py` makes by the hundred (docs/reliability.md)."""

import sys
from importlib import import_module
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_killed_runs_that_go_on_give_what_undisturbed_ones_give(tmp_path: Path, monkeypatch, capsys):
    """In this process, from which all runs are forked."""
    words = ["--kills", "3", "--images", "6", "--commands", "infer-attn", "--out", str(tmp_path / "chaos")]
    monkeypatch.setattr(sys, "argv", ["chaos.py", *words])
    monkeypatch.syspath_prepend(SCRIPTS)
    code, said = import_module("chaos").main(), capsys.readouterr().out
    assert code == 0 and "| `infer-attn` | 6 | 3 |" in said and said.rstrip().endswith("| none | none |"), said
