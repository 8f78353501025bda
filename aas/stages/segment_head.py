"""Masks of stored attention by a trained head: the LMM that answered reads its answers once more."""

from dataclasses import dataclass

import numpy as np

from aas import devices
from aas.headed import WITH_ADAPTER, HeadMasks
from aas.heads.named import head_path
from aas.heads.stored import read_head_file
from aas.lmms import load_lmm
from aas.lmms.prepared import Prepared
from aas.records import Answer
from aas.segmenters.base import Segmenter
from aas.stages.segment_items import arguments_of
from aas.stages.segment_options import Segment

LOADING = ("base", "dtype", "quantize", "device_map")  # as infer-attn was told


@dataclass(frozen=True)
class Rereading:
    """A head, and the LMM that it stands on."""

    masks: HeadMasks

    @property
    def is_small(self) -> bool:
        """Whether several of its LMM fit side by side."""
        return devices.is_small(self.masks.lmm.model)

    def prepare(self, image: np.ndarray, answer: Answer) -> Prepared:
        """A photograph uint8 [H, W, 3] and what was said about it, for the LMM. ValueError where they do not fit its
        context, or its tokens are not those of the answer."""
        return self.masks.lmm.prepare(image, answer.question, None, answer.token_ids)


def rereading(options: Segment, segmenter: Segmenter, device: str | None) -> Rereading | None:
    """What `--head` names, with the LMM of the attention's run; None without. Raises ValueError or OSError where they
    do not belong together, or are not there."""
    if options.head is None:
        return None
    read_head_file(head_path(options.head))  # before an LMM is loaded
    said = arguments_of(options.attn)
    if "model" not in said:
        raise ValueError(
            f"--head looks at the LMM while it reads the answers, and {options.attn} does not say which one answered: "
            "run `aas infer-attn` with it."
        )
    if said.get("adapter"):
        raise ValueError(WITH_ADAPTER)
    lmm = load_lmm(said["model"], device, **{name: said[name] for name in LOADING if said.get(name) is not None})
    return Rereading(HeadMasks(options.head, lmm, segmenter, options.segmenter, options.head_threshold))
