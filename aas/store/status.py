"""`aas status` and `aas verify`: how far a run folder is, and whether what it holds is whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask
from tqdm import tqdm

from aas.store.attention import SUFFIX, read_item
from aas.store.runs import RunFolder


def open_run(folder: Path) -> tuple[RunFolder, dict[str, Any]]:
    """A run folder and its run.json; raises ValueError for what is none."""
    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder} is no run folder: it has no run.json.")
    description = RunFolder(folder, "").description()
    return RunFolder(folder, SUFFIX if description["command"] == "infer-attn" else ".json"), description


def status(folder: Path) -> dict[str, Any]:
    """Counts of a run's images: `total`, `done`, `failed` (with reasons), `waiting`."""
    run, description = open_run(folder)
    done, failures, total = len(run.items()), run.failures(), description.get("n_images")
    waiting = None if total is None else max(0, total - done - len(failures))
    return {"command": description["command"], "total": total, "done": done, "waiting": waiting, "failed": failures}


def status_text(folder: Path, found: dict[str, Any]) -> str:
    lines = [
        f"{folder}: aas {found['command']}",
        f"  {found['done']} of {found['total']} done, {len(found['failed'])} failed, {found['waiting']} to do",
    ]
    lines += [f"  failed: {reason}" for reason in list(found["failed"].values())[:20]]
    if len(found["failed"]) > 20:
        lines.append(f"  … and {len(found['failed']) - 20} more, see {folder / 'failed.jsonl'}")
    return "\n".join(lines)


def verify(folder: Path) -> list[str]:
    """Read every item of a run; what is wrong, one line for each damaged file."""
    run, description = open_run(folder)
    checks: dict[str, Callable[[Path], object]] = {
        "infer-attn": read_item,
        "segment gcg": _check_gcg,
        "segment expressions": _check_gcg,
        "segment instance": _check_instances,
    }
    wrong = []
    for path in tqdm(run.items().values(), unit="item"):
        try:
            checks[description["command"]](path)
        except (ValueError, KeyError, TypeError) as error:
            wrong.append(f"{path}: {error if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'}")
    return wrong


def _check_gcg(path: Path) -> None:
    item = json.loads(path.read_text(encoding="utf-8"))
    lengths = {len(item[key]) for key in ("phrases", "pred_masks", "points", "scores", "spans")}
    if len(lengths) != 1:
        raise ValueError("phrases, masks, points, scores and spans are not equally many")
    _check_masks(item["pred_masks"])


def _check_instances(path: Path) -> None:
    _check_masks(
        [detection["segmentation"] for detection in json.loads(path.read_text(encoding="utf-8"))["detections"]]
    )


def _check_masks(masks: list[dict[str, Any]]) -> None:
    """Whether the runs of each mask fill its picture."""
    for mask in masks:
        if coco_mask.decode(mask).shape != tuple(mask["size"]):
            raise ValueError("a mask does not have its size")
