"""`aas status` and `aas verify`: how far a run folder is, and whether what it holds is whole."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aas.progress import bar_for
from aas.store.causes import by_cause
from aas.store.heartbeats import SILENT_SECONDS, workers
from aas.store.keys import ATTENTION_SUFFIX, RESULT_SUFFIX
from aas.store.made_of import digest_of
from aas.store.runs import RunFolder
from aas.store.shards import RESULT
from aas.store.spools import ahead

FEW_CAUSES = 20


def open_run(folder: Path) -> tuple[RunFolder, dict[str, Any]]:
    """A run folder and its run.json; raises ValueError for what is none."""
    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder} is no run folder: it has no run.json.")
    description = RunFolder(folder, "").description()
    if not description["command"]:
        raise ValueError(f"{folder / 'run.json'} is damaged: it names no command.")
    suffix = ATTENTION_SUFFIX if description["command"] == "infer-attn" else RESULT_SUFFIX
    return RunFolder(folder, suffix), description


def status(folder: Path) -> dict[str, Any]:
    """Counts of a run's images: `total`, `done`, `failed` (with reasons), `causes` (how many failed by each),
    `waiting`; `images_per_second` of all processes that fill it now, `seconds_left` (None where nobody does), and
    `workers`, each of them."""
    run, description = open_run(folder)
    done, failures, total = run.n_done(), run.failures(), description["n_images"]
    waiting = None if total is None else max(0, total - done - len(failures))
    there = workers(folder)
    speed = sum(worker.images_per_second for worker in there)
    return {
        "command": description["command"],
        "total": total,
        "done": done,
        "waiting": waiting,
        "failed": failures,
        "causes": {cause: len(images) for cause, images in by_cause(failures).items()},
        "images_per_second": round(speed, 3),
        "seconds_left": round(waiting / speed) if waiting is not None and speed else None,
        "workers": [asdict(worker) | {"images_per_second": round(worker.images_per_second, 3)} for worker in there],
    }


def status_text(folder: Path, found: dict[str, Any]) -> str:
    """`status` for people."""
    lines = [
        f"{folder}: aas {found['command']}",
        f"  {found['done']} of {found['total']} done, {len(found['failed'])} failed, {found['waiting']} to do",
    ]
    if found["workers"]:
        left = "" if found["seconds_left"] is None else f", {duration(found['seconds_left'])} left"
        lines.append(f"  {found['images_per_second']:.3g} images/s{left}")
        lines += [f"  {_worker_text(worker)}" for worker in found["workers"]]
    for cause, images in list(by_cause(found["failed"]).items())[:FEW_CAUSES]:
        several = f"{len(images)} × {cause}"
        lines.append(f"  failed: {several if len(images) > 1 else found['failed'][images[0]]}")
    if len(found["causes"]) > FEW_CAUSES or len(found["failed"]) > len(found["causes"]):
        lines.append(f"  which ones: {folder / 'failed.jsonl'}")
    return "\n".join(lines)


def _worker_text(worker: dict[str, Any]) -> str:
    silent = time.time() - worker["told"]
    told = f", silent for {duration(silent)}" if silent > SILENT_SECONDS else ""
    speed = f"{worker['images_per_second']:.3g} images/s"
    return (
        f"{worker['host']} {worker['pid']}, chunk {worker['chunk']} of {worker['num_chunks']}: {worker['done']} done, "
        f"{worker['failed']} failed, {speed}{told}"
    )


def duration(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.{0 if unit == 60 else 1}f} {name}"
    return f"{seconds:.0f} s"


def verify(folder: Path) -> list[str]:
    """Read every item of a run; what is wrong, one line for each file, which it names: it is damaged, has other bytes
    than were written, or is of an image that this run never began."""
    from aas.store.readers import READERS  # numpy and more, which a status does without

    run, description = open_run(folder)
    if description["command"] not in READERS:
        raise ValueError(f"{folder} holds a run of `aas {description['command']}`, which is not known here.")
    read = READERS[description["command"]]
    wrong = []
    items, notes = run.items(), run.made_of.notes()
    is_noted = any(True for _ in notes)
    for path in tqdm(ahead(items.values()), total=len(items), unit="item", **bar_for(len(items))):
        try:
            read(path)
        except (ValueError, OSError) as error:
            wrong.append(str(error))
            continue
        note = notes.of(path.name)
        if RESULT in note and digest_of(path) != note[RESULT][0]:
            wrong.append(f"{path} has other bytes than were written: it was changed, or the disk lost some")
        elif is_noted and not note:
            wrong.append(f"{path} is of no image of this run: it was put here, or renamed")
    return wrong
