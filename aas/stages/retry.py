"""`aas retry`: the images of a run that failed, once more, with the options of run.json."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from aas.photographs import located
from aas.stages.options import RunOptions
from aas.store.addresses import folder_at
from aas.store.spools import opened_for
from aas.store.status import open_run


def retry(folder: Path, stages: Mapping[str, tuple[type[RunOptions], Callable[[Any], int]]]) -> int:
    """Try what failed again; returns the exit code. `stages`: command -> its options, and what carries it out.

    Raises ValueError where run.json does not say the options (of a run that began before they were noted).
    """
    run, description = open_run(folder)
    name = description["command"].split()[0]
    given = description.get("options")
    if name not in stages or not isinstance(given, dict):
        raise ValueError(f"{run.description_path} does not say the run's options: repeat its command instead.")
    failed = frozenset(run.failed_keys())
    kind, run_stage = stages[name]
    options = _options(kind, given, folder, failed)
    with opened_for(options):
        return run_stage(options)


def _options(kind: type[RunOptions], given: dict[str, Any], out: Path, only: frozenset[str]) -> RunOptions:
    hints = get_type_hints(kind)
    try:
        values = {name: _as_field(value, hints[name]) for name, value in given.items()}
        return kind(**values, out=out, only=only, num_chunks=1)  # type: ignore[call-arg]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{out / 'run.json'} has options that this version does not know ({error}).") from error


def _as_field(value: Any, hint: Any) -> Any:
    """What JSON made a string or a list, as the field has it."""
    if isinstance(value, str) and "Path" in str(hint):
        return located(value) if "Address" in str(hint) else folder_at(value)
    return tuple(value) if isinstance(value, list) else value
