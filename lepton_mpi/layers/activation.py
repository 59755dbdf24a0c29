"""Activation: ``out = f(x)`` element by element, with f one of relu, gelu (exact), gelu_tanh, tanh, sigmoid and silu.

Shapes: x, out (rows, …). ``grad_x = grad_out * f'(x)``; formulas and sources of f in ``activation_kernels.py``.
"""

from collections.abc import Mapping
from math import prod

from lepton_mpi.batch import Input
from lepton_mpi.layers import activation_kernels, pointwise_kernels
from lepton_mpi.layers.dense_layer_kernels import relu_gradient
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Shape, When

_RELU = activation_kernels.KINDS["relu"]
# Elements of a pass, which stay in the nearest cache.
_TOGETHER = 1024


class Activation(Layer):
    """See the module; ``kind`` is its name. What comes behind a dense layer is faster as a part of it."""

    needs_x, in_place = False, True

    def __init__(self, kind: str) -> None:
        self.kind, self._kind = kind, activation_kernels.KINDS[kind]
        self.needs_out = self._kind == _RELU
        of_slope = pointwise_kernels.activation, pointwise_kernels.multiply
        self.kernels = (pointwise_kernels.relu, relu_gradient) if self.needs_out else of_slope

    def out_shape(self, x: Input) -> Shape:
        return x.shape

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        if self._kind == _RELU:
            return {}
        count = rows * prod(x.shape)
        return {
            "slope": Memory((count,), "kept", rounds=True),
            "zeros": Memory((max(1, min(count, _TOGETHER)),), "plan"),
        }

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        x, out = at.x.reshape(-1), at.out.reshape(-1)
        if self._kind == _RELU:
            pointwise_kernels.relu(x, out)
        else:
            pointwise_kernels.activation(self._kind, at.memory["zeros"], x, out, at.memory["slope"])

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        if at.grad_x is None:
            return
        grad_out, grad_x = at.grad_out.reshape(-1), at.grad_x.reshape(-1)
        if self._kind == _RELU:
            relu_gradient(at.out.reshape(-1), grad_out, grad_x)
        else:
            pointwise_kernels.multiply(at.memory["slope"], grad_out, grad_x)
