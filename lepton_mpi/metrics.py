"""Counts that add up over ranks, and the figures computed from their sums. Never a mean of means."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """What one confusion matrix says. A ratio whose denominator is 0 counts as 0.

    Attributes
    ----------
    accuracy : float
    precision, recall, f1 : float64, shape (classes,)
    """

    accuracy: float
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def macro(self) -> dict[str, float]:
        """Unweighted means over classes."""
        return {name: float(getattr(self, name).mean()) for name in ("precision", "recall", "f1")}


def count_confusion(confusion: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> None:
    """Add rows to ``confusion``, int64 of shape (classes, classes): row true class, column predicted."""
    np.add.at(confusion, (true, predicted), 1)


def scores(confusion: np.ndarray) -> Scores:
    """Accuracy and, per class, precision, recall and F1 of a confusion matrix summed over all ranks."""
    hits = np.diagonal(confusion).astype(np.float64)
    precision = _ratio(hits, confusion.sum(axis=0))
    recall = _ratio(hits, confusion.sum(axis=1))
    f1 = _ratio(2 * precision * recall, precision + recall)
    return Scores(float(_ratio(hits.sum(), confusion.sum())), precision, recall, f1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
