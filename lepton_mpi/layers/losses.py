"""Losses, as heads of networks: softmax with cross-entropy for classes, squared error and Huber's for targets.

Formulas and sources in ``loss_kernels.py``. All replace the network's outputs by the gradient, so they need no memory.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.layers import loss_kernels
from lepton_mpi.layers.layer import Array, Arrays, Head, Sums


class CrossEntropy(Head):
    """Of the softmax of the outputs, shape (rows, …, classes), with labels, int32, (rows, …); summed, not averaged."""

    task, in_place = "classes", True
    kernels: Sequence[Kernel] = (
        loss_kernels.softmax_cross_entropy,
        loss_kernels.softmax_predict,
        loss_kernels.softmax,
    )

    def __init__(self) -> None:
        self._weights: Array | None = None

    def weigh(self, weights: Array) -> None:
        """Multiply loss and gradient of a row by the weight of its class, shape (classes,). Before ``kernels`` are read."""
        self._weights, self.kernels = weights, (*type(self).kernels, *loss_kernels.WEIGHTED)

    def loss_and_gradient(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], y: Array
    ) -> Sums:
        logits, labels = _as_gradient(at), y.reshape(-1)
        if self._weights is None:
            loss, correct = loss_kernels.softmax_cross_entropy(logits, labels)
        else:
            loss, correct = loss_kernels.weighted_softmax_cross_entropy(
                logits, labels, self._weights
            )
        return loss, correct

    def evaluate(self, p: Mapping[str, Array], at: Arrays, y: Array, predicted: Array) -> float:
        logits, labels, found = _rows(at.x), y.reshape(-1), predicted.reshape(-1)
        if self._weights is None:
            return float(loss_kernels.softmax_predict(logits, labels, found))
        return float(loss_kernels.weighted_softmax_predict(logits, labels, self._weights, found))

    def predict(self, p: Mapping[str, Array], at: Arrays, outputs: Array) -> None:
        loss_kernels.softmax(_rows(at.x), _rows(outputs))


class SquaredError(Head):
    """The mean over the targets of a row, summed over rows. Shapes of outputs and targets (rows, targets)."""

    task, in_place = "targets", True
    kernels: Sequence[Kernel] = (loss_kernels.squared_error,)

    def loss_and_gradient(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], y: Array
    ) -> Sums:
        return self._loss(_as_gradient(at), _rows(y)), np.nan

    def evaluate(self, p: Mapping[str, Array], at: Arrays, y: Array, predicted: Array) -> float:
        np.copyto(predicted, at.x)
        return self._loss(_rows(at.x), _rows(y))

    def predict(self, p: Mapping[str, Array], at: Arrays, outputs: Array) -> None:
        np.copyto(outputs, at.x)

    def _loss(self, outputs: Array, targets: Array) -> float:
        """The loss; ``outputs`` become its gradient."""
        return float(loss_kernels.squared_error(outputs, targets))


class Huber(SquaredError):
    """The same for ``e**2 / 2`` of errors up to ``delta``, and ``delta (e - delta / 2)`` of larger ones."""

    kernels = (loss_kernels.huber,)

    def __init__(self, delta: float) -> None:
        self._delta = float(delta)

    def _loss(self, outputs: Array, targets: Array) -> float:
        return float(loss_kernels.huber(outputs, targets, self._delta))


def _as_gradient(at: Arrays) -> Array:
    """``grad_x`` with the numbers of ``x`` in it, two-dimensional."""
    grad_x = at.grad_x
    assert grad_x is not None
    if grad_x is not at.x:
        np.copyto(grad_x, at.x)
    return _rows(grad_x)


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])
