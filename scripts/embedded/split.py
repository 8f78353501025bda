"""Which photographs no embedded model is trained on.

The 150 val2017 photographs with instance masks and the lowest ids; every other one is for choosing
(checkpoints, settings), the rest is for the figures that are printed.
"""

import csv
import json
import os
from pathlib import Path

N_KEPT_OUT = 150


def default_data_dir() -> Path:
    """`$AAS_SHARED/data`, else `shared/data` beside the checkout."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    return Path(os.environ.get("AAS_SHARED", beside)) / "data"


def manifest(data_dir: Path) -> list[dict[str, str]]:
    """A row for each COCO photograph that is here."""
    with (data_dir / "coco/MANIFEST.csv").open() as rows:
        return list(csv.DictReader(rows))


def kept_out(data_dir: Path) -> tuple[list[int], list[int]]:
    """COCO image ids (for choosing, for the figures), 75 each, sorted."""
    instances = json.loads((data_dir / "coco/annotations/instances_subset_val2017.json").read_text())
    ids = sorted(image["id"] for image in instances["images"])[:N_KEPT_OUT]
    return ids[0::2], ids[1::2]
