"""Answers out of the app: into a run folder that the other commands read, and as files to download."""

import io
import json
import platform
from importlib.metadata import version
from pathlib import Path

from aas.grounding import Grounding
from aas.serve.sessions import Turn
from aas.store.keys import RESULT_SUFFIX, unquoted
from aas.store.runs import RunFolder
from aas.version import __version__

COMMAND = "serve"


def save(turn: Turn, out: Path) -> Path:
    """Write the answer as `aas ground` writes one, again under the name that it has there; returns NAME.json.

    Raises ValueError where `out` is the folder of another command's run.
    """
    run = RunFolder(out, RESULT_SUFFIX)
    run.begin(COMMAND, {}, _facts())
    turn.key = turn.key or _free(unquoted(turn.grounding.name), run)
    path, _ = turn.grounding.write(out, run.item_path(turn.key).stem)
    run.note_result(turn.key)
    return path


def _free(name: str, run: RunFolder) -> str:
    key, n = name, 2
    while run.is_done(key):
        key, n = f"{name}-{n}", n + 1
    return key


def _facts() -> dict[str, dict[str, str]]:
    packages = ("torch", "transformers")
    return {"versions": {"aas": __version__, "python": platform.python_version()} | {p: version(p) for p in packages}}


def as_file(grounding: Grounding, kind: str) -> tuple[str, bytes]:
    """Name and content of a download: `json` (the item, as in a run folder), `png` (the picture), `coco` (a dataset of
    this photograph). Raises ValueError for another kind."""
    if kind == "png":
        content = io.BytesIO()
        grounding.draw().save(content, "PNG")
        return f"{grounding.name}.png", content.getvalue()
    if kind == "json":
        return f"{grounding.name}.json", _json(grounding.item())
    if kind == "coco":
        return f"{grounding.name}.coco.json", _json(grounding.to_coco())
    raise ValueError(f"No download {kind!r}: json, png or coco.")


def _json(content: dict) -> bytes:
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()
