"""Embedding: a learned row of numbers for each code, ``out[..., :] = weight[x]``; and learned positions, ``out = x + weight``.

Shapes of the first: x int32 (rows, …), weight (values, width), out (rows, …, width). A row of the weight's gradient is the sum of
``grad_out`` where its code stands, in the order of the batch, and 0 if it does not. Columns of categories with codes of their own share
one table, one column's codes behind another's. Source: Bengio et al., "A neural probabilistic language model", JMLR 3, 2003.

Of the second: x, out (rows, T, width), weight (length, width), T at most length; ``grad_weight[t]`` sums ``grad_out[:, t]``.
Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.
"""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import embedding_kernels as kernels
from lepton_mpi.layers.initial import Initial, normal
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When

# GPT-2's.
_DEVIATION = 0.02


class Embedding(Layer):
    """See the module.

    Parameters
    ----------
    values : int or tuple of int
        As of the input: how many codes there are, for all elements of a row or for each column.
    width : int
    initial : Initial
    """

    kernels = (kernels.look_up, kernels.look_up_gradient)

    def __init__(
        self, values: int | tuple[int, ...], width: int, initial: Initial | None = None
    ) -> None:
        self.values, self.width, self._initial = values, width, initial or normal(_DEVIATION)
        counts = (values,) if isinstance(values, int) else values
        *starts, self._total = accumulate(counts, initial=0)
        self.offsets = np.array(starts, np.int64)

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        if x.kind == "numbers" or x.values != self.values:
            raise ConfigurationError(
                f"an embedding: expected tokens or categories of {self.values} values, got {x.kind} of {x.values}"
            )
        return {
            "weight": Parameter(
                (self._total, self.width), self._initial, decays=True, outputs_first=True
            )
        }

    def out_shape(self, x: Input) -> Shape:
        return (*x.shape, self.width)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        return {"is_met": Memory((self._total,), "backward", np.bool_)}

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        codes = at.x.reshape(-1, self.offsets.size)
        kernels.look_up(codes, self.offsets, p["weight"], at.out.reshape(-1, self.width))

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        codes, rows = (
            at.x.reshape(-1, self.offsets.size),
            at.grad_out.reshape(-1, self.width),
        )
        is_met = at.memory["is_met"]
        kernels.look_up_gradient(codes, self.offsets, rows, is_met, grad["weight"])


class Positions(Layer):
    """See the module.

    Parameters
    ----------
    length : int
        Positions that there are.
    initial : Initial
    continues : bool
        Whether a batch goes on where the last one ended, token by token, as in generation; without training.
    """

    needs_x, in_place = False, True
    kernels = (kernels.add_to_rows, kernels.sum_of_rows)

    def __init__(
        self, length: int, initial: Initial | None = None, continues: bool = False
    ) -> None:
        self.length, self._initial = length, initial or normal(_DEVIATION)
        self.continues = continues

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        if x.kind != "numbers" or len(x.shape) != 2 or x.shape[0] > self.length:
            raise ConfigurationError(
                f"positions: expected numbers of shape (at most {self.length}, width), got {x.kind} of shape {x.shape}"
            )
        return {
            "weight": Parameter(
                (self.length, x.shape[1]), self._initial, decays=True, outputs_first=True
            )
        }

    def out_shape(self, x: Input) -> Shape:
        return x.shape

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        return {"first": Memory((1,), "plan", np.int64)} if self.continues else {}

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        weight, first, length = p["weight"], 0, at.x.shape[1]
        if self.continues:
            first = int(at.memory["first"][0])
            at.memory["first"][0] += length
        table = weight[first : first + length].reshape(-1)
        kernels.add_to_rows(_flat(at.x), table, _flat(at.out))

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        kernels.sum_of_rows(_flat(at.grad_out), grad["weight"].reshape(-1))
        if at.grad_x is not None and at.grad_x is not at.grad_out:
            np.copyto(at.grad_x, at.grad_out)


def _flat(array: Array) -> Array:
    """Two-dimensional, of rows that may be none."""
    return array.reshape(len(array), array.shape[1] * array.shape[2])
