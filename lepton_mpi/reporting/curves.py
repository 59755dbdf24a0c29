"""Curves of scores: ROC, and precision over recall.

Rows of equal scores count as one step, as in scikit-learn. Source: Fawcett, "An introduction to ROC analysis", Pattern
Recognition Letters 27, 2006; Davis and Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006.
"""

from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """Of one class against the rest.

    Attributes
    ----------
    false_positive, recall, precision : float64, shape (thresholds + 1,)
        From no row that counts as positive to all rows; the first precision is 1.
    auc, average_precision : float
    """

    false_positive: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    auc: float
    average_precision: float


def ranking(scores: np.ndarray, is_positive: np.ndarray) -> Ranking | None:
    """Of scores (rows,) and bools (rows,); None where all rows are of one kind.

    >>> found = ranking(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    >>> found.auc, round(found.average_precision, 4)
    (0.75, 0.8333)
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_positive[order])
    if not len(order) or not 0 < hits[-1] < len(order):
        return None
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true, called = hits[last].astype(np.float64), last + 1.0
    recall = np.append(0.0, true / hits[-1])
    false = np.append(0.0, (called - true) / (len(order) - hits[-1]))
    precision = np.append(1.0, true / called)
    auc = float(np.sum(np.diff(false) * (recall[1:] + recall[:-1]) / 2))
    return Ranking(false, recall, precision, auc, float(np.sum(np.diff(recall) * precision[1:])))
