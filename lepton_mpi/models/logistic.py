"""Logistic regression: one weight per feature, one bias, sigmoid, binary cross-entropy."""

import numpy as np

from lepton_mpi.models import Batch, kernels


class Logistic:
    """See ``lepton_mpi.models`` for the contract. With one feature it has the classic two parameters."""

    name = "logistic"

    def __init__(self, feature_count: int) -> None:
        self.shapes = {"weight": (feature_count,), "bias": (1,)}
        self._scratch: dict[tuple[int, np.dtype], np.ndarray] = {}

    def __str__(self) -> str:
        return f"logistic regression, {self.shapes['weight'][0]} features"

    def loss_and_gradient(self, parameters, batch: Batch, gradient) -> tuple[float, int]:
        """Summed binary cross-entropy and number of rows classified correctly."""
        loss, correct = kernels.logistic_gradient(
            batch.x.reshape(len(batch.x), -1),
            parameters["weight"],
            parameters["bias"],
            batch.y,
            self._buffer(batch),
            gradient["weight"],
            gradient["bias"],
        )
        return loss, int(correct)

    def evaluate(self, parameters, batch: Batch, predicted) -> float:
        """Predicted classes and summed loss."""
        x = batch.x.reshape(len(batch.x), -1)
        buffer = self._buffer(batch)
        return kernels.logistic_predict(
            x, parameters["weight"], parameters["bias"], batch.y, buffer, predicted
        )

    def _buffer(self, batch: Batch) -> np.ndarray:
        key = len(batch.x), batch.x.dtype
        if key not in self._scratch:
            self._scratch[key] = np.empty(key[0], key[1])
        return self._scratch[key]
