"""How well masks of referring expressions fit: cIoU, gIoU and precision."""

from collections.abc import Sequence

import numpy as np

from aas.metrics.bootstrap import Evidence
from aas.metrics.mean import mean_evidence
from aas.metrics.overlap import MaskPair

THRESHOLDS = (0.5, 0.7, 0.9)


def referring(pairs: Sequence[MaskPair], images: Sequence[int]) -> Evidence:
    """cIoU, gIoU, and precision at 0.5, 0.7 and 0.9.

    What `bootstrap.figures` makes these of: `cIoU`, the sum of all intersections by that of all unions, so large things
    weigh more; `gIoU`, the mean IoU; `Pr@t`, the share of IoUs of at least t. Fractions of 1; NaN of nothing.
    `images`: the number of each pair's image, from 0.
    """
    ious = np.array([pair.iou for pair in pairs])
    intersections, unions = ([getattr(pair.overlap, what) for pair in pairs] for what in ("intersection", "union"))
    evidence = {"cIoU": mean_evidence(intersections, images, unions), "gIoU": mean_evidence(ious, images)}
    return evidence | {f"Pr@{t}": mean_evidence(ious >= t, images) for t in THRESHOLDS}
