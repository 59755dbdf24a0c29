"""Rotary positions: pairs of numbers of each query and key are turned by an angle that grows with the position.

Shapes: x, out (rows, T, k), of which the first ``heads * size`` columns, heads of queries and of keys, are turned: numbers j and
``j + size / 2`` of a head by ``position * base**(-2 j / size)``. The gradient is turned back. Between attention and the layer before it.
Source: Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021; pairs of halves as in GPT-NeoX and Llama.
"""

from collections.abc import Mapping

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import rotary_kernels as kernels
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Shape, When


class Rotary(Layer):
    """See the module.

    Parameters
    ----------
    heads, size : int
        Heads that are turned, and the numbers of each, even.
    length : int
        Positions that there may be.
    base : float
    continues : bool
        As of ``embedding.Positions``.
    """

    needs_x, in_place = False, True
    kernels = (kernels.rotate,)

    def __init__(
        self, heads: int, size: int, length: int, base: float = 10_000.0, continues: bool = False
    ) -> None:
        if size % 2:
            raise ConfigurationError(
                f"rotary positions: expected heads of an even number of columns, got {size}"
            )
        self.heads, self.size, self.length, self.continues = heads, size, length, continues
        rates = base ** (-np.arange(0, size, 2) / size)
        angles = np.arange(length)[:, None] * rates
        self.tables = {
            np.dtype(kind): (np.cos(angles).astype(kind), np.sin(angles).astype(kind))
            for kind in (np.float32, np.float64)
        }

    def out_shape(self, x: Input) -> Shape:
        shape = x.shape
        fits = len(shape) == 2 and shape[0] <= self.length and shape[1] >= self.heads * self.size
        if x.kind != "numbers" or not fits:
            raise ConfigurationError(
                f"rotary positions: expected numbers of shape (at most {self.length}, {self.heads * self.size} or more), "
                f"got {x.kind} of shape {shape}"
            )
        return shape

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        return {"first": Memory((1,), "plan", np.int64)} if self.continues else {}

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        first = 0
        if self.continues:
            first = int(at.memory["first"][0])
            at.memory["first"][0] += at.x.shape[1]
        self._turn(at.x, first, 1, at.out)

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        if at.grad_x is not None:
            self._turn(at.grad_out, 0, -1, at.grad_x)

    def _turn(self, x: Array, first: int, sign: int, out: Array) -> None:
        shape = -1, x.shape[-1]
        tables, length = self.tables[x.dtype], x.shape[1]
        given = x.reshape(shape), *tables, first, length, self.heads, sign
        kernels.rotate(*given, out.reshape(shape))
