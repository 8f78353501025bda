"""Figures that are a mean over images: evidence of the kind `mean`, or `signed_mean` where it may lie below 0."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aas.metrics.bootstrap import Columns, Figures


def mean(name: str, columns: Columns, weights: np.ndarray) -> Figures:
    """Sum of `values` by the sum of `n`."""
    return {name: ratio(weights @ np.asarray(columns["values"], float), weights @ np.asarray(columns["n"], float))}


def ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """float64; NaN where `under` is 0."""
    return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) > 0)


def mean_evidence(
    values: ArrayLike, images: Sequence[int], by: ArrayLike | None = None, *, n_images: int = 0, signed: bool = False
) -> dict[str, Any]:
    """Of `values` [masks], the mean: their sum by that of `by` (1 each by default). `images`: the number of each mask's
    image, from 0; `n_images`: how many there are, if the last ones may have none; `signed`: some may be negative."""
    by = np.ones(len(images)) if by is None else by
    sums = (np.bincount(images, np.asarray(column, float), n_images).tolist() for column in (values, by))
    return {"kind": "signed_mean" if signed else "mean", **dict(zip(("values", "n"), sums, strict=True))}
