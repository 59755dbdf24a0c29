"""TokenLoss: the head of a language model, its last product, ``z = x @ weight.T``, and softmax with cross-entropy in one.

Shapes: x (rows, T, width), weight (values, width), y int32 (rows, T); a target below 0 does not count. The loss is the sum of
``log(sum_j exp(z_j)) - z_y`` over positions. Logits exist for a block of positions at a time, so memory does not grow with rows * T * values.
The weight may be that of the embedding. Source: Press and Wolf, "Using the output embedding to improve language models", EACL 2017.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import token_loss_kernels as kernels
from lepton_mpi.layers.initial import normal
from lepton_mpi.layers.layer import Array, Arrays, Head, Memory, Parameter, Sums

# The third row of the softmax's work holds numbers of values: float32 is exact up to here.
_VALUES_MAX = 1 << 24


class TokenLoss(Head):
    """See the module.

    Parameters
    ----------
    values : int
        Of the vocabulary.
    tied : str
        The network's name of an embedding's weight; none: a weight of its own.
    """

    task = "tokens"
    kernels = (kernels.loss_and_gradient, kernels.predict_tokens)

    def __init__(self, values: int, tied: str = "") -> None:
        if not 0 < values <= _VALUES_MAX:
            raise ConfigurationError(
                f"a vocabulary: expected 1 to {_VALUES_MAX} tokens, got {values}"
            )
        self.values, self.tied = values, {"weight": tied} if tied else {}

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        if len(x.shape) != 2:
            raise ConfigurationError(
                f"tokens: expected numbers of shape (positions, width), got {x.shape}"
            )
        shape = self.values, x.shape[1]
        return {"weight": Parameter(shape, normal(0.02), decays=True, outputs_first=True)}

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        count, width = rows * prod(x.shape[:-1]), x.shape[-1]
        block = kernels.block_positions(count, self.values)
        return {
            "numbers": Memory((max(self.values, block),), "scratch", np.int64),
            "turned": Memory((width * block,), "scratch"),
            "logits": Memory((self.values * block,), "scratch"),
            "work": Memory((5 * block,), "scratch"),
        }

    def loss_and_gradient(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], y: Array
    ) -> Sums:
        assert at.grad_x is not None
        given = _positions(at.x), y.reshape(-1), p["weight"], *_scratch(at)
        loss, correct = kernels.loss_and_gradient(*given, grad["weight"], _positions(at.grad_x))
        return loss, correct

    def evaluate(self, p: Mapping[str, Array], at: Arrays, y: Array, predicted: Array) -> float:
        given = _positions(at.x), y.reshape(-1), p["weight"], *_scratch(at)
        return float(kernels.predict_tokens(*given, predicted.reshape(-1)))

    def predict(self, p: Mapping[str, Array], at: Arrays, outputs: Array) -> None:
        """Of the token behind each row: at its last position."""
        last = np.ascontiguousarray(at.x[:, -1])
        kernels.token_probabilities(last, p["weight"], *_scratch(at), outputs)


def _scratch(at: Arrays) -> tuple[Array, ...]:
    return tuple(at.memory[name] for name in ("numbers", "turned", "logits", "work"))


def _positions(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])
