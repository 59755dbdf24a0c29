"""Pooling: the largest number, or the mean, of each window and channel; or the mean of all places.

Shapes: x (rows, H, W, C), out (rows, H', W', C) with ``H' = (H + padding - kh) // stride + 1``; over a sequence x (rows, T, C) and a
window ``along`` it. What lies outside of x is no part of a window: it is never the largest, and does not count in a mean.

    largest: grad_x = sum of grad_out over the windows whose largest number (the first of several) is there
    mean:    grad_x = sum over its windows of grad_out / places of the window in x

Source: LeCun et al., 1998 (mean); Ranzato et al., CVPR 2007 (largest); Lin, Chen, Yan, "Network in network", ICLR 2014 (of all).
"""

from collections.abc import Mapping
from functools import cache
from math import prod

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import pooling_kernels as kernels
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Shape, When
from lepton_mpi.layers.windows import Whole, Window


class MaxPool(Layer):
    """The largest of each ``window``, without dilation, and with at most half its size of padding."""

    needs_x = False
    kernels = kernels.max_pool, kernels.max_pool_gradient

    def __init__(self, window: Window) -> None:
        self.window = _checked(window)

    def out_shape(self, x: Input) -> Shape:
        return _out_shape(self.window, x)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        count = prod(self.out_shape(x))
        return {"taken": Memory((rows, count), "kept", np.int32)}

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        sizes = _sizes(self.window, at.x.shape[1:])
        kernels.max_pool(_as_rows(at.x), sizes, _as_rows(at.out), at.memory["taken"])

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        if at.grad_x is not None:
            taken = at.memory["taken"]
            kernels.max_pool_gradient(taken, _as_rows(at.grad_out), _as_rows(at.grad_x))


class AveragePool(Layer):
    """The mean of each window; a window as of ``MaxPool``, or None for all places, (rows, …, C) to (rows, C)."""

    needs_x = False
    kernels = kernels.average_pool, kernels.average_pool_gradient

    def __init__(self, window: Window | None = None) -> None:
        self.window = window and _checked(window)

    def out_shape(self, x: Input) -> Shape:
        if self.window is None:
            _check(x, len(x.shape) > 1)
            return x.shape[-1:]
        return _out_shape(self.window, x)

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        kernels.average_pool(_as_rows(at.x), self._sizes(at.x.shape[1:]), _as_rows(at.out))

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        if at.grad_x is not None:
            slopes, grad_x = _as_rows(at.grad_out), _as_rows(at.grad_x)
            kernels.average_pool_gradient(slopes, self._sizes(at.x.shape[1:]), grad_x)

    def _sizes(self, shape: Shape) -> Whole:
        if self.window is None:
            shape = (1, prod(shape[:-1]), shape[-1])
        return _sizes(self.window or Window((1, shape[1])), shape)


def _checked(window: Window) -> Window:
    is_half = all(
        max(padding) * 2 <= size for padding, size in zip(window.padding, window.size, strict=True)
    )
    if window.dilation != (1, 1) or not is_half:
        raise ConfigurationError(
            f"pooling: expected a window without dilation, padded by at most half of it, got {window}"
        )
    return window


def _out_shape(window: Window, x: Input) -> Shape:
    dimensions = len(x.shape)
    _check(x, dimensions in (2, 3) and (dimensions == 3 or window.size[0] == 1))
    height, width, channels = _image(x.shape)
    return (*window.out((height, width))[3 - dimensions :], channels)


def _check(x: Input, fits: bool) -> None:
    if x.kind != "numbers" or not fits:
        raise ConfigurationError(
            f"pooling: expected rows of numbers with as many dimensions as the window has, channels last, got {x.kind} of shape "
            f"{x.shape}"
        )


def _image(shape: Shape) -> tuple[int, int, int]:
    height, width, channels = shape if len(shape) == 3 else (1, *shape)
    return height, width, channels


@cache
def _sizes(window: Window, shape: Shape) -> Whole:
    """As ``pooling_kernels.py`` wants them."""
    height, width, channels = _image(shape)
    before = [padding[0] for padding in window.padding]
    of_window = (*window.out((height, width)), *window.size, *window.stride, *before)
    return np.array([height, width, channels, *of_window])


def _as_rows(array: Array) -> Array:
    return array.reshape(len(array), prod(array.shape[1:]))
