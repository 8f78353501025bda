"""`aas infer-attn`: ask an LMM about many images and store the attention of every answer token.

Images are decoded and made into inputs by worker processes, put into batches of like length, and answered; each image
has its own file, and its own failure.
"""

import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from aas.capture import Alignment, Keep, Selection
from aas.datasets.answers import GivenAnswer, match_answers, read_answers
from aas.datasets.sources import ImageSource, find_sources
from aas.images import ImageError, read_image
from aas.lmms import load_lmm
from aas.lmms.base import LMM, AskOptions, Prepared
from aas.lmms.sampling import Sampling
from aas.records import Answer, AttentionMaps
from aas.stages.workers import half_the_cores, in_workers, n_workers
from aas.store.attention import SUFFIX, AttentionItem, write_item
from aas.store.runs import RunFolder
from aas.text import harmless
from aas.version import __version__

DEFAULT_QUESTION = "Describe the image in detail."
AUTO_BATCH_SIZE = {"cuda": 32, "cpu": 4}
WINDOW_BATCHES = 8  # batches of like length are made of so many batches' images
Result = tuple[Answer, AttentionMaps]


@dataclass(frozen=True)
class InferAttn:
    """The arguments of a run. `batch_size` None finds one by itself: it is halved when memory does not suffice."""

    images: Path
    out: Path
    model: str = "embedded"
    base: str | None = None
    adapter: str | None = None
    ref_anno: Path | None = None
    question: str = DEFAULT_QUESTION
    answers: Path | None = None
    batch_size: int | None = None
    num_chunks: int = 1
    chunk_idx: int = 0
    device: str | None = None
    dtype: str = "auto"
    quantize: str | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    num_beams: int = 1
    seed: int = 0
    keep: Keep = "mean"
    layers: str = "all"
    heads: str = "all"
    alignment: Alignment = "predict"
    view: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.num_beams != 1:
            raise ValueError(
                "--num-beams: with beam search the rows of a step belong to beams that are dropped later, so there is "
                "no attention of the answer. Take --num-beams 1, or write the answers elsewhere and pass --answers."
            )
        if not 0 <= self.chunk_idx < self.num_chunks:
            raise ValueError(f"--chunk-idx {self.chunk_idx} must be below --num-chunks {self.num_chunks}.")
        if self.temperature < 0:
            raise ValueError("--temperature must not be negative; 0 is greedy.")
        if not self.question.strip():
            raise ValueError("--question is empty.")
        self.options()

    def options(self) -> AskOptions:
        sampling = Sampling(self.temperature, self.top_p) if self.temperature else None
        selection = Selection(_indices("--layers", self.layers), _indices("--heads", self.heads), self.keep)
        return AskOptions(self.max_new_tokens, sampling, selection, self.alignment, self.view, self.seed)

    def that_decide(self) -> dict[str, Any]:
        """Those that decide what the items are; the others decide only when and where they are made."""
        elsewhere = {
            "images",
            "out",
            "batch_size",
            "num_chunks",
            "chunk_idx",
            "device",
            "workers",
            "ref_anno",
            "answers",
        }
        decide = {k: v for k, v in vars(self).items() if k not in elsewhere}
        return decide | {"given_answers": self.answers is not None}


def _indices(option: str, text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} {text!r}: give `all` or numbers with commas between, like 0,5,-2.") from None


@dataclass(frozen=True)
class Request:
    source: ImageSource
    question: str
    given: GivenAnswer | None = None

    @property
    def key(self) -> str:
        """The name of its item: the image's, or, of several lines about one image, the line's own."""
        return (self.given and self.given.id) or self.source.key


