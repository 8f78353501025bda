"""notebooks/quickstart.ipynb, run cell by cell in IPython as a notebook's kernel does."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks/quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a cell; returns what it prints, and what it shows at its end."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    interactive = pytest.importorskip("IPython.core.interactiveshell", reason="no IPython here (pip install ipython)")
    capture = pytest.importorskip("IPython.utils.capture")
    shell = interactive.InteractiveShell()
    shell.history_manager.enabled = False

    def run(cell: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        with capture.capture_output() as captured:
            result = shell.run_cell("".join(cell["source"]), store_history=False)
        result.raise_error()
        shown, _ = shell.display_formatter.format(result.result) if result.result is not None else ({}, {})
        return captured.stdout, shown

    return run


def test_photograph_to_masks_to_maps_to_export(run, tmp_path):
    assert len(CODE) == 5
    (_, loaded), (_, viewer), (told, picture), (shape, sheet), (_, rows) = map(run, CODE)
    assert not loaded and viewer["text/html"].startswith("<iframe") and "score" not in viewer["text/plain"]
    assert " pixels, score " in told and len(picture["image/png"]) > 10_000
    assert shape.startswith("(") and len(sheet["image/png"]) > 10_000
    coco = json.loads((tmp_path / "quickstart-coco.json").read_text())
    assert len(coco["annotations"]) == rows["text/plain"].count("[") - 1 > 0


def test_it_is_kept_without_outputs():
    assert not [cell["id"] for cell in CODE if cell["outputs"] or cell["execution_count"] is not None]
