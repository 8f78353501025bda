"""How well questions are answered that have yes or no for an answer."""

from collections.abc import Sequence

import numpy as np

from aas.metrics.auc import auc_evidence
from aas.metrics.bootstrap import Evidence
from aas.metrics.mean import mean_evidence


def yes_no(
    labels: Sequence[bool],
    said: Sequence[bool | None],
    log_odds: Sequence[float],
    images: Sequence[int],
    n_images: int,
) -> Evidence:
    """Accuracy, precision, recall and F1 of yes, the share of yes, the share of unreadable answers, and AUC.

    `labels`: what is right; `said`: what is answered, None where that is neither, which is wrong, and no yes;
    `log_odds`: of yes against no, which AUC orders them by: how often a question to be answered by yes has larger ones
    than one to be answered by no. `images`: the number of each question's image, from 0. Fractions of 1; precision is
    NaN where nothing is answered by yes.
    """
    true = np.array(labels, bool)
    yes, no = (np.array([one is word for one in said], bool) for word in (True, False))
    by = {
        "accuracy": (np.where(true, yes, no), None),
        "precision": (true & yes, yes),
        "recall": (true & yes, true),
        "F1": (2 * (true & yes), yes.astype(int) + true),
        "yes_ratio": (yes, None),
        "unreadable": (~yes & ~no, None),
    }
    found = {name: mean_evidence(over, images, under, n_images=n_images) for name, (over, under) in by.items()}
    return found | {"AUC": auc_evidence(log_odds, labels, images, n_images)}