def infer_attn(arguments: InferAttn) -> int:
    """Fill the run folder; returns the exit code.

    Raises ValueError or OSError, before anything is written, where the arguments cannot work.
    """
    run = RunFolder(arguments.out, SUFFIX)
    requests, unmatched, n_images = _requests(arguments)
    if run.description_path.exists():
        run.begin("infer-attn", arguments.that_decide(), {})  # a folder of another run is refused before a model loads
    waiting = [request for request in requests if not run.is_done(request.key)]
    n_done = len(requests) - len(waiting)
    if waiting:
        lmm = load_lmm(
            arguments.model,
            arguments.device,
            arguments.dtype,
            base=arguments.base,
            adapter=arguments.adapter,
            quantize=arguments.quantize,
        )
        lmm.resolved(arguments.options().selection)  # complains about layers and heads that the model does not have
        run.begin("infer-attn", arguments.that_decide(), _facts(arguments, lmm) | {"n_images": n_images})
    run.forget_failures({request.key for request in requests} | {row.key for row in unmatched})
    for row in unmatched:
        run.fail(row.key, f"{row.image}: in {arguments.answers}, but not among the images")
    n_failed = len(unmatched)
    if waiting:
        n_failed += _Runner(arguments, run, lmm, len(waiting)).fill(waiting)
    n_new = len(requests) + len(unmatched) - n_done - n_failed
    print(f"{n_new} done, {n_done} were there, {n_failed} failed: {run.path}", file=sys.stderr)
    return 3 if n_failed else 0


def _requests(arguments: InferAttn) -> tuple[list[Request], list[GivenAnswer], int]:
    """This chunk's images and what to ask of them; lines of --answers about no image (told by the first chunk); and
    how many items all chunks have together."""
    sources = find_sources(arguments.images, arguments.ref_anno, outside=arguments.out)
    unmatched: list[GivenAnswer] = []
    if arguments.answers is None:
        requests = [Request(source, arguments.question) for source in sources]
    else:
        matched, unmatched = match_answers(sources, read_answers(arguments.answers))
        requests = [Request(source, row.question or arguments.question, row) for source, row in matched]
        _check_keys(requests)
    chunk = requests[arguments.chunk_idx :: arguments.num_chunks]
    return chunk, unmatched if arguments.chunk_idx == 0 else [], len(requests) + len(unmatched)


def _check_keys(requests: Sequence[Request]) -> None:
    """Two lines may name one image in two ways, by its key and by its path."""
    twice = [key for key, count in Counter(request.key for request in requests).items() if count > 1]
    if twice:
        raise ValueError(f"--answers: {twice[0]} has two answers; give each line of an image an id of its own.")


def _facts(arguments: InferAttn, lmm: LMM) -> dict[str, Any]:
    """What a run was made with, for those who read it later."""
    inputs = {name: getattr(arguments, name) for name in ("images", "ref_anno", "answers")}
    packages = ("torch", "transformers", "tokenizers")
    return {
        "inputs": {name: None if path is None else str(path) for name, path in inputs.items()},
        "model": {
            "id": lmm.name,
            "class": type(lmm.model).__name__,
            "revision": getattr(lmm.model.config, "_commit_hash", None),
            "dtype": str(lmm.model.dtype).removeprefix("torch."),
        },
        "versions": {"aas": __version__, "python": platform.python_version()} | {p: version(p) for p in packages},
    }


# ------------------------------------------------------------------------------------------- worker processes


@dataclass(frozen=True)
class _Made:
    """What a worker made of request number `index`: inputs, or the reason why there are none."""

    index: int
    prepared: Prepared | None
    image_hw: tuple[int, int] = (0, 0)
    error: str = ""


class _Requests(Dataset):
    def __init__(self, lmm: LMM, requests: Sequence[Request]):
        self.lmm, self.requests = lmm, requests

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, index: int) -> _Made:
        request = self.requests[index]
        given = request.given or GivenAnswer("")  # of no words: the model answers
        try:
            image = read_image(request.source.path)
            prepared = self.lmm.prepare(image, request.question, given.text or None, given.token_ids)
        except Exception as error:  # whatever one image's trouble is, it costs nobody else's result
            return _Made(index, None, error=_reason(request.source.path, error))
        return _Made(index, prepared, image.shape[:2])


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, ImageError):
        return str(error)
    return f"{path}: {type(error).__name__}: {error}"


def _packed(made: _Made) -> _Made:
    """Tensors as arrays, which go through a pipe; tensors would each hold a file open."""
    return _with_inputs(made, lambda value: value.numpy() if isinstance(value, Tensor) else value)


