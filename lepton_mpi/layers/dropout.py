"""Dropout: in training each element of x is 0 with probability ``rate``, or else divided by ``1 - rate``.

Shapes: x, out (rows, …). ``grad_x = grad_out * (0 or 1 / (1 - rate))``, of the same elements: which they are is a function of
the step's ``draw``, the layer's number and the row's number, and is computed again in the backward pass. In evaluation all are kept.
Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.layers import pointwise_kernels
from lepton_mpi.layers.activation_kernels import DROPOUT_LEVELS, UNITS_PER_NUMBER
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Shape, When


class Dropout(Layer):
    """See the module; ``rate`` is from 0 up to, not including, 1, in steps of 1/65536."""

    needs_x, in_place = False, True
    kernels = (pointwise_kernels.dropout,)

    def __init__(self, rate: float) -> None:
        self._dropped = dropped_levels(rate)

    def out_shape(self, x: Input) -> Shape:
        return x.shape

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        return {"numbers": Memory((-(-prod(x.shape) // UNITS_PER_NUMBER),), "scratch", np.uint64)}

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        if when.training:
            self._drop(at.x, at.out, at, when)
        elif at.out is not at.x:
            np.copyto(at.out, at.x)

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        if at.grad_x is None:
            return
        if when.training:
            self._drop(at.grad_out, at.grad_x, at, when)
        elif at.grad_x is not at.grad_out:
            np.copyto(at.grad_x, at.grad_out)

    def _drop(self, x: Array, out: Array, at: Arrays, when: When) -> None:
        if when.rows is None:
            raise ValueError("dropout goes by the numbers of the rows: expected Batch.rows")
        shape = len(x), prod(x.shape[1:])
        key = when.draw, at.number, when.rows, self._dropped, at.memory["numbers"]
        pointwise_kernels.dropout(*key, x.reshape(shape), out.reshape(shape))


def dropped_levels(rate: float) -> int:
    """Of DROPOUT_LEVELS, how many drop an element."""
    return min(round(rate * DROPOUT_LEVELS), DROPOUT_LEVELS - 1)
