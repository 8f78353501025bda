"""What a head learns from, captured once and kept on the disk: of each photograph a file."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aas import rle
from aas.capture import CaptureError
from aas.export.photograph import Found, Photograph
from aas.heads.features import HeadShape, PhraseFeatures
from aas.heads.head import MaskHead
from aas.images import as_pixels
from aas.lmms.base import LMM
from aas.lmms.phrase_features import phrase_features
from aas.records import View
from aas.segmenters.proposals import Proposals, proposals
from aas.segmenters.sam_family import SamFamily
from aas.segmenters.sam_records import SamEmbedding
from aas.store.atomic import write_bytes
from aas.store.keys import quoted
from aas.store.ordered import ordered
from aas.training.data import Lesson

SEEN = ("eyes", "pixels", "maps")  # for heads that need them
PROPOSED = ("logits", "scores", "sizes")
SUFFIX = ".safetensors"


class Unusable(ValueError):
    """A photograph that cannot be learned from; the message says which, and why."""


@contextmanager
def usable(key: str) -> Iterator[None]:
    """What goes wrong with one photograph, as `Unusable`."""
    try:
        yield
    except (ValueError, OSError, CaptureError) as error:
        raise Unusable(f"{key}: {error}") from error


@dataclass(frozen=True)
class Example:
    """The phrases of one photograph: what was captured, and `truth` bool [P, H, W], at the photograph's size."""

    features: PhraseFeatures
    truth: Tensor

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return replace(self, features=self.features.to(device), truth=self.truth.to(device))


@dataclass(frozen=True)
class Capturer:
    """Makes examples of photographs, by models that do not change. `told`: what decides them beside the photograph and
    its phrases; a cache that was made by something else is not read."""

    lmm: LMM
    shape: HeadShape
    segmenter: SamFamily | None
    question: str
    head: type[MaskHead]
    told: dict[str, Any]

    def __call__(self, photograph: Photograph) -> Example:
        """Raises ValueError, or an OSError of its file, for a photograph that cannot be learned from."""
        learned = taught(photograph)
        spans = [one.span for one in learned if one.span is not None]
        pixels = as_pixels(photograph.source)
        kind = self.head
        prepared = self.lmm.prepare(pixels, self.question, photograph.caption)
        hw = photograph.size_hw
        (features,) = phrase_features(self.lmm, self.shape, [prepared], [spans], [hw], kind.needs_eyes, kind.sources)
        if self.segmenter is not None:
            embedding = self.segmenter.encode([pixels])[0]
            found = proposals(self.segmenter, embedding) if kind.chooses else None
            features = replace(features, embedding=embedding, proposals=found)
        truth = np.stack([rle.decoded(one.mask) for one in learned])
        return Example(features, torch.from_numpy(truth))


class Cache:
    """A folder with an example of each photograph. One that is there is not captured again, unless its photograph says
    something else by now, or other models captured it."""

    def __init__(self, folder: Path, capturer: Capturer):
        self.folder, self.capturer = folder, capturer

    def path(self, lesson: Lesson) -> Path:
        """Of its example."""
        return self.folder / f"{quoted(lesson.key)}{SUFFIX}"

    def filled(self, lessons: Iterable[Lesson]) -> Iterator[tuple[Path, str]]:
        """For each lesson its example's file, and what is wrong with it, or nothing."""
        for lesson in lessons:
            path = self.path(lesson)
            try:
                with usable(lesson.key):
                    photograph = lesson.read()
                    example = None if self._is_there(path, photograph) else self.capturer(photograph)
            except Unusable as error:
                yield path, str(error)
                continue
            if example is not None:
                write_example(path, example, self._told(photograph))
            yield path, ""

    def _told(self, photograph: Photograph) -> str:
        about = {"caption": photograph.caption, "phrases": [[one.span, one.mask] for one in photograph.found]}
        return json.dumps([self.capturer.told, about], sort_keys=True)

    def _is_there(self, path: Path, photograph: Photograph) -> bool:
        try:
            with safe_open(path, "pt") as file:
                return (file.metadata() or {}).get("told") == self._told(photograph)
        except (OSError, SafetensorError):
            return False


def write_example(path: Path, example: Example, told: str = "") -> None:
    """One file, in the numbers of the capture."""
    features = example.features
    tensors = {
        "attention": features.attention,
        "states": torch.cat(features.states, dim=1),
        "truth": torch.from_numpy(rle.packed(example.truth.numpy())),
    }
    about: dict[str, Any] = {
        "view": asdict(features.view),
        "image_hw": features.image_hw,
        "n_tokens": [states.shape[1] for states in features.states],
        "truth_hw": example.truth.shape[1:],
    }
    tensors |= {name: part for name in SEEN if (part := getattr(features, name)) is not None}
    if features.embedding is not None:
        tensors["embedding"] = features.embedding.features[0]
        about["input_size_hw"] = features.embedding.input_size_hw
    if features.proposals is not None:
        tensors |= {f"proposals.{name}": getattr(features.proposals, name) for name in PROPOSED}
        about["proposals"] = asdict(features.proposals.view)
    metadata = {"about": json.dumps(about), "told": told}
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, ordered(save(contiguous, metadata)))


def read_example(path: Path) -> Example:
    """What `write_example` wrote. ValueError where the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, it is made anew.") from error
    height, width = about["truth_hw"]
    bits = np.unpackbits(tensors.pop("truth").numpy(), axis=1, count=height * width)
    truth = torch.from_numpy(bits.astype(bool).reshape(-1, height, width))
    view = _view(about["view"])
    hw: tuple[int, int] = tuple(about["image_hw"])
    embedding = None
    if "embedding" in tensors:
        embedding = SamEmbedding(hw, (tensors["embedding"],), tuple(about["input_size_hw"]))
    states = tensors["states"].split(about["n_tokens"], dim=1)
    seen = {name: tensors.get(name) for name in SEEN}
    found = None
    if "proposals" in about:
        logits, scores, sizes = (tensors[f"proposals.{name}"] for name in PROPOSED)
        found = Proposals(logits, scores, sizes, _view(about["proposals"]))
    features = PhraseFeatures(
        tensors["attention"], tuple(states), view, hw, embedding=embedding, proposals=found, **seen
    )
    return Example(features, truth)


def _view(said: dict[str, Any]) -> View:
    (rows, columns), (x0, y0, x1, y1) = said["size_hw"], said["box_xyxy"]
    return View((rows, columns), (x0, y0, x1, y1), said["name"])


def taught(photograph: Photograph) -> list[Found]:
    """What is learned of a photograph: the phrases whose place in the text is known. ValueError where there are
    none."""
    known = [one for one in photograph.found if one.span is not None]
    if not known:
        raise ValueError("it has no phrase with a mask and a place in its text")
    return known
