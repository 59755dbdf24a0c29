"""Counts and sums that add up over ranks, and the figures computed from them. Never a mean of means."""

import math
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


def add_errors(
    sums: np.ndarray, origin: np.ndarray, wanted: np.ndarray, predicted: np.ndarray
) -> None:
    """Add rows to ``sums``, float64 of shape (4, targets): what ``regression_scores`` is computed from.

    ``wanted`` and ``predicted`` have shape (rows, targets). ``origin``, shape (targets,), is any row of targets, the
    same for all calls: distances from it, not from 0, lose no digits where targets are large and differ by little.
    """
    errors = predicted.astype(np.float64) - wanted
    distances = wanted.astype(np.float64) - origin
    for total, values in zip(
        sums, (errors**2, np.abs(errors), distances**2, distances), strict=True
    ):
        total += values.sum(axis=0)


def regression_scores(sums: np.ndarray, row_count: int) -> dict[str, float]:
    """``mse``, ``rmse`` and ``mae`` over all elements, and ``r2``, the mean over targets, of sums over all ranks.

    r2 is one minus the squared errors' part of the squared distances from the target's mean. For a target that
    never changes it is 1 without an error, else 0, as in scikit-learn.
    """
    squares, sizes, squared_distances, distances = sums
    spread = squared_distances - distances**2 / row_count
    unchanging = np.where(squares == 0, 0.0, 1.0)
    unexplained = np.divide(squares, spread, out=unchanging, where=spread > 0)
    mse = float(squares.mean()) / row_count
    return {
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": float(sizes.mean()) / row_count,
        "r2": float(1 - unexplained.mean()),
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
