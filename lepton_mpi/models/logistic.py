"""Logistic regression: one weight per feature, one bias, sigmoid, binary cross-entropy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch, Input, flat_rows
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.layer import Array, Sums
from lepton_mpi.models import logistic_kernels
from lepton_mpi.models.model import DataFacts, Model, only_numbers
from lepton_mpi.sync import Sync
from lepton_mpi.vectors import Views


class Logistic(Model):
    """With one feature it has the classic two parameters."""

    name, task = "logistic", "classes"
    reads_in_place = True
    decayed = ("weight",)
    kernels = (
        logistic_kernels.logistic_gradient,
        logistic_kernels.logistic_predict,
        logistic_kernels.logistic_probabilities,
    )

    def __init__(self, feature_count: int) -> None:
        self.shapes = {"weight": (feature_count,), "bias": (1,)}
        self.inputs = {"x": Input("numbers", (feature_count,))}
        self._plans: dict[tuple[int, np.dtype[Any]], tuple[Array, Array, Array]] = {}

    def weigh_classes(self, weights: Array) -> None:
        self.class_weights = weights
        self._plans.clear()

    def __str__(self) -> str:
        return f"logistic regression, {self.shapes['weight'][0]} features"

    def loss_and_gradient(
        self, parameters: Views, batch: Batch, gradient: Views, sync: Sync
    ) -> Sums:
        places, weights, scratch = self._plan(batch)
        sums: Sums = logistic_kernels.logistic_gradient(
            *flat_rows(batch, places),
            *(parameters["weight"], parameters["bias"], batch.y, weights, scratch),
            *(gradient["weight"], gradient["bias"]),
        )
        return sums

    def evaluate(self, parameters: Views, batch: Batch, predicted: Array) -> float:
        places, weights, scratch = self._plan(batch)
        loss: float = logistic_kernels.logistic_predict(
            *flat_rows(batch, places),
            *(parameters["weight"], parameters["bias"], batch.y, weights),
            *(scratch, predicted),
        )
        return loss

    def predict(self, parameters: Views, batch: Batch, outputs: Array) -> None:
        places, _, scratch = self._plan(batch)
        given = parameters["weight"], parameters["bias"], scratch, outputs
        logistic_kernels.logistic_probabilities(*flat_rows(batch, places), *given)

    def _plan(self, batch: Batch) -> tuple[Array, Array, Array]:
        """For batches of this length, made once: places of all rows, weights of both classes, and memory for a number a row.

        Without weights both are 1, which changes no bit.
        """
        key = len(batch.y), batch.x.dtype
        plan = self._plans.get(key)
        if plan is None:
            weights = np.ones(2, key[1]) if self.class_weights is None else self.class_weights
            plan = self._plans[key] = np.arange(key[0]), weights, np.empty(*key)
        return plan


def build(options: Mapping[str, Any], data: DataFacts) -> Logistic:
    """It has no options. Raises ConfigurationError unless there are two classes."""
    if data.class_count != 2:
        raise ConfigurationError(
            f"--model logistic: expected data of 2 classes, got {data.outputs_text}; take --model mlp --hidden "
            "(no width) for more"
        )
    return Logistic(*only_numbers("logistic", data).shape)
