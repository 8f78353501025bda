"""A few of the kills that `scripts/chaos.py` makes by the hundred (docs/reliability.md)."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_killed_runs_that_go_on_give_what_undisturbed_ones_give(tmp_path: Path):
    command = [sys.executable, "scripts/chaos.py", "--kills", "3", "--images", "6", "--commands", "infer-attn"]
    done = subprocess.run([*command, "--out", str(tmp_path / "chaos")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| `infer-attn` | 6 | 3 |" in done.stdout and done.stdout.rstrip().endswith("| none | none |")
