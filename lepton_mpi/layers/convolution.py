"""Convolution over images or sequences, channels last: ``out[o, n] = bias[n] + sum over taps t, c of x[s o + d t - p, c] * weight[t, c, n]``.

Shapes: x (rows, H, W, C), weight (kh, kw, C / groups, K), bias (K,), out (rows, H', W', K) with
``H' = (H + padding before and after - dilation * (kh - 1) - 1) // stride + 1``; x is 0 outside. In groups, output n of K / groups
outputs sees the C / groups channels of its group alone; as many groups as channels is a depthwise convolution.

    grad_weight[t, c, n] = sum over rows and o of x[s o + d t - p, c] * grad_out[o, n]
    grad_x[i, c]         = sum over n and t, with s o + d t - p = i, of grad_out[o, n] * weight[t, c, n]

Source: LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998; without im2col: ``windows.py``.
"""

from collections.abc import Mapping
from math import prod

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import convolution_kernels as kernels
from lepton_mpi.layers.initial import Initial, he_uniform, zeros
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When
from lepton_mpi.layers.windows import Tables, Window, backward_tables, forward_tables


class Conv2d(Layer):
    """See the module.

    Parameters
    ----------
    outputs : int
    window : Window
        Size, stride, padding and dilation.
    groups : int
        Divides the channels and the outputs.
    bias : bool
    initial : Initial
        Of the weight; the bias begins with 0.
    """

    dimensions = 3

    def __init__(
        self,
        outputs: int,
        window: Window,
        groups: int = 1,
        bias: bool = True,
        initial: Initial = he_uniform,
    ) -> None:
        self.outputs, self.window, self.groups = outputs, window, groups
        self.has_bias, self._initial = bias, initial
        called = [kernels.convolve, kernels.weight_gradient, kernels.turn]
        if groups == outputs:
            called += [kernels.convolve_depthwise, kernels.weight_gradient_depthwise]
        self.kernels = called + [kernels.add_to_rows, kernels.add_up_rows] * bias

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        if x.kind != "numbers" or len(x.shape) != self.dimensions:
            raise ConfigurationError(
                f"a convolution: expected rows of numbers with {self.dimensions} dimensions, channels last, got {x.kind} of "
                f"shape {x.shape}"
            )
        channels = x.shape[-1]
        if channels % self.groups or self.outputs % self.groups:
            raise ConfigurationError(
                f"a convolution in {self.groups} groups: expected a divisor of the channels, {channels}, and of the outputs, "
                f"{self.outputs}"
            )
        shape = (*self._weight_size, channels // self.groups, self.outputs)
        weight = {"weight": Parameter(shape, self._initial, decays=True)}
        bias = Parameter((self.outputs,), zeros, decays=False)
        return weight | ({"bias": bias} if self.has_bias else {})

    def out_shape(self, x: Input) -> Shape:
        height, width, _ = self._image(x.shape)
        out = self.window.out((height, width))
        return (*out[3 - self.dimensions :], self.outputs)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        shape = self._image(x.shape)
        there, back = self._tables(shape), self._tables_back(shape)
        group = self.outputs // self.groups
        return {
            "frame": Memory((there.frame_size,), "scratch"),
            "frame_back": Memory((back.frame_size,), "grad_x"),
            "turned": Memory((back.taps.size * group, shape[2]), "grad_x"),
        }

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        weight = p["weight"]
        tables = self._tables(self._image(at.x.shape[1:]))
        convolve = kernels.convolve_depthwise if self._is_depthwise(weight) else kernels.convolve
        frame = tables.frame, at.memory["frame"]
        weights = weight.reshape(-1, self.outputs), self.groups
        convolve(_as_rows(at.x), *frame, *tables[1:5], *weights, _as_rows(at.out))
        if self.has_bias:
            kernels.add_to_rows(p["bias"], at.out.reshape(-1, self.outputs))

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        self._weight_gradient(at, grad["weight"])
        if self.has_bias:
            kernels.add_up_rows(at.grad_out.reshape(-1, self.outputs), grad["bias"])
        if at.grad_x is not None:
            self._input_gradient(p["weight"], at, at.grad_x)

    def _weight_gradient(self, at: Arrays, grad_weight: Array) -> None:
        tables, in_group = self._tables(self._image(at.x.shape[1:])), grad_weight.shape[-2]
        gradient, run = kernels.weight_gradient, in_group
        if self._is_depthwise(grad_weight):
            gradient = kernels.weight_gradient_depthwise
        elif self.groups == 1 and self.window.dilation[1] == 1:
            # Taps side by side are one run of elements: nothing lies between their channels.
            run *= self.window.size[1]
        frame = tables.frame, at.memory["frame"], tables.places
        runs = tables.shifts[::run].copy(), run, self.groups
        flat = grad_weight.reshape(-1, self.outputs)
        gradient(_as_rows(at.x), *frame, *runs, _as_rows(at.grad_out), flat)

    def _input_gradient(self, weight: Array, at: Arrays, grad_x: Array) -> None:
        tables, turned = self._tables_back(self._image(at.x.shape[1:])), at.memory["turned"]
        convolve = kernels.convolve_depthwise if self._is_depthwise(weight) else kernels.convolve
        kernels.turn(weight.reshape(-1, self.outputs), tables.taps, self.groups, turned)
        frame = tables.frame, at.memory["frame_back"]
        weights = turned, self.groups
        convolve(_as_rows(at.grad_out), *frame, *tables[1:5], *weights, _as_rows(grad_x))

    def _is_depthwise(self, weight: Array) -> bool:
        return self.groups == self.outputs and weight.shape[-2] == 1

    @property
    def _weight_size(self) -> tuple[int, ...]:
        return self.window.size

    def _image(self, shape: Shape) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = shape
        return height, width, channels

    def _tables(self, image: tuple[int, int, int]) -> Tables:
        *size, channels = image
        in_group = channels // self.groups
        return forward_tables(self.window, (size[0], size[1]), channels, in_group, self.outputs)

    def _tables_back(self, image: tuple[int, int, int]) -> Tables:
        *size, channels = image
        in_group = self.outputs // self.groups
        return backward_tables(self.window, (size[0], size[1]), channels, in_group, self.outputs)


class Conv1d(Conv2d):
    """The same over sequences, images of height 1: x (rows, T, C), weight (k, C / groups, K), out (rows, T', K).

    Parameters as of ``Conv2d``; the window is one ``along`` a sequence.
    """

    dimensions = 2

    @property
    def _weight_size(self) -> tuple[int, ...]:
        return self.window.size[1:]

    def _image(self, shape: Shape) -> tuple[int, int, int]:
        width, channels = shape
        return 1, width, channels


def _as_rows(array: Array) -> Array:
    return array.reshape(len(array), prod(array.shape[1:]))
