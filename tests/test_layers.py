"""The house: dependencies point one way, every package ships, `aas --help` is quick to import."""

import ast
import gc
import subprocess
import sys
from pathlib import Path

import pytest

from aas.imports import collector_paused

ROOT = Path(__file__).parent.parent
# A module may import from layers before its own, and from its own package.
LAYERS = [
    {"choices", "forked", "imports", "spellings", "text"},
    {"loading", "model_files", "captured", "registry"},
    {"photographs"},
    {"records", "paths", "devices", "backbones", "int8", "images", "rle", "version", "progress"},
    {"geometry", "capture", "maps", "phrases"},
    {"store", "internals", "decoding"},
    {"presets", "view", "segmenters", "datasets", "metrics"},
    {"heads"},
    {"lmms", "pointing", "export"},
    {
        "engine",
        "grounding",
        "available",
        "asking",
        "headed",
        "doctor",
        "catalogue",
        "evaluations",
        "confidence",
        "answering",
    },
    {"streaming", "training"},
    {"ground", "show"},
    {"cot"},
    {"stages"},
    {"serve"},
    {"cli"},
    {"__init__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def imported_modules(source: Path) -> list[str]:
    """What a file imports anywhere, functions included."""
    modules = []
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return modules


def imported_rooms(source: Path) -> set[str]:
    """First-level names under `aas` that a file imports."""
    rooms = {module.split(".")[1] for module in imported_modules(source) if module.startswith("aas.")}
    return {room for room in rooms if room in RANK}


def test_dependencies_point_one_way():
    wrong = []
    for source in (ROOT / "aas").rglob("*.py"):
        room = source.relative_to(ROOT / "aas").parts[0].removesuffix(".py")
        assert room in RANK, f"{room} has no layer: add it to LAYERS"
        for other in imported_rooms(source):
            if other != room and RANK[other] >= RANK[room] and room != "__init__":
                wrong.append(f"{source.relative_to(ROOT)} imports {other}")
    assert not wrong


def test_nothing_imports_difflmm_but_its_family():
    def imports(source: Path, package: str) -> bool:
        return any(module.split(".")[0] == package for module in imported_modules(source))

    importing = [source for source in (ROOT / "aas").rglob("*.py") if imports(source, "difflmm")]
    assert importing == [ROOT / "aas/lmms/difflmm.py"]
    assert not [source for source in (ROOT / "difflmm").rglob("*.py") if imports(source, "aas")]


def test_the_family_needs_no_diffusers():
    code = "import sys; sys.modules['diffusers'] = None; import aas.lmms.difflmm, difflmm.checkpoint"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)


def test_every_folder_of_modules_is_a_package():
    """setup.py finds packages by their `__init__.py`: a folder without one would not ship."""
    folders = {file.parent for package in ("aas", "difflmm") for file in (ROOT / package).rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


@pytest.mark.parametrize("command", ["aas", "difflmm"])
def test_help_imports_nothing_heavy(command):
    heavy = ("torch", "transformers", "spacy", "numpy")
    code = f"import sys, {command}.cli; print(*[m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split() == []


def test_the_collector_rests_while_heavy_libraries_are_imported():
    assert gc.isenabled()
    with pytest.raises(ImportError), collector_paused():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_what_was_imported_counts_as_old_and_what_was_frozen_stays_so():
    gc.unfreeze()  # what these tests froze
    with collector_paused():
        made: list[list[int]] = [[]]
    assert any(one is made for one in gc.get_objects(generation=2))
    gc.freeze()
    try:
        with collector_paused():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()


def test_what_is_imported_is_never_looked_through_in_a_process_of_our_own(monkeypatch):
    monkeypatch.setattr("aas.imports._is_ours", True)
    gc.unfreeze()
    try:
        with collector_paused():
            made: list[list[int]] = [[]]
        assert not any(one is made for one in gc.get_objects()) and gc.isenabled()
    finally:
        gc.unfreeze()


def test_what_parses_needs_no_transformers():
    code = "import sys, aas.phrases.parser; print('transformers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split() == ["False"]


def test_the_command_ends_without_looking_through_all_that_it_imported():
    said = "atexit.register(lambda: print(gc.get_freeze_count() > 0))"
    code = f"import atexit, gc, sys; {said}; from aas.cli import run; sys.argv = ['aas', '--version']; run()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split()[-1] == "True"
