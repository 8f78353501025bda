"""`aas status` and `aas verify`: how far a run folder is, and whether what it holds is whole."""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from aas.progress import bar_for
from aas.store.keys import ATTENTION_SUFFIX, RESULT_SUFFIX
from aas.store.runs import RunFolder


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
    """Counts of a run's images: `total`, `done`, `failed` (with reasons), `waiting`."""
    run, description = open_run(folder)
    done, failures, total = len(run.items()), run.failures(), description["n_images"]
    waiting = None if total is None else max(0, total - done - len(failures))
    return {"command": description["command"], "total": total, "done": done, "waiting": waiting, "failed": failures}


def status_text(folder: Path, found: dict[str, Any]) -> str:
    """`status` for people."""
    lines = [
        f"{folder}: aas {found['command']}",
        f"  {found['done']} of {found['total']} done, {len(found['failed'])} failed, {found['waiting']} to do",
    ]
    lines += [f"  failed: {reason}" for reason in list(found["failed"].values())[:20]]
    if len(found["failed"]) > 20:
        lines.append(f"  … and {len(found['failed']) - 20} more, see {folder / 'failed.jsonl'}")
    return "\n".join(lines)


def verify(folder: Path) -> list[str]:
    """Read every item of a run; what is wrong, one line for each damaged file, which it names."""
    from aas.store.readers import READERS  # numpy and more, which a status does without

    run, description = open_run(folder)
    if description["command"] not in READERS:
        raise ValueError(f"{folder} holds a run of `aas {description['command']}`, which is not known here.")
    read = READERS[description["command"]]
    wrong = []
    items = run.items()
    for path in tqdm(items.values(), unit="item", **bar_for(len(items))):
        try:
            read(path)
        except (ValueError, OSError) as error:
            wrong.append(str(error))
    return wrong
