"""Logistic regression: one weight per feature, one bias, sigmoid, binary cross-entropy."""

import numpy as np

from lepton_mpi.batch import Batch, flat_rows
from lepton_mpi.models import logistic_kernels


class Logistic:
    """See ``lepton_mpi.models`` for the contract. With one feature it has the classic two parameters."""

    name = "logistic"
    reads_in_place = True
    kernels = (logistic_kernels.logistic_gradient, logistic_kernels.logistic_predict)

    def __init__(self, feature_count: int) -> None:
        self.shapes = {"weight": (feature_count,), "bias": (1,)}
        self._plans: dict[tuple[int, np.dtype], tuple[np.ndarray, np.ndarray]] = {}

    def __str__(self) -> str:
        return f"logistic regression, {self.shapes['weight'][0]} features"

    def loss_and_gradient(self, parameters, batch: Batch, gradient) -> tuple[float, int]:
        """Summed binary cross-entropy and number of rows classified correctly."""
        places, scratch = self._plan(batch)
        loss, correct = logistic_kernels.logistic_gradient(
            *flat_rows(batch, places),
            *(parameters["weight"], parameters["bias"], batch.y, scratch),
            *(gradient["weight"], gradient["bias"]),
        )
        return loss, int(correct)

    def evaluate(self, parameters, batch: Batch, predicted) -> float:
        """Predicted classes and summed loss."""
        places, scratch = self._plan(batch)
        return logistic_kernels.logistic_predict(
            *flat_rows(batch, places),
            *(parameters["weight"], parameters["bias"], batch.y, scratch, predicted),
        )

    def _plan(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Places of all rows of a batch of this length, and memory for a number a row, made once."""
        key = len(batch.y), batch.x.dtype
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = np.arange(key[0]), np.empty(*key)
        return plan
