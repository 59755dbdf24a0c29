"""Scores, as heads of networks in place of the loss: the output of each row that ``y`` names, before any softmax.

    score = sum over rows i of output[i, y[i]]        gradient by the outputs: 1 there, 0 elsewhere

What a network says of a class is explained by its gradient, not by that of the loss, which is 0 where the network is certain. An entry
of ``y`` below 0 does not count. Source: Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2014, section 3.
"""

from collections.abc import Mapping

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.layer import Array, Arrays, Head, Memory, Parameter, Sums
from lepton_mpi.layers.token_loss import TokenLoss


class Score(Head):
    """Of outputs (rows, …, outputs), with y int32, (rows, …)."""

    task = "classes"

    def of_rows(self, p: Mapping[str, Array], at: Arrays, y: Array) -> Array:
        """The score of each row, float64, shape (rows,)."""
        number, chosen = _chosen(y)
        rows, scores = number[chosen] // max(1, y[:1].size), np.zeros(len(y))
        picked = self._picked(p, at, number[chosen], y.reshape(-1)[chosen])
        np.add.at(scores, rows, picked.astype(np.float64))
        return scores

    def loss_and_gradient(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], y: Array
    ) -> Sums:
        assert at.grad_x is not None
        number, chosen = _chosen(y)
        grad_x = at.grad_x.reshape(-1, at.grad_x.shape[-1])
        grad_x[...] = 0
        grad_x[number[chosen]] = self._slopes(p, at, y.reshape(-1)[chosen])
        for array in grad.values():
            array[...] = 0
        return float(self.of_rows(p, at, y).sum()), np.nan

    def evaluate(self, p: Mapping[str, Array], at: Arrays, y: Array, predicted: Array) -> float:
        raise TypeError("a score is no loss: there is nothing to evaluate")

    def predict(self, p: Mapping[str, Array], at: Arrays, outputs: Array) -> None:
        raise TypeError("a score is of one output: the loss in its place predicts all")

    def _picked(self, p: Mapping[str, Array], at: Arrays, places: Array, outputs: Array) -> Array:
        """The output of each place."""
        return at.x.reshape(-1, at.x.shape[-1])[places, outputs]

    def _slopes(self, p: Mapping[str, Array], at: Arrays, outputs: Array) -> Array:
        """The gradient of each of these outputs by what the head reads there."""
        return np.eye(at.x.shape[-1], dtype=at.x.dtype)[outputs]


class TokenScore(Score):
    """The same of ``x @ weight.T``, the last product of a language model, whose parameters are those of ``loss``."""

    task = "tokens"

    def __init__(self, loss: TokenLoss) -> None:
        self._loss, self.tied = loss, loss.tied

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        return self._loss.parameters(x)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        return {}

    def _picked(self, p: Mapping[str, Array], at: Arrays, places: Array, outputs: Array) -> Array:
        x = at.x.reshape(-1, at.x.shape[-1])[places].astype(np.float64)
        return (x * p["weight"][outputs]).sum(axis=1)

    def _slopes(self, p: Mapping[str, Array], at: Arrays, outputs: Array) -> Array:
        return p["weight"][outputs]


def score_of(head: Head, outputs: Input) -> Score:
    """What stands in for a head that reads ``outputs``. Raises ConfigurationError for one with parameters of an unknown use."""
    if isinstance(head, TokenLoss):
        return TokenScore(head)
    if head.parameters(outputs):
        raise ConfigurationError(
            f"scores of outputs: expected a loss without parameters, or {TokenLoss.__name__}, got {type(head).__name__}"
        )
    return Score()


def _chosen(y: Array) -> tuple[Array, Array]:
    """Numbers of all places, and which of them count."""
    flat = y.reshape(-1)
    return np.arange(flat.size), flat >= 0
