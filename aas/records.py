"""What travels between the stages. Frozen; arrays are numpy; every pixel is of the upright original image."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

BoxXyxy = tuple[float, float, float, float]  # in pixels of the upright image
PixelBox = tuple[int, int, int, int]  # the same, of whole pixels, half-open


@dataclass(frozen=True)
class SecondLook:
    """What a visual chain of thought ends with: the `answer` to the question.

    `box_xyxy`: the box of the thing that matters, None where none was looked for, or found; `crop_xyxy`: the part of
    the image that was looked at once more, None where that was no part.
    """

    answer: str
    box_xyxy: PixelBox | None = None
    crop_xyxy: PixelBox | None = None


@dataclass(frozen=True)
class Answer:
    """What the LMM said.

    `token_ids` are the generated (or given) tokens; `token_spans[i]` is the half-open character range of `text` that
    token i writes. Tokens that share a character share its range; a special token writes nothing and has (n, n).
    `token_log_probs`: of each token the logarithm of the model's own probability for it, behind those before it; None
    where that is not known. Answers of the same tokens are equal, however these were rounded.
    """

    question: str
    text: str
    token_ids: tuple[int, ...]
    token_spans: tuple[tuple[int, int], ...]
    token_log_probs: tuple[float, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.token_spans)
        assert self.token_log_probs is None or len(self.token_log_probs) == len(self.token_ids)


@dataclass(frozen=True)
class View:
    """One grid of image tokens.

    `size_hw`: its rows and columns. `box_xyxy`: the rectangle that the grid covers, in pixels of the original image;
    padding makes it stick out of the image, a crop makes it smaller. `name` tells the views of one image apart.
    """

    size_hw: tuple[int, int]
    box_xyxy: tuple[float, float, float, float]
    name: str = "image"


@dataclass(frozen=True)
class AttentionMaps:
    """`maps`: float32 [tokens, h, w], one per answer token; each sums to the attention that went to the view.

    Where layers or heads were kept apart, [layers, tokens, h, w] or [layers, heads, tokens, h, w]. `source`: the map
    source that they are of (docs/maps.md), and `beside` the maps [tokens, h, w] of others that were asked for.
    `margins` float32 [tokens]: where one of them is made of derivatives, how much more the image may do to each token
    than the text.
    """

    maps: np.ndarray
    view: View
    alignment: str = "predict"
    source: str = "mean"
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)
    margins: np.ndarray | None = None

    def __post_init__(self) -> None:
        for maps in (self.maps, *self.beside.values()):
            assert maps.dtype == np.float32 and maps.shape[-2:] == self.view.size_hw

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources that there are maps of, the first the one that points."""
        return (self.source, *self.beside)

    def of(self, source: str) -> "AttentionMaps":
        """The same with the maps of one source in front; ValueError for one that was not asked for."""
        if source not in self.sources:
            raise ValueError(f"There are no maps of {source!r}, but of: {', '.join(self.sources)}.")
        every = {self.source: self.maps, **self.beside}
        return replace(self, maps=every.pop(source), source=source, beside=every)


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: its characters in the answer, its root word's, and the answer tokens that its map merges."""

    text: str
    span: tuple[int, int]
    root_span: tuple[int, int]
    token_indices: tuple[int, ...]

    def root_in(self, text: str) -> str:
        """Its root word, in the answer."""
        return text[slice(*self.root_span)]


@dataclass(frozen=True)
class Prompt:
    """What a segmenter is shown of one thing; at least one of points, box and mask.

    `points_xy` float32 [P, 2] in pixels and their `labels` int64 [P], 1 = on the thing, 0 = not on it; `box_xyxy`
    float32 [4] in pixels; `mask_logits` float32 [s, s], a coarse mask of the image padded to a square at the right or
    the bottom.
    """

    points_xy: np.ndarray | None = None
    labels: np.ndarray | None = None
    box_xyxy: np.ndarray | None = None
    mask_logits: np.ndarray | None = None

    def __post_init__(self) -> None:
        given = (self.points_xy, self.box_xyxy, self.mask_logits)
        assert any(part is not None for part in given)
        assert (self.points_xy is None) == (self.labels is None)
        assert self.points_xy is None or self.points_xy.shape == (len(self.labels), 2)  # type: ignore[arg-type]
        assert self.box_xyxy is None or self.box_xyxy.shape == (4,)
        assert self.mask_logits is None or self.mask_logits.ndim == 2


@dataclass(frozen=True)
class GroundedPhrase:
    """A phrase and where it is.

    `map` float32 [h, w], over the grid of the grounding's view; `point_xy` pixels, the map's peak; `mask` bool [H, W];
    `score` the segmenter's predicted IoU of the mask. `points_xy` and `labels`: all points that the segmenter was
    given, the peak first, 1 = on the thing, 0 = not on it; empty: the peak alone. `confidence` from 0 to 1: how far the
    picture supports the phrase, None where that is not known; what kind of number it is says the grounding.
    """

    phrase: Phrase
    map: np.ndarray
    point_xy: tuple[int, int]
    mask: np.ndarray
    score: float
    points_xy: tuple[tuple[int, int], ...] = ()
    labels: tuple[int, ...] = ()
    confidence: float | None = None

    def __post_init__(self) -> None:
        assert len(self.points_xy) == len(self.labels)

    @property
    def prompt_points(self) -> tuple[tuple[tuple[int, int], int], ...]:
        """Each point `x, y` with its label, the peak first."""
        return tuple(zip(self.points_xy, self.labels, strict=True)) or ((self.point_xy, 1),)

    @property
    def text(self) -> str:
        """Its words."""
        return self.phrase.text

    @property
    def span(self) -> tuple[int, int]:
        """Its characters in the answer, half-open."""
        return self.phrase.span

    @property
    def token_indices(self) -> tuple[int, ...]:
        """The answer's tokens whose maps were merged."""
        return self.phrase.token_indices
