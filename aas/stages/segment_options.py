"""The options of `aas segment`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from aas.choices import Dtype, Fit, Merge, Task
from aas.photographs import Address
from aas.stages.options import IMAGES, MASK, MaskOptions, PhraseOptions, RunOptions
from aas.store.addresses import OF_RUN


@dataclass(frozen=True, kw_only=True)
class Segment(RunOptions, MaskOptions, PhraseOptions):
    """Turn stored attention into masks."""

    task: Annotated[Task, Argument(help="A mask for each phrase, of COCO's categories, or of --answers.")]
    attn: Annotated[
        Path, Option(help="Run folder or URL of `aas infer-attn`, or a folder of the authors' .pth.", **OF_RUN)
    ]
    images: Annotated[Path | Address, IMAGES(help="Where the photographs are, as infer-attn was told.")]
    out: Annotated[Path, Option(help="Run folder or URL: one file per image. Started again, it goes on.", **OF_RUN)]
    ref_anno: Annotated[Path | None, Option(help="COCO or GranD-f annotation: its images, with its ids.")] = None
    answers: Annotated[Path | None, Option(help="Of expressions: the file that infer-attn was given.")] = None
    maps: Annotated[
        str | None, Option(metavar="NAME", help="The stored map source that points. Default: the item's first.")
    ] = None
    tokenizer: Annotated[str | None, Option(help="Of the authors' items (.pth), which hold ids only.")] = None
    fit: Annotated[Fit, Option(help="Of those items: how images became square.")] = "pad"
    dtype: Annotated[Dtype, MASK(help="What the image encoder computes in.")] = "auto"
    categories: Annotated[
        str, MASK(help="Of instances: present in the ground truth (an oracle), all, or a file of names.")
    ] = "present"
    category_thresh: Annotated[float, MASK(help="Least cosine between a phrase and its category.")] = 0.5
    more_masks: Annotated[bool, MASK(help="Of instances: keep all three masks.")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_masks()
        if self.head is not None and self.more_masks:
            raise ValueError("--head makes one mask of a phrase: leave --more-masks out.")
        if self.task == "instance" and self.ref_anno is None:
            raise ValueError("`aas segment instance` needs --ref-anno, a COCO annotation: it gives ids and categories.")
        if (self.task == "expressions") != (self.answers is not None):
            raise ValueError(
                "`aas segment expressions` needs --answers, the file that `aas infer-attn` was given; no other task "
                "takes it."
            )
        if self.task == "expressions" and self.min_confidence is not None:
            raise ValueError("--min-confidence leaves phrases out, and given expressions are all wanted: leave it out.")

    @property
    def merge_used(self) -> Merge:
        """A given expression is many words, any of which may be the one that is looked for: the largest counts."""
        return self.merge or ("max" if self.task == "expressions" else super().merge_used)

    def inputs(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("attn", "images", "ref_anno", "answers")}

    def stood_for(self) -> dict[str, Any]:
        return {"preset": self.preset_used}

    def deciding(self) -> dict[str, Any]:
        of_instances = ("categories", "category_thresh", "more_masks")
        left_out = {"task"} | (set() if self.task == "instance" else set(of_instances))
        return {name: value for name, value in super().deciding().items() if name not in left_out}
