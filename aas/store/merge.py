"""`aas merge`: one file of the results of a run."""

import json
from pathlib import Path

from aas.store.atomic import write_text
from aas.store.instances import detection_json, read_instances
from aas.store.runs import MERGED, RunFolder
from aas.store.spools import ahead
from aas.store.status import open_run


def merge(folder: Path) -> Path:
    """Write the merged file of a finished run folder; raises ValueError where there is nothing to merge."""
    run, description = open_run(folder)
    command = description["command"]
    if command != "segment instance":
        raise ValueError(f"{folder} holds a run of `aas {command}`: its items are the result, nothing is merged.")
    return merge_instances(run)


def merge_instances(run: RunFolder) -> Path:
    """One COCO results list of all images; ids count from 1 in the order of the images' ids.

    Raises ResultError, which names the file, where one is damaged.
    """
    images = [read_instances(path) for path in ahead(run.items().values())]
    images.sort(key=lambda image: (isinstance(image.image_id, str), image.image_id))
    detections = [detection_json(detection) for image in images for detection in image.detections]
    numbered = [{"id": i, **detection} for i, detection in enumerate(detections, start=1)]
    target = run.path / MERGED
    write_text(target, json.dumps(numbered, ensure_ascii=False) + "\n")
    return target
