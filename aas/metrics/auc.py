"""The area under the ROC curve: how often one kind has a larger value than the other. Evidence of the kind `auc`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from aas.metrics.bootstrap import Columns, Figures
from aas.metrics.mean import ratio


def area(values: np.ndarray, on: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Of `values` [n] that count `on` [..., n] times as one kind and `off` [..., n] times as the other: the share of
    pairs where that of the first kind is larger, equal ones by half. float64 [...]; NaN where a kind is missing."""
    if not len(values):
        return np.full(on.shape[:-1], np.nan)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    on, off = (np.add.reduceat(weights[..., order], starts, axis=-1) for weights in (on, off))
    below = off.cumsum(-1) - off / 2  # of equal values half is below
    return ratio((on * below).sum(-1), on.sum(-1) * off.sum(-1))


def auc(name: str, columns: Columns, weights: np.ndarray) -> Figures:
    """Of the values of all images together, each counting as often as its image."""
    kinds = (columns["on"], columns["off"])
    values = np.array([value for kind in kinds for some in kind for value in some], float)
    images = [image for kind in kinds for image, some in enumerate(kind) for _ in some]
    is_on = np.arange(len(images)) < sum(map(len, columns["on"]))
    drawn = weights[:, np.array(images, int)]
    return {name: area(values, drawn * is_on, drawn * ~is_on)}


def auc_evidence(
    values: Sequence[float], is_on: Sequence[bool], images: Sequence[int], n_images: int
) -> dict[str, Any]:
    """Of `values` [n], those of either kind by image. `images`: the number of each one's image, from 0."""
    found: dict[str, list[list[float]]] = {kind: [[] for _ in range(n_images)] for kind in ("on", "off")}
    for value, of_first, image in zip(values, is_on, images, strict=True):
        found["on" if of_first else "off"][image].append(float(value))
    return {"kind": "auc", **found}
