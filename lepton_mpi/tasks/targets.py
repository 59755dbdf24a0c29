"""Each row has numbers to predict: mean squared and absolute errors, and r2, from sums of squares.

Models see scaled targets, and so is the loss; all other figures, and predictions, are in the units of the data.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.tasks.task import Better, Figures, listed

_ERRORS = ("mse", "rmse", "mae")


class Targets:
    """See ``Task``. Sums are float64 (4, targets): squared errors, absolute errors, squared distances, distances.

    Parameters
    ----------
    origin : floats, shape (targets,)
        Any row of targets, the same on all ranks: distances from it, not from 0, lose no digits where targets are
        large and differ by little. Its type is that of predictions.
    scale : TargetScale, optional
        How ``origin`` and the targets of batches are scaled; not at all if not given.
    """

    name, score = "targets", "r2"
    better: Mapping[str, Better] = {"r2": "higher", **dict.fromkeys(("loss", *_ERRORS), "lower")}

    def __init__(self, origin: np.ndarray, scale: TargetScale | None = None) -> None:
        self._origin, self._scale = origin, scale or TargetScale.identity(origin.size)
        self._true_origin = self._scale.unscaled(origin.reshape(1, -1))

    def weight(self, batch: Batch) -> int:
        """Rows."""
        return len(batch.y)

    def room_for(self, rows: int) -> np.ndarray:
        """Predicted targets, of the type of ``y``, shape (rows, targets)."""
        return np.empty((rows, self._origin.size), self._origin.dtype)

    def new_sums(self) -> np.ndarray:
        """float64 (4, targets)."""
        return np.zeros((4, self._origin.size))

    def add(self, sums: np.ndarray, batch: Batch, predicted: np.ndarray) -> None:
        """Count a batch."""
        wanted = self._scale.unscaled(batch.y)
        errors = self._scale.unscaled(predicted) - wanted
        distances = wanted - self._true_origin
        for total, values in zip(
            sums, (errors**2, np.abs(errors), distances**2, distances), strict=True
        ):
            total += values.sum(axis=0)

    def figures(self, sums: np.ndarray, loss: float, weight: int) -> Figures:
        """``loss``; ``mse``, ``rmse`` and ``mae`` over all elements; ``r2``, the mean over targets.

        r2 is one minus the squared errors' part of the squared distances from the target's mean. For a target that
        never changes it is 1 without an error, else 0, as in scikit-learn.
        """
        squares, sizes, squared_distances, distances = sums
        spread = squared_distances - distances**2 / weight
        unchanging = np.where(squares == 0, 0.0, 1.0)
        unexplained = np.divide(squares, spread, out=unchanging, where=spread > 0)
        mse = float(squares.mean()) / weight
        return {
            "loss": loss / weight,
            "mse": mse,
            "rmse": math.sqrt(mse),
            "mae": float(sizes.mean()) / weight,
            "r2": float(1 - unexplained.mean()),
        }

    def training_figures(self, loss: float, correct: float, weight: int) -> Figures:
        """``loss``; and ``accuracy``, if a model of the user's own counts what it takes for correct."""
        accuracy = {} if math.isnan(correct) else {"accuracy": correct / weight}
        return {"loss": loss / weight, **accuracy}

    def short(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """``loss`` and ``r2``."""
        return {name: figures[name] for name in ("loss", "r2")}

    def result(self, figures: Mapping[str, Any]) -> Figures:
        """``test_loss``, ``test_mse``, ``test_rmse``, ``test_mae`` and ``test_r2``."""
        return {f"test_{name}": value for name, value in figures.items()}

    def sentence(self, figures: Mapping[str, Any]) -> str:
        """Figures in one line."""
        return listed(figures, (*_ERRORS, "r2", "loss"))

    def table(self, figures: Mapping[str, Any]) -> list[str]:
        """Nothing: the line says it all."""
        return []

    def outputs_for(self, rows: int) -> np.ndarray:
        """Predicted targets, shape (rows, targets)."""
        return self.room_for(rows)

    def columns(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """``target``, or ``target 0``, ``target 1``, … if there are several."""
        outputs = self._scale.unscaled(outputs)
        if self._origin.size == 1:
            return {"target": outputs[:, 0]}
        return {f"target {number}": values for number, values in enumerate(outputs.T)}


def make(data: DataSet) -> Targets:
    """The task of data whose rows have targets."""
    rows = next(rows for rows in data.splits.values() if rows.row_count)
    return Targets(rows.y[rows.numbers(0, 1)[0]], data.target_scale)
