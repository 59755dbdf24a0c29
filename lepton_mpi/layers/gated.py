"""SwiGLU: ``out = silu(a) * b``, a and b the two halves of x.

Shapes: x (rows, …, 2 k), out (rows, …, k). ``grad_a = grad_out * b * silu'(a)``, ``grad_b = grad_out * silu(a)``. The dense layer before it
makes both halves in one product. Source: Shazeer, "GLU variants improve transformer", 2020.
"""

from collections.abc import Mapping

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import gated_kernels as kernels
from lepton_mpi.layers.layer import Array, Arrays, Layer, Shape, When


class SwiGlu(Layer):
    """See the module."""

    kernels = (kernels.swiglu, kernels.swiglu_gradient)

    def out_shape(self, x: Input) -> Shape:
        if x.kind != "numbers" or not x.shape or x.shape[-1] % 2:
            raise ConfigurationError(
                f"swiglu: expected numbers in two halves, got {x.kind} of shape {x.shape}"
            )
        return (*x.shape[:-1], x.shape[-1] // 2)

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        kernels.swiglu(_positions(at.x), _positions(at.out))

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        if at.grad_x is not None:
            grads = _positions(at.grad_out), _positions(at.grad_x)
            kernels.swiglu_gradient(_positions(at.x), *grads)


def _positions(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])
