"""The arguments of `aas segment`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aas.maps.merge import Merge
from aas.phrases.parser import Words
from aas.phrases.visible import TESTS, Kind
from aas.pointing.phrases import PointingOptions, PromptKind
from aas.presets import PRESETS
from aas.segmenters.choice import CHOICES, MaskChoice

Task = Literal["gcg", "instance", "expressions"]
Fit = Literal["pad", "stretch"]


@dataclass(frozen=True)
class Segment:
    """The arguments of a run."""

    task: Task
    attn: Path
    images: Path
    out: Path
    ref_anno: Path | None = None
    answers: Path | None = None
    segmenter: str = "embedded"
    phrases: str = "embedded"
    preset: str = "paper"
    tokenizer: str | None = None
    fit: Fit = "pad"
    merge: Merge | None = None
    words: Words = "root"
    drop: tuple[Kind, ...] = ()
    prompt: PromptKind = "point"
    points: int = 1
    negative_points: int = 0
    mask_choice: MaskChoice = "last"
    categories: str = "present"
    category_thresh: float = 0.5
    more_masks: bool = False
    num_chunks: int = 1
    chunk_idx: int = 0
    batch_size: int | None = None
    device: str | None = None
    dtype: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"Unknown preset {self.preset!r}. Known: {', '.join(PRESETS)}.")
        for option, value, known in (
            ("--mask-choice", self.mask_choice, CHOICES),
            ("--fit", self.fit, ("pad", "stretch")),
            ("--merge", self.merge or "mean", ("mean", "max", "first")),
            ("--words", self.words, ("root", "chunk")),
            ("--prompt", self.prompt, ("point", "mask")),
            *(("--drop", kind, tuple(TESTS)) for kind in self.drop),
        ):
            if value not in known:
                raise ValueError(f"{option} {value!r}: give {', '.join(known)}.")
        if not 0 <= self.chunk_idx < self.num_chunks:
            raise ValueError(
                f"--chunk-idx {self.chunk_idx} must be at least 0 and below --num-chunks {self.num_chunks}."
            )
        if self.task == "instance" and self.ref_anno is None:
            raise ValueError("`aas segment instance` needs --ref-anno, a COCO annotation: it gives ids and categories.")
        if (self.task == "expressions") != (self.answers is not None):
            raise ValueError(
                "`aas segment expressions` needs --answers, the file that `aas infer-attn` was given; no other task "
                "takes it."
            )

    @property
    def merge_used(self) -> Merge:
        """A given expression is many words, any of which may be the one that is looked for: the largest counts."""
        return self.merge or ("max" if self.task == "expressions" else PRESETS[self.preset].merge)

    def pointing(self, mask_side: int) -> PointingOptions:
        points = (self.points, self.negative_points)
        return PointingOptions(self.merge_used, self.words, self.drop, self.prompt, *points, mask_side)

    def that_decide(self) -> dict[str, Any]:
        """Those that decide what the results are; the others decide only when and where they are made."""
        decide = ["segmenter", "phrases", "preset", "merge", "words", "drop", "prompt", "points", "negative_points"]
        decide += ["mask_choice", "dtype", "tokenizer", "fit"]
        if self.task == "instance":
            decide += ["categories", "category_thresh", "more_masks"]
        return {name: getattr(self, name) for name in decide}
