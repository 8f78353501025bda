"""Grounded conversation generation: how well one image's masks and phrases are those of the ground truth.

Two protocols. `glamm` is the published evaluator, to the number; `strict` differs where that one is not right
(docs/evaluation.md).
"""

from dataclasses import dataclass

import numpy as np

from aas.metrics.pairing import greedy_ious

MIN_IOU = MIN_SIMILARITY = 0.5


@dataclass(frozen=True)
class ImagePairs:
    """What pairing needs of one image. `ious` float64 [predicted masks, true masks]; `similarities` [labels, phrases],
    cosines; `both_empty` bool like `ious`: pairs of two masks without a pixel."""

    ious: np.ndarray
    similarities: np.ndarray
    both_empty: np.ndarray


def glamm_iou(pairs: ImagePairs) -> tuple[float, float]:
    """(IoU, 1): the mean over greedy pairs, 0 if there are none. Unmatched masks cost nothing."""
    found = greedy_ious(_as_published(pairs))
    return (float(np.mean(found)) if found else 0.0), 1.0


def strict_iou(pairs: ImagePairs) -> tuple[float, float]:
    """(IoU, 1): the sum over greedy pairs by the number of true masks; (0, 0) where there are none."""
    n_true = pairs.ious.shape[1]
    return (sum(greedy_ious(pairs.ious)) / n_true, 1.0) if n_true else (0.0, 0.0)


def glamm_recall(pairs: ImagePairs) -> tuple[float, float]:
    """(pairs, labels): best IoU first, and no further than the first pair that fails.

    Best pairs are looked for among [true, predicted], ties to the first. A pair of masks that has no words fails the
    whole image: there the published evaluator stops with an error, and counts nothing.
    """
    ious, n_labels = _as_published(pairs).T.copy(), float(len(pairs.similarities))
    n_found = 0
    while ious.size:
        row, column = np.unravel_index(ious.argmax(), ious.shape)
        if ious[row, column] < MIN_IOU:
            break
        if row >= pairs.similarities.shape[0] or column >= pairs.similarities.shape[1]:
            return 0.0, n_labels
        if pairs.similarities[row, column] < MIN_SIMILARITY:
            break
        n_found += 1
        ious[row, :] = ious[:, column] = 0.0
    return float(n_found), n_labels


def strict_recall(pairs: ImagePairs) -> tuple[float, float]:
    """(pairs, labels): best IoU first; a pair that fails is skipped, and its masks stay free for others."""
    n_labels, n_phrases = pairs.similarities.shape
    ious = pairs.ious.T[:n_labels, :n_phrases].copy()
    similar = pairs.similarities[: ious.shape[0], : ious.shape[1]] >= MIN_SIMILARITY
    return float(len(greedy_ious(np.where(similar & (ious >= MIN_IOU), ious, 0.0)))), float(n_labels)


def _as_published(pairs: ImagePairs) -> np.ndarray:
    """IoUs as decoded arrays give them: 0/0 where both masks are empty."""
    return np.where(pairs.both_empty, np.nan, pairs.ious)


PROTOCOLS = {
    "glamm": {"mIoU": glamm_iou, "recall": glamm_recall},
    "strict": {"mIoU": strict_iou, "recall": strict_recall},
}
