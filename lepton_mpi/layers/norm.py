"""Normalisation of each position over its last dimension: LayerNorm and RMSNorm.

    LayerNorm   out = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias
    RMSNorm     out = x / sqrt(mean(x**2) + epsilon) * weight

Shapes: x, out (rows, …, k), weight and bias (k,), which begin as 1 and 0. The variance is the mean of squares, as of all k numbers.
Gradients in ``norm_kernels.py``. Sources: Ba, Kiros, Hinton, "Layer normalization", 2016; Zhang and Sennrich, "Root mean square
layer normalization", NeurIPS 2019.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import norm_kernels as kernels
from lepton_mpi.layers.initial import ones, zeros
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When


class LayerNorm(Layer):
    """See the module."""

    kernels = (kernels.normalise, kernels.normalise_gradient)
    _centred = True

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = epsilon

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        if x.kind != "numbers" or not x.shape:
            raise ConfigurationError(
                f"normalisation: expected rows of numbers, got {x.kind} of shape {x.shape}"
            )
        found = {"weight": Parameter(x.shape[-1:], ones, decays=False)}
        bias = Parameter(x.shape[-1:], zeros, decays=False)
        return found | ({"bias": bias} if self._centred else {})

    def out_shape(self, x: Input) -> Shape:
        return x.shape

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        return {
            "stats": Memory((rows * prod(x.shape[:-1]), 2), "kept"),
            "place": Memory((1,), "scratch", np.int64),
            "total": Memory((1,), "scratch"),
            "work": Memory((3, x.shape[-1]), "scratch"),
        }

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        weight, memory = p["weight"], at.memory
        bias = p["bias"] if self._centred else weight[:0]
        scratch = memory["place"], memory["work"][0], memory["total"]
        x, out = _positions(at.x), _positions(at.out)
        given = x, weight, bias, self.epsilon, self._centred
        kernels.normalise(*given, *scratch, memory["stats"], out)

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        weight, memory, x = p["weight"], at.memory, _positions(at.x)
        scratch = memory["place"], memory["total"], memory["work"]
        grad_bias = grad["bias"] if self._centred else weight[:0]
        grad_x = memory["work"][:0] if at.grad_x is None else _positions(at.grad_x)
        given = x, _positions(at.grad_out), weight, self._centred, memory["stats"]
        kernels.normalise_gradient(*given, *scratch, grad["weight"], grad_bias, grad_x)


class RmsNorm(LayerNorm):
    """See the module."""

    _centred = False


def _positions(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])
