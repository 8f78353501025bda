"""Masks as polygons, for formats that have nothing better: holes and parts are joined by seams of no width.

Vertices are pixels: a polygon goes through the outermost pixels of its mask, as OpenCV's and Pillow's polygons do when
they are filled. Other outlines lose half a pixel all around.
"""

from collections.abc import Sequence

import cv2
import numpy as np

MIN_POINTS = 3  # of a polygon; less is no polygon for any reader


def parts(mask: np.ndarray, tolerance_px: float = 0.0) -> list[np.ndarray]:
    """A closed polygon int32 [P, 2] (x, y) for each connected part of a bool mask [H, W], its holes cut out by seams.

    `tolerance_px`: how far a vertex that is left out may lie from the polygon; 0 keeps every corner.
    """
    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [_simplified(contour, tolerance_px) for contour in contours]
    parents = [] if hierarchy is None else hierarchy[0, :, 3].tolist()
    of_part = {i: [ring for ring, parent in zip(rings, parents, strict=True) if parent == i] for i in _outer(parents)}
    return [joined([rings[i], *holes]) for i, holes in of_part.items()]


def joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One polygon that goes around all rings int32 [P, 2]; each is entered and left by one seam, at its nearest point
    to what is there already, the nearest ring first. Filled by the even-odd rule, a ring in another one is a hole."""
    whole, rest = rings[0], list(rings[1:])
    while rest:
        seams = [_seam(whole, ring) for ring in rest]
        nearest = min(range(len(rest)), key=lambda i: seams[i][2])
        at, start, _ = seams[nearest]
        ring = np.roll(rest.pop(nearest), -start, axis=0)
        whole = np.concatenate([whole[: at + 1], ring, ring[:1], whole[at:]])
    return whole


def _outer(parents: Sequence[int]) -> list[int]:
    return [i for i, parent in enumerate(parents) if parent < 0]


def _simplified(contour: np.ndarray, tolerance_px: float) -> np.ndarray:
    ring = cv2.approxPolyDP(contour, tolerance_px, True)[:, 0]
    return np.concatenate([ring, np.repeat(ring[-1:], max(0, MIN_POINTS - len(ring)), axis=0)])


def _seam(whole: np.ndarray, ring: np.ndarray) -> tuple[int, int, float]:
    """(index in `whole`, index in `ring`, squared distance) of the nearest pair of vertices."""
    distances = ((whole[:, None].astype(np.float32) - ring[None]) ** 2).sum(axis=2)
    at, start = np.unravel_index(int(distances.argmin()), distances.shape)
    return int(at), int(start), float(distances[at, start])
