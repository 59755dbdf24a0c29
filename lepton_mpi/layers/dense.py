"""Dense layer: ``out = f(x @ weight + bias)``, over the last dimension of x.

Shapes: x (rows, …, m), weight (m, k), bias (k,), out (rows, …, k). With ``z = x @ weight + bias``::

    grad_z = grad_out * f'(z)     grad_weight = x.T @ grad_z     grad_bias = sum of grad_z     grad_x = grad_z @ weight.T

Source: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.product_kernels import right_scratch_size
from lepton_mpi.layers import activation_kernels
from lepton_mpi.layers import dense_layer_kernels as kernels
from lepton_mpi.layers.initial import Initial, glorot_uniform, zeros
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When

_RELU = activation_kernels.KINDS["relu"]


class Dense(Layer):
    """See the module.

    Parameters
    ----------
    outputs : int
    activation : {"relu", "gelu", "tanh", "sigmoid", "silu", "gelu_tanh"} or None
        Done in the same pass as the bias.
    bias : bool
        A layer with an activation has one.
    initial : Initial
        Of the weight; the bias begins with 0.
    """

    reads_rows = True

    def __init__(
        self,
        outputs: int,
        activation: str | None = None,
        bias: bool = True,
        initial: Initial = glorot_uniform,
    ) -> None:
        self.outputs, self.has_bias, self._initial = (
            outputs,
            bias or activation is not None,
            initial,
        )
        self.activation, kinds = activation, activation_kernels.KINDS
        self._kind = kinds[activation] if activation else kernels.NO_ACTIVATION
        self.needs_out = self._kind == _RELU
        called = [kernels.dense, kernels.dense_gradient, kernels.dense_backward]
        self.kernels = [*called, kernels.relu_gradient] if self.needs_out else called

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        if x.kind != "numbers" or not x.shape:
            raise ConfigurationError(
                f"a dense layer: expected rows of numbers, got {x.kind} of shape {x.shape}"
            )
        weight = {"weight": Parameter((x.shape[-1], self.outputs), self._initial, decays=True)}
        bias = Parameter((self.outputs,), zeros, decays=False)
        return weight | ({"bias": bias} if self.has_bias else {})

    def out_shape(self, x: Input) -> Shape:
        return (*x.shape[:-1], self.outputs)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        count, m, k = rows * prod(x.shape[:-1]), x.shape[-1], self.outputs
        scratch = right_scratch_size(count, k, m)
        memory = {
            "numbers": Memory((max(count, m),), "scratch", np.int64),
            "turned": Memory((scratch,), "grad_x"),
        }
        if self._kind == _RELU:
            memory["grad_z"] = Memory((count, k), "backward")
        elif self._kind != kernels.NO_ACTIVATION:
            memory["slope"] = Memory((count, k), "kept", rounds=True)
        return memory

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        weight, out = p["weight"], at.out
        slope = at.memory.get("slope")
        kernels.dense(
            at.x.reshape(-1, weight.shape[0]),
            at.memory["numbers"] if at.places is None else at.places,
            at.places is None,
            weight,
            p["bias"] if self.has_bias else weight.reshape(-1)[:0],
            self._kind,
            out.reshape(-1, self.outputs),
            weight[:0] if slope is None else slope,
        )

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        weight, numbers = p["weight"], at.memory["numbers"]
        grad_z = self._grad_z(at)
        kernels.dense_gradient(
            at.x.reshape(-1, weight.shape[0]),
            numbers if at.places is None else at.places,
            at.places is None,
            grad_z,
            grad["weight"],
            grad["bias"] if self.has_bias else weight.reshape(-1)[:0],
        )
        if at.grad_x is not None:
            grad_x = at.grad_x.reshape(-1, weight.shape[0])
            kernels.dense_backward(grad_z, weight, numbers, at.memory["turned"], grad_x)

    def _grad_z(self, at: Arrays) -> Array:
        """The gradient by what the activation takes."""
        grad_out = at.grad_out.reshape(-1, self.outputs)
        if self._kind == kernels.NO_ACTIVATION:
            return grad_out
        if self._kind == _RELU:
            grad_z = at.memory["grad_z"]
            kernels.relu_gradient(at.out.reshape(-1), grad_out.reshape(-1), grad_z.reshape(-1))
            return grad_z
        slope = at.memory["slope"]  # which nobody needs any more
        np.multiply(slope, grad_out, out=slope)
        return slope
