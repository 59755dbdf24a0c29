"""Attention of several heads: ``out = softmax(q @ k.T / sqrt(size)) @ v`` for each head, causal or full.

Shapes: x (rows, T, (heads + 2 shared) * size) holds queries of all heads, then keys and values of ``shared`` heads, as one dense layer
makes them; out (rows, T, heads * size). With fewer shared heads than heads, each is for ``heads / shared`` queries (grouped-query). Causal:
position t sees positions up to t. Memory beside x and out is one number for each position and head, however long T is.

Sources: Vaswani et al., "Attention is all you need", 2017; Ainslie et al., "GQA", 2023; blocks as in ``attention_kernels.py``.
"""

from collections.abc import Mapping

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import attention_kernels as kernels
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Shape, When


class Attention(Layer):
    """See the module.

    Parameters
    ----------
    heads : int
    shared : int
        Heads of keys and values, a divisor of ``heads``; 0: as many as heads.
    is_causal : bool
    cache : int
        Positions for which keys and values are kept from batch to batch, each of which goes on where the last one ended: for
        generation, without training. 0: every batch is on its own.
    """

    needs_out = True
    kernels = (kernels.attention, kernels.attention_gradient)

    def __init__(self, heads: int, shared: int = 0, is_causal: bool = True, cache: int = 0) -> None:
        self.heads, self.shared = heads, shared or heads
        self.is_causal, self.cache = is_causal, cache
        if heads % self.shared:
            raise ConfigurationError(
                f"attention: expected a divisor of {heads} heads that share keys, got {self.shared}"
            )

    def out_shape(self, x: Input) -> Shape:
        return x.shape[0], self.heads * self._size(x.kind, x.shape)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        size = self._size(x.kind, x.shape)
        memory = {
            "log_sums": Memory((rows * self.heads, x.shape[0]), "kept"),
            "numbers": Memory((kernels.KEYS,), "scratch", np.int64),
            "scratch": Memory((kernels.scratch_size(size),), "scratch"),
        }
        if self.cache:
            kept = Memory((rows * self.cache, self.shared * size), "plan")
            memory |= {"keys": kept, "values": kept, "first": Memory((1,), "plan", np.int64)}
        return memory

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        x, memory = _positions(at.x), at.memory
        rows, length = at.x.shape[:2]
        size = at.out.shape[-1] // self.heads
        k_column = self.heads * size
        v_column = k_column + self.shared * size
        shape = [rows, self.heads, self.heads // self.shared, size, length]
        keys, values, first, room = (x, k_column), (x, v_column), 0, length
        if self.cache:
            first, room = int(memory["first"][0]), self.cache
            keys, values = (memory["keys"], 0), (memory["values"], 0)
            self._keep(at, k_column, v_column, first)
        shape += [first, first + length, room, self.is_causal]
        scratch = memory["numbers"], memory["scratch"]
        given = np.array(shape, np.int64), x, 0, *keys, *values, *scratch
        kernels.attention(*given, _positions(at.out), memory["log_sums"])

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        if at.grad_x is None:
            return
        rows, length = at.x.shape[:2]
        size, memory = at.out.shape[-1] // self.heads, at.memory
        shape = [rows, self.heads, self.heads // self.shared, size, length]
        shape += [0, length, length, self.is_causal]
        given = _positions(at.x), _positions(at.out), _positions(at.grad_out), memory["log_sums"]
        scratch = memory["numbers"], memory["scratch"]
        kernels.attention_gradient(
            np.array(shape, np.int64), *given, *scratch, _positions(at.grad_x)
        )

    def _keep(self, at: Arrays, k_column: int, v_column: int, first: int) -> None:
        """Append keys and values to those of the batches before."""
        length = at.x.shape[1]
        if first + length > self.cache:
            raise ValueError(f"expected at most {self.cache} positions, got {first + length}")
        for name, begin, end in (
            ("keys", k_column, v_column),
            ("values", v_column, at.x.shape[2]),
        ):
            kept = at.memory[name].reshape(len(at.x), self.cache, -1)
            kept[:, first : first + length] = at.x[:, :, begin:end]
        at.memory["first"][0] += length

    def _size(self, kind: str, shape: Shape) -> int:
        """Numbers of a head."""
        parts = self.heads + 2 * self.shared
        if kind != "numbers" or len(shape) != 2 or not shape[1] or shape[1] % parts:
            raise ConfigurationError(
                f"attention: expected numbers of shape (positions, a multiple of {parts}), got {kind} of shape {shape}"
            )
        return shape[1] // parts


def _positions(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])
