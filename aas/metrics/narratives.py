"""How well the masks of a narrative's phrases fit: the average recall of panoptic narrative grounding."""

from collections.abc import Sequence

import numpy as np

from aas.metrics.bootstrap import Evidence
from aas.metrics.mean import mean_evidence
from aas.metrics.overlap import MaskPair

KINDS = ("things", "stuff", "singular", "plural")


def narratives(pairs: Sequence[MaskPair], images: Sequence[int]) -> Evidence:
    """Average recall: of all phrases, and of things, stuff, singular and plural ones.

    The recall at a threshold t is the share of IoUs of at least t; its average over t from 0 to 1, the area under that
    curve (section 4.2 of arXiv 2109.04988), is the mean IoU. `images`: the number of each pair's image, from 0.
    """
    ious = np.array([pair.iou for pair in pairs])
    evidence = {"AR": mean_evidence(ious, images)}
    for kind in KINDS:
        mine = np.array([kind in pair.kinds for pair in pairs])
        evidence[f"AR_{kind}"] = mean_evidence(ious * mine, images, mine)
    return evidence | {"recall@0.5": mean_evidence(ious >= 0.5, images)}
