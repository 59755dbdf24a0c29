"""Batch normalisation: ``out = (x - mean) / sqrt(variance + epsilon) * weight + bias``, each channel by its statistics.

Shapes: x, out (rows, …, C), weight, bias, running_mean, running_variance (C,). In training mean and variance (of n, not n - 1)
are those of the micro-batch, over its rows and places, whatever the number of ranks; in evaluation the running ones. With
``h = (x - mean) / sqrt(variance + epsilon)`` and means over rows and places::

    grad_bias = sum of grad_out     grad_weight = sum of grad_out * h
    grad_x = weight / sqrt(variance + epsilon) * (grad_out - mean(grad_out) - h * mean(grad_out * h))

In evaluation the statistics are constants: ``grad_x = weight / sqrt(variance + epsilon) * grad_out``.

The running statistics are averaged parameters (``Parameter.averaged``): in a step they move by ``momentum`` of the way to the mean
of the micro-batches' statistics, by rows; of the variance that of n - 1, as in torch.
Where the running statistics are frozen, they are what training normalises by, too, as in torch's ``eval()``: they stay, and
``grad_x = weight / sqrt(variance + epsilon) * grad_out``. Weight and bias alone may be frozen while statistics go on.
Source: Ioffe and Szegedy, "Batch normalization", ICML 2015.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.layers import channel_norm_kernels as kernels
from lepton_mpi.layers.initial import Initial, ones, zeros
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When

# Elements of a strip, if channels are fewer.
_STRIP = 256


class BatchNorm(Layer):
    """See the module.

    Parameters
    ----------
    relu : bool
        Whether a ReLU follows, done in the same pass.
    momentum : float
        The share by which the running statistics move in a step.
    initial : Initial
        Of the weight: 1, or 0 at the end of a residual branch, which then begins as nothing.
    """

    mixes_rows = True
    kernels: Sequence[Kernel] = (
        *(kernels.batch_statistics, kernels.normalise),
        kernels.batch_norm_gradient,
    )

    def __init__(
        self,
        relu: bool = False,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        initial: Initial = ones,
    ) -> None:
        self.relu, self._momentum, self.epsilon = relu, momentum, epsilon
        self._initial, self._is_fixed = initial, False

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        shape = channels_of("batch normalisation", x)
        return {
            "weight": Parameter(shape, self._initial, decays=False),
            "bias": Parameter(shape, zeros, decays=False),
            "running_mean": Parameter(shape, zeros, self._momentum),
            "running_variance": Parameter(shape, ones, self._momentum),
        }

    def freeze(self, names: Collection[str]) -> None:
        statistics = {"running_mean", "running_variance"} & set(names)
        if len(statistics) == 1:
            raise ConfigurationError(
                f"--freeze: expected both running_mean and running_variance of a BatchNorm, or neither, got {statistics.pop()}"
            )
        if statistics:
            self._is_fixed, self.mixes_rows = True, False
            self.kernels = kernels.normalise, kernels.normalise_gradient

    def out_shape(self, x: Input) -> Shape:
        return x.shape

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        channels = x.shape[-1]
        return {"statistics": Memory((2, channels), "kept"), **strips(channels)}

    def before_relu(self) -> Layer | None:
        if not self.relu:
            return None
        return BatchNorm(False, self._momentum, self.epsilon, self._initial)

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        x, memory, statistics = at.x.reshape(-1), at.memory, at.memory["statistics"]
        if when.training and not self._is_fixed:
            kernels.batch_statistics(x, memory["wide"], memory["totals"], statistics)
        else:
            statistics[0], statistics[1] = p["running_mean"], p["running_variance"]
        given = statistics, p["weight"], p["bias"], self.epsilon, self.relu
        kernels.normalise(x, *given, memory["wide"], at.out.reshape(-1))

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        x, memory, statistics = at.x.reshape(-1), at.memory, at.memory["statistics"]
        grad_x = x[:0] if at.grad_x is None else at.grad_x.reshape(-1)
        given = statistics, p["weight"], p["bias"], self.epsilon, self.relu
        filled = grad["weight"], grad["bias"], grad_x
        scratch = memory["wide"], memory["totals"]
        is_fixed = self._is_fixed or not when.training
        gradient = kernels.normalise_gradient if is_fixed else kernels.batch_norm_gradient
        gradient(x, *given, *scratch, at.grad_out.reshape(-1), *filled)
        if self._is_fixed:
            grad["running_mean"][:] = grad["running_variance"][:] = 0
            return
        rows, places = len(at.x), x.size // statistics.shape[1]
        np.multiply(statistics[0], rows, out=grad["running_mean"])
        np.multiply(statistics[1], rows * places / max(1, places - 1), out=grad["running_variance"])


def channels_of(layer: str, x: Input) -> Shape:
    """The last dimension. Raises ConfigurationError for what is not numbers."""
    if x.kind != "numbers" or not x.shape:
        raise ConfigurationError(
            f"{layer}: expected rows of numbers, channels last, got {x.kind} of shape {x.shape}"
        )
    return x.shape[-1:]


def strips(channels: int) -> dict[str, Memory]:
    """Scratch of ``channel_norm_kernels.py``."""
    width = channels * max(1, _STRIP // channels)
    return {
        "wide": Memory((kernels.WIDE_ROWS, width), "scratch"),
        "totals": Memory((2, channels), "scratch", np.float64),
    }
