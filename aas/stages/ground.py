"""`aas ground`: the whole way for files and folders, with a report of all of them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aas.datasets.answers import GivenAnswer
from aas.engine.filling import fill
from aas.engine.stage import Plan, Stage, Work
from aas.engine.workers import plan_for
from aas.ground import ByGrounder, Grounder, Request
from aas.grounding import Grounding
from aas.show.page import EMBEDDED_NOTICE, REPORT
from aas.stages.engines import engine_of
from aas.stages.ground_inputs import Inputs, collect, requests_of, shown
from aas.stages.ground_options import Ground
from aas.stages.ground_report import RunReport
from aas.stages.infer_attn import facts
from aas.store.runs import RunFolder

log = logging.getLogger(__name__)


class Saving(ByGrounder):
    """Saves each grounding under its key, `with_png` its picture too."""

    def __init__(self, grounder: Grounder, run: RunFolder, with_png: bool):
        super().__init__(grounder)
        self.run, self.with_png = run, with_png

    def finish(self, item: Request, result: Grounding) -> None:
        result.write(self.run.path, self.run.item_path(item.key).stem, self.with_png)


@dataclass(frozen=True)
class Carrying:
    """What a command does that grounds something about each image. `requests`: what is asked of the images;
    `fingerprint`: of what is asked of one alone, by a line of a file, None where all are asked the same; `saving`: the
    stage, of a grounder, the folder and whether pictures are made; `report`: what people see. It can be pickled."""

    command: str
    options: Ground
    requests: Callable[[Inputs, RunFolder], Sequence[Request]]
    fingerprint: Callable[[Any], str] | None = None
    saving: Callable[[Grounder, RunFolder, bool], Saving] = Saving
    report: Callable[[RunFolder, Any], RunReport] = RunReport


def ground(options: Ground) -> int:
    """Ground every image into the folder (NAME.json, NAME.png, NAME.safetensors, report.html); returns the exit code.

    Raises ValueError or OSError, before anything is written, where the options cannot work.
    """
    options = options.with_server()
    requests = partial(_requests, options)
    return carry(Carrying("ground", options, requests, _asked if options.answers else None))


def _requests(options: Ground, inputs: Inputs, run: RunFolder) -> Sequence[Request]:
    return requests_of(inputs, options, run)


def carry(task: Carrying) -> int:
    """As `ground`."""
    options, run = task.options, RunFolder(task.options.out, ".json")
    arguments = options.deciding()  # once: it looks into the files of the models
    if run.description_path.exists():
        run.begin(task.command, arguments, {})
    inputs = collect(options.images, options.out)
    requests = task.requests(inputs, run)
    _outputs_are_not_inputs(requests, run)
    report = task.report(run, options)
    report.show_what_is_there(requests)

    load = partial(_load, task, len(requests))
    work = _work(inputs, requests, task)
    code = fill(run, task.command, arguments, work, load, report.show, run.path / REPORT, engine_of(options))
    report.write()
    return code


def _load(task: Carrying, n_items: int, device: str | None = None) -> tuple[Stage, Plan, dict[str, Any]]:
    options = task.options
    if options.model == "embedded":
        be_quiet_about_loading()
    grounder = Grounder(**options.grounder() | {"device": device or options.device})
    by_item = options.by_item(grounder.is_small, grounder.lmm.device.type)
    plan = plan_for(grounder.images_at_once(), options.workers, n_items, by_item)
    saving = task.saving(grounder, RunFolder(options.out, ".json"), options.png)
    return saving, plan, facts(options, grounder.lmm)


def _work(inputs: Inputs, requests: Sequence[Request], task: Carrying) -> Work[Request]:
    asked = {} if task.fingerprint is None else {request.key: task.fingerprint(request) for request in requests}
    whole = Work(requests, inputs.missing, len(requests) + len(inputs.missing), shown=shown, asked=asked)
    return whole.part(task.options.chunk, task.options.only)


def _asked(request: Request) -> str:
    return GivenAnswer("", request.answer or "", request.token_ids, request.question).fingerprint


def _outputs_are_not_inputs(requests: Sequence[Request], run: RunFolder) -> None:
    inputs = {Path(request.source).resolve() for request in requests if isinstance(request.source, Path)}
    for request in requests:
        for suffix in (".png", ".json", ".safetensors"):
            target = run.item_path(request.key).with_suffix(suffix)
            if target.resolve() in inputs:
                raise ValueError(f"The result {target} would overwrite an image; name another folder with --out.")


def be_quiet_about_loading() -> None:
    """Of the embedded models: one line of what to expect of them, and no bars."""
    from transformers.utils import logging as of_transformers

    log.info("%s", EMBEDDED_NOTICE)
    of_transformers.disable_progress_bar()  # of loading, which takes a second
