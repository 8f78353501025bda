"""`aas ground`: the whole way for files and folders, with a report of all of them."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aas.engine.local import fill
from aas.engine.stage import Plan, Stage, Work, chunk_of
from aas.engine.workers import half_the_cores, n_workers
from aas.ground import ByGrounder, Grounder, Request
from aas.grounding import Grounding
from aas.stages.ground_inputs import Inputs, collect, requests_of
from aas.stages.ground_options import Ground
from aas.stages.infer_attn import facts
from aas.store.runs import RunFolder
from aas.text import harmless
from aas.view import report, terminal

EMBEDDED_NOTICE = (
    "The embedded model is small (7 million parameters, trained on 2,000 photographs): expect simple captions and "
    "mistakes. A large one answers better: --model llava-hf/llava-1.5-7b-hf --segmenter facebook/sam-vit-huge"
)
REPORT = "report.html"
REPORT_SHARE = 0.1  # of the time, at most, goes into reports of what is done so far

log = logging.getLogger(__name__)


def ground(options: Ground) -> int:
    """Ground every image into the folder (NAME.json, NAME.png, NAME.safetensors, report.html); returns the exit code.

    Raises ValueError or OSError, before anything is written, where the options cannot work.
    """
    run = RunFolder(options.out, ".json")
    if run.description_path.exists():
        run.begin("ground", options.deciding(), {})
    inputs = collect(options.images, options.out)
    requests = requests_of(inputs, options, run)
    _outputs_are_not_inputs(requests, run)
    told = Told(run, options)
    told.tell_what_is_there(requests)

    def load() -> tuple[Stage, Plan, dict[str, Any]]:
        if options.model == "embedded":
            _be_quiet_about_loading()
        grounder = Grounder(**options.grounder())
        return Saving(grounder, run), plan_for(grounder, options, len(requests)), facts({}, grounder.lmm)

    work = _work(inputs, requests, options)
    code = fill(run, "ground", options.deciding(), work, load, told.tell, run.path / REPORT)
    told.write_report()
    return code


def _work(inputs: Inputs, requests: Sequence[Request], options: Ground) -> Work[Request]:
    chunk = chunk_of(requests, options.num_chunks, options.chunk_idx)
    missing = inputs.missing if options.chunk_idx == 0 else []
    return Work(chunk, missing, len(requests) + len(inputs.missing), options.num_chunks == 1)


def _outputs_are_not_inputs(requests: Sequence[Request], run: RunFolder) -> None:
    inputs = {Path(request.source).resolve() for request in requests if isinstance(request.source, Path)}
    for request in requests:
        for suffix in (".png", ".json", ".safetensors"):
            target = run.item_path(request.key).with_suffix(suffix)
            if target.resolve() in inputs:
                raise ValueError(f"The result {target} would overwrite an image; name another folder with --out.")


def _be_quiet_about_loading() -> None:
    from transformers.utils import logging as of_transformers

    log.info("%s", EMBEDDED_NOTICE)
    of_transformers.disable_progress_bar()  # of loading, which takes a second


def plan_for(grounder: Grounder, options: Ground, n_items: int) -> Plan:
    """On a GPU, and with large models, one process computes, others prepare, and one more draws and writes. Small
    models on a CPU leave cores idle that way: there each worker does all for its own images."""
    if grounder.is_small and grounder.lmm.device.type == "cpu" and options.batch_size in ("auto", "1"):
        import torch

        return Plan(1, n_workers(options.workers, n_items, torch.get_num_threads()), by_item=True)
    workers = n_workers(options.workers, n_items, half_the_cores())
    return Plan(grounder.images_at_once(), workers, finishes_elsewhere=True)


class Saving(ByGrounder):
    """Saves each grounding under its key."""

    def __init__(self, grounder: Grounder, run: RunFolder):
        super().__init__(grounder)
        self.run = run

    def shown(self, item: Request) -> str:
        return shown(item)

    def finish(self, item: Request, result: Grounding) -> None:
        result.write(self.run.path, self.run.item_path(item.key).stem)


def shown(request: Request) -> str:
    """The image as it was given, `-` for stdin."""
    return str(request.source) if isinstance(request.source, (str, Path)) else "-"


class Told:
    """What people see of a run while it goes on: a line for each image, and the report of all that the folder holds.

    Everything is read from the files, so that what an earlier start has done is told in the same way.
    """

    def __init__(self, run: RunFolder, options: Ground):
        self.run, self.options = run, options
        self.entries: dict[str, str] = {}
        self.next_report = 0.0

    def tell_what_is_there(self, requests: Sequence[Request]) -> None:
        """The folder's results: those that are asked for again are printed, all are in the report."""
        asked = {request.key: request for request in requests}
        for key in self.run.items() if self.run.path.is_dir() else ():
            self._tell(key, asked.get(key))

    def tell(self, request: Request) -> None:
        """Print what is new, and put it into the report, where time allows."""
        self._tell(request.key, request)
        if time.monotonic() >= self.next_report:
            self.write_report()

    def _tell(self, key: str, request: Request | None) -> None:
        path = self.run.item_path(key)
        try:
            found = Grounding.load(path)
        except (ValueError, OSError) as error:  # the photograph may be gone since
            log.warning("not in the report: %s", harmless(str(error)))
            return
        self.entries[key] = report.entry(
            path.stem, found.image, found.answer, found.phrases, found.view, found.left_out
        )
        if request is not None:
            self._print(request, found)

    def _print(self, request: Request, grounding: Grounding) -> None:
        if self.options.as_json:
            line = json.dumps(grounding.item() | {"image": shown(request)}, ensure_ascii=False)
        else:
            answer = terminal.coloured(grounding.answer, grounding.phrases, colour=sys.stdout.isatty())
            line = f"{harmless(shown(request))}: {answer}"
        tqdm.write(line, file=sys.stdout)

    def write_report(self) -> None:
        """Every entry so far, by name."""
        start = time.monotonic()
        entries = [self.entries[key] for key in sorted(self.entries)]
        notice = EMBEDDED_NOTICE if self.options.model == "embedded" else ""
        path = self.run.path / REPORT
        report.write_report(path, entries, "aas ground", notice, list(self.run.failures().items()))
        self.next_report = time.monotonic() + (time.monotonic() - start) / REPORT_SHARE
