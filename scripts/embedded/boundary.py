"""How well a mask's edge follows the thing's: boundary F (Perazzi et al. 2016, DAVIS) at 2 pixels of a side of 640."""

import cv2
import numpy as np

TOLERANCE, SIDE = 2, 640  # pixels of a photograph whose longer side is SIDE


def edge(mask: np.ndarray) -> np.ndarray:
    """Pixels of `mask` bool [H, W] beside one outside it; the picture's own border is no edge."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return mask & (inner == 0)


def boundary_f(mask: np.ndarray, truth: np.ndarray) -> float:
    """F of `mask`'s edge pixels near an edge of `truth` (precision) and the other way round (recall); bool [H, W].

    Both without an edge: 1; one of them: 0.
    """
    tolerance = TOLERANCE * max(mask.shape) / SIDE
    edges = [edge(mask), edge(truth)]
    if not edges[0].any() or not edges[1].any():
        return float(not edges[0].any() and not edges[1].any())
    far = [cv2.distanceTransform((~e).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for e in edges]
    precision = float((far[1][edges[0]] <= tolerance).mean())
    recall = float((far[0][edges[1]] <= tolerance).mean())
    return 2 * precision * recall / max(precision + recall, 1e-12)