def _unpacked(made: _Made) -> _Made:
    return _with_inputs(made, lambda value: torch.from_numpy(value) if isinstance(value, np.ndarray) else value)


def _with_inputs(made: _Made, change: Any) -> _Made:
    if made.prepared is None:
        return made
    p = made.prepared
    inputs = {key: change(value) for key, value in p.inputs.items()}
    grids = tuple(replace(grid, positions=change(grid.positions)) for grid in p.grids)
    return replace(made, prepared=replace(p, inputs=inputs, grids=grids, answer_ids=change(p.answer_ids)))


# --------------------------------------------------------------------------------------------------- batches


def buckets(made: Iterable[_Made], batch_size: int) -> Iterator[list[_Made]]:
    """Batches of like length, so that little is padded."""
    window: list[_Made] = []
    for one in made:
        window.append(one)
        if len(window) == WINDOW_BATCHES * batch_size:
            yield from _split(window, batch_size)
            window = []
    yield from _split(window, batch_size)


def _split(window: list[_Made], batch_size: int) -> Iterator[list[_Made]]:
    window = sorted(window, key=lambda one: one.prepared.length if one.prepared else 0)
    for start in range(0, len(window), batch_size):
        yield window[start : start + batch_size]


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


class _Runner:
    """Answers requests batch by batch and writes the items."""

    def __init__(self, arguments: InferAttn, run: RunFolder, lmm: LMM, n_waiting: int):
        self.arguments, self.run, self.lmm = arguments, run, lmm
        self.options = arguments.options()
        self.batch_size = arguments.batch_size or AUTO_BATCH_SIZE.get(lmm.device.type, 4)
        self.progress = tqdm(total=n_waiting, unit="image", smoothing=0.1)
        self.n_failed = 0

    def fill(self, requests: Sequence[Request]) -> int:
        """Returns the number of images that failed."""
        n = n_workers(self.arguments.workers, len(requests), half_the_cores())
        with self.progress:
            made = map(_unpacked, in_workers(_Requests(self.lmm, requests), n, _packed))
            for batch in buckets(self._without_failures(requests, made), self.batch_size):
                self._answer(requests, batch)
        return self.n_failed

    def _without_failures(self, requests: Sequence[Request], made: Iterable[_Made]) -> Iterator[_Made]:
        for one in made:
            if one.prepared is None:
                self._fail(requests[one.index], one.error)
            else:
                yield one

    def _answer(self, requests: Sequence[Request], batch: list[_Made]) -> None:
        """All of `batch`, in parts where memory does not suffice; one by one where one of them fails."""
        while batch:
            part, rest = batch[: self.batch_size], batch[self.batch_size :]
            try:
                results = self.lmm.run([one.prepared for one in part if one.prepared], self.options)
            except Exception as error:
                if _is_out_of_memory(error) and len(part) > 1:
                    self._shrink(len(part))
                elif len(part) > 1:
                    for one in part:
                        self._answer(requests, [one])
                    batch = rest
                else:
                    request = requests[part[0].index]
                    self._fail(request, _reason(request.source.path, error))
                    batch = rest
                continue
            for one, result in zip(part, results, strict=True):
                self._write(requests[one.index], one.image_hw, result)
            batch = rest

    def _shrink(self, n_images: int) -> None:
        self.batch_size = n_images // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tqdm.write(f"out of memory: going on with batches of {self.batch_size}", file=sys.stderr)

    def _write(self, request: Request, image_hw: tuple[int, int], result: Result) -> None:
        answer, attention = result
        selection = self.options.selection
        item = AttentionItem(
            request.source.key,
            image_hw,
            answer,
            attention,
            model=self.lmm.name,
            tokenizer=self.lmm.name,
            reduction={"keep": selection.keep, "layers": selection.layers, "heads": selection.heads},
        )
        write_item(self.run.item_path(request.key), item)
        self.progress.update()

    def _fail(self, request: Request, error: str) -> None:
        self.n_failed += 1
        self.run.fail(request.key, harmless(error))
        self.progress.update()
