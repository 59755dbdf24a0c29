"""Group normalisation: ``out = (x - mean) / sqrt(variance + epsilon) * weight + bias``, by statistics of groups of channels.

Shapes: x, out (rows, …, C), weight, bias (C,). Mean and variance (of n) are those of one row's group of C / groups channels at all
its places, in training and evaluation alike: rows do not see each other. With h as in ``batch_norm.py``, and means over a
row's group::

    grad_bias = sum of grad_out     grad_weight = sum of grad_out * h
    grad_x = (weight * grad_out - mean(weight * grad_out) - h * mean(weight * grad_out * h)) / sqrt(variance + epsilon)

Source: Wu and He, "Group normalization", ECCV 2018.
"""

from collections.abc import Mapping
from math import prod

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import channel_norm_kernels as kernels
from lepton_mpi.layers.batch_norm import channels_of, strips
from lepton_mpi.layers.initial import ones, zeros
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When


class GroupNorm(Layer):
    """See the module; ``groups`` divides the channels, and with ``relu`` a ReLU follows in the same pass."""

    kernels = kernels.group_norm, kernels.group_norm_gradient

    def __init__(self, groups: int, relu: bool = False, epsilon: float = 1e-5) -> None:
        self.groups, self.relu, self.epsilon = groups, relu, epsilon

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        shape = channels_of("group normalisation", x)
        if shape[0] % self.groups:
            raise ConfigurationError(
                f"normalisation in {self.groups} groups: expected a divisor of {shape[0]} channels"
            )
        return {
            "weight": Parameter(shape, ones, decays=False),
            "bias": Parameter(shape, zeros, decays=False),
        }

    def out_shape(self, x: Input) -> Shape:
        return x.shape

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        statistics = Memory((rows, 2 * self.groups), "kept")
        return {"statistics": statistics, **strips(x.shape[-1])}

    def before_relu(self) -> Layer | None:
        return GroupNorm(self.groups, False, self.epsilon) if self.relu else None

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        shape, memory = (len(at.x), prod(at.x.shape[1:])), at.memory
        given = p["weight"], p["bias"], self.epsilon, self.relu, memory["wide"], memory["totals"]
        kernels.group_norm(at.x.reshape(shape), *given, memory["statistics"], at.out.reshape(shape))

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        shape, memory = (len(at.x), prod(at.x.shape[1:])), at.memory
        x = at.x.reshape(shape)
        given = memory["statistics"], p["weight"], p["bias"], self.epsilon, self.relu
        scratch = memory["wide"], memory["totals"]
        grad_x = x[:0] if at.grad_x is None else at.grad_x.reshape(shape)
        filled = grad["weight"], grad["bias"], grad_x
        kernels.group_norm_gradient(x, *given, *scratch, at.grad_out.reshape(shape), *filled)
