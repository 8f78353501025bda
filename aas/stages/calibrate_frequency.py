"""LocalizationHeads' frequency (arXiv 2503.06287): how often a head's attention to a photograph is among the most
compact. For models whose heads do not tell photographs of a mosaic apart."""

import cv2
import numpy as np

LOWEST = 10  # of the thousand heads of a model of 7 billion weights; the same share of fewer, 3 at least
FIRST_LAYER = 2  # those before are left out
N_HEADS = 3  # that are kept
LEAST_HEADS = 10  # that look: fewer may agree by chance


def looking(sums: np.ndarray) -> np.ndarray:
    """Bool [layers, heads]: those whose attention to the image, `sums` float [photographs, layers, heads], lies on the
    mean above the bend of all heads'."""
    mean = sums.mean(0)
    return (mean >= bend(mean)) & (np.arange(len(mean)) >= FIRST_LAYER)[:, None]


def frequencies(entropies: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """Float64 [layers, heads]: the share of photographs in which a head is among the LOWEST by entropy, of those that
    look. `entropies` float [photographs, layers, heads]; an infinite one counts nowhere."""
    seen = np.where(looks, entropies, np.inf).reshape(len(entropies), -1)
    n = max(3, min(LOWEST, round(LOWEST * looks.size / 1000)))
    found = np.zeros(looks.size)
    for row in seen:
        lowest = np.argsort(row, kind="stable")[:n]
        found[lowest[np.isfinite(row[lowest])]] += 1
    return found.reshape(looks.shape) / len(seen)


def bend(values: np.ndarray) -> float:
    """Where the curve of the sorted values bends most: the value that lies furthest from the line between their ends.
    The paper speaks of the largest curvature; its code takes this."""
    ordered = np.sort(values, axis=None).astype(np.float64)
    line = np.linspace(ordered[0], ordered[-1], len(ordered))
    return float(ordered[np.argmax(np.abs(ordered - line))])


def spatial_entropy(grid_map: np.ndarray) -> float:
    """Of a map [h, w]: -sum P log P over the connected regions (8 neighbours) of what lies above its mean, P being a
    region's share of their cells. Infinite where nothing does, and for a map whose whole bottom row does: a sink."""
    is_on = grid_map > grid_map.mean()
    if not is_on.any() or is_on[-1].all():
        return np.inf
    _, regions = cv2.connectedComponents(is_on.astype(np.uint8), connectivity=8)
    sizes = np.bincount(regions.ravel())[1:]
    shares = sizes / sizes.sum()
    return float(-(shares * np.log(shares)).sum())


def sums_and_entropies(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one photograph: `maps` [layers, heads, h, w] to float64 [layers, heads] each."""
    entropies = [[spatial_entropy(one) for one in layer] for layer in maps]
    return maps.sum((-1, -2), dtype=np.float64), np.array(entropies)
