"""`aas infer-attn`: ask an LMM about many images and store the attention of every answer token."""

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from aas.asking import ask_options
from aas.datasets.answers import GivenAnswer, match_answers, read_answers
from aas.datasets.sources import ImageSource, find_sources
from aas.engine.filling import fill
from aas.engine.stage import Plan, Stage, Work
from aas.engine.workers import half_the_cores, n_workers
from aas.images import read_image
from aas.imports import collector_paused
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.decoded import suits
from aas.lmms.prepared import AskOptions, Prepared
from aas.photographs import File
from aas.records import Answer, AttentionMaps
from aas.stages.answering_options import check_asked
from aas.stages.engines import engine_of
from aas.stages.infer_attn_options import InferAttn
from aas.stages.options import RunOptions, indices
from aas.store.attention import SUFFIX, AttentionItem, write_item
from aas.store.runs import RunFolder
from aas.version import __version__

if TYPE_CHECKING:
    from aas.answering.answers import Said, Served
    from aas.answering.server import Server

AUTO_BATCH_SIZE = {"cuda": 32, "cpu": 4}
IN_HAND = 256  # prompts, of which a GPU answers as many at once as its memory holds
Result = tuple[tuple[int, int], Answer, AttentionMaps]  # image_hw, and what the model says


@dataclass(frozen=True)
class Request:
    """A photograph and what is asked of it."""

    source: ImageSource
    question: str
    given: GivenAnswer | None = None

    @property
    def key(self) -> str:
        """The name of its item: the image's, or, of several lines about one image, the line's own."""
        return (self.given and self.given.id) or self.source.key

    @property
    def image(self) -> File:
        """Where the photograph is."""
        return self.source.path

    def answered(self, said: "Said") -> "Request":
        """With the answer that a server gives."""
        given = self.given or GivenAnswer(self.source.key)
        return replace(self, given=replace(given, text=said.text, token_ids=said.token_ids))


def infer_attn(options: InferAttn) -> int:
    """Fill the run folder; returns the exit code.

    Raises ValueError or OSError, before anything is written, where the options cannot work.
    """
    work, options = find_requests(options), options.with_server()
    load = partial(_load, options, len(work.items))
    return fill(RunFolder(options.out, SUFFIX), "infer-attn", options.deciding(), work, load, engine=engine_of(options))


def _load(options: InferAttn, n_items: int, device: str | None = None) -> tuple[Stage, Plan, dict[str, Any]]:
    asked = ask_options(keep=options.keep, heads=indices("--heads", options.heads), **options.asking())
    server = options.server()  # looked at before any model is loaded
    lmm = load_lmm(options.model, device or options.device, **options.loading())
    lmm.check_options(asked)
    served = _served(server, lmm, asked)
    at_once = options.images_at_once(AUTO_BATCH_SIZE, lmm.device.type)
    is_given = served is not None or options.answers is not None
    by_memory = lmm.device.type == "cuda" and options.batch_size == "auto" and not is_given and _in_slots(lmm, asked)
    shares = options.gpus is not None or options.engine == "ray"  # then nobody has all that is left in hand
    in_hand = min(IN_HAND, max(at_once, n_items // 64)) if shares else IN_HAND
    plan = Plan(
        in_hand if by_memory else at_once,
        n_workers(options.workers, n_items, half_the_cores()),
        finishes_elsewhere=lmm.device.type != "cpu",  # a GPU waits for no disk
    )
    stage = Answering(lmm, asked, RunFolder(options.out, SUFFIX), served, None if by_memory else at_once)
    return stage, plan, facts(options, lmm)


def _in_slots(lmm: LMM, options: AskOptions) -> bool:
    """Whether answers and their maps are written in slots, which are taken again as answers end."""
    return options.selection.keep == "mean" and options.alignment == "predict" and suits(lmm, options)


def _served(server: "Server | None", lmm: LMM, options: AskOptions) -> "Served | None":
    if server is None:
        return None
    from aas.answering.answers import Served  # with its client, which others need not import

    return Served(server, lmm, options)


@dataclass(frozen=True)
class Answering(Stage[Request, tuple[tuple[int, int], Prepared], Result]):
    """From a photograph and a question to an attention item."""

    lmm: LMM
    options: AskOptions
    run: RunFolder
    served: "Served | None" = None  # who answers, where the model itself does not
    at_once: int | None = None  # answers, or as many as memory holds

    @property
    def window_batches(self) -> int:  # type: ignore[override]
        """Batches that are sorted by length together: one is enough where few of it are answered at a time."""
        return 1 if self.at_once is None else 8

    def fed(self, items: Iterable[Request]) -> Iterator[tuple[Request, Exception | None]]:
        if self.served is None:
            return super().fed(items)
        return self.served.fed(items, lambda item: (item.image, item.question))

    def prepare(self, item: Request) -> tuple[tuple[int, int], Prepared]:
        image = read_image(item.image)
        given = item.given or GivenAnswer("")  # of no words: the model answers
        prepared = self.lmm.prepare(image, item.question, given.text or None, given.token_ids, self.options)
        return (image.shape[0], image.shape[1]), prepared

    def length(self, prepared: tuple[tuple[int, int], Prepared]) -> int:
        return prepared[1].length

    def compute(self, batch: Sequence[tuple[tuple[int, int], Prepared]]) -> list[Result]:
        said = self.lmm.run([prepared for _, prepared in batch], self.options, at_once=self.at_once)
        return [(image_hw, *one) for (image_hw, _), one in zip(batch, said, strict=True)]

    def finish(self, item: Request, result: Result) -> None:
        image_hw, answer, attention = result
        selection = self.options.selection
        reduction = {"keep": selection.keep, "layers": selection.layers, "heads": selection.heads}
        name = self.lmm.name
        attention_item = AttentionItem(item.source.key, image_hw, answer, attention, name, name, reduction)
        write_item(self.run.item_path(item.key), attention_item)


@collector_paused()
def find_requests(options: InferAttn) -> Work[Request]:
    """This chunk's images and what to ask of them. Lines of --answers about no image are told by the first chunk."""
    sources = find_sources(options.images, options.ref_anno, outside=options.out)
    unmatched: list[GivenAnswer] = []
    if options.answers is None:
        requests = [Request(source, options.question) for source in sources]
    else:
        rows = read_answers(options.answers)
        check_asked(rows, options)
        matched, unmatched = match_answers(sources, rows)
        requests = [Request(source, row.question or options.question, row) for source, row in matched]
        _check_keys(requests)
    missing = [(row.key, f"{row.image}: in {options.answers}, but not among the images") for row in unmatched]
    asked = {request.key: request.given.fingerprint for request in requests if request.given}
    return Work(requests, missing, len(requests) + len(missing), asked=asked).part(options.chunk, options.only)


def _check_keys(requests: Sequence[Request]) -> None:
    """Two lines may name one image in two ways, by its key and by its path."""
    twice = [key for key, count in Counter(request.key for request in requests).items() if count > 1]
    if twice:
        raise ValueError(f"--answers: {twice[0]} has two answers; give each line of an image an id of its own.")


def facts(options: RunOptions, lmm: LMM) -> dict[str, Any]:
    """What a run was made with, for those who read it later."""
    packages = ("torch", "transformers", "tokenizers")
    return {
        **options.noted(),
        "model": {
            "id": lmm.name,
            "class": type(lmm.model).__name__,
            "revision": getattr(lmm.model.config, "_commit_hash", None),
            "dtype": str(lmm.model.dtype).removeprefix("torch."),
        },
        "versions": {"aas": __version__, "python": platform.python_version()} | {p: version(p) for p in packages},
    }
