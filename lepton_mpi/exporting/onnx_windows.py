"""Convolutions and pooling as nodes of ONNX, whose images have channels first, between transpositions; here channels are last.

onnxruntime has Conv in float32 alone. In float64 a convolution is a product: the places that each tap of the window meets, side by side in
the last dimension, times a matrix with a row for each tap and channel; in groups it has zeros where a group does not look.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from lepton_mpi.exporting.onnx_graph import GraphBuilder, Place
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.layer import Array
from lepton_mpi.layers.pooling import AveragePool, MaxPool
from lepton_mpi.layers.windows import Window


def convolution(graph: GraphBuilder, layer: Conv2d | Conv1d, place: Place, x: str) -> str:
    dimensions = layer.dimensions - 1
    window, weight = layer.window, graph.array(place, "weight")
    if graph.dtype != np.float32:
        taps = _taps(graph, window, place, x, dimensions)
        matrix = _matrix(weight, layer.groups)
        out = graph.add("MatMul", graph.add("Concat", *taps, axis=-1), graph.constant(matrix))
        return graph.add("Add", out, graph.parameter(place, "bias")) if layer.has_bias else out
    # (…, in, out) to (out, in, …).
    turned = weight.transpose(dimensions + 1, dimensions, *range(dimensions))
    bias = [graph.parameter(place, "bias")] if layer.has_bias else []
    out = graph.add(
        "Conv",
        *(_channels_first(graph, x, dimensions), graph.constant(turned), *bias),
        kernel_shape=window.size[-dimensions:],
        strides=window.stride[-dimensions:],
        dilations=window.dilation[-dimensions:],
        pads=_pads(window, dimensions),
        group=layer.groups,
    )
    return _channels_last(graph, out, dimensions)


def max_pool(graph: GraphBuilder, layer: MaxPool, place: Place, x: str) -> str:
    window, dimensions = layer.window, len(place.x.shape) - 1
    out = graph.add(
        "MaxPool",
        _channels_first(graph, x, dimensions),
        kernel_shape=window.size[-dimensions:],
        strides=window.stride[-dimensions:],
        pads=_pads(window, dimensions),
    )
    return _channels_last(graph, out, dimensions)


def average_pool(graph: GraphBuilder, layer: AveragePool, place: Place, x: str) -> str:
    dimensions = len(place.x.shape) - 1
    if layer.window is None:
        return graph.add("ReduceMean", x, graph.whole(*range(1, dimensions + 1)), keepdims=0)
    taps = _taps(graph, layer.window, place, x, dimensions)
    share = graph.constant(1 / _places_of(layer.window, place)[..., None])
    return graph.add("Mul", graph.add("Sum", *taps), share)


def _places_of(window: Window, place: Place) -> Array:
    """How many places of each window lie in the image."""
    counts = np.ones(())
    for axis, (length, out) in enumerate(
        zip(place.x.shape[:-1], place.out[:-1], strict=True), start=3 - len(place.x.shape)
    ):
        start = np.arange(out) * window.stride[axis] - window.padding[axis][0]
        stop = np.minimum(start + window.size[axis], length)
        counts = counts[..., None] * (stop - np.maximum(start, 0))
    return counts


def _taps(
    graph: GraphBuilder, window: Window, place: Place, x: str, dimensions: int
) -> Sequence[str]:
    """The places that each tap of the window meets, zeros outside of the image."""
    first, axes = 2 - dimensions, range(1, dimensions + 1)
    before, after = zip(*window.padding[first:], strict=True)
    if any(before + after):
        x = graph.add("Pad", x, graph.whole(0, *before, 0, 0, *after, 0))
    steps = graph.whole(*window.stride[first:])
    found = []
    for tap in np.ndindex(window.size[first:]):
        starts = [t * d for t, d in zip(tap, window.dilation[first:], strict=True)]
        stops = [
            start + (out - 1) * stride + 1
            for start, out, stride in zip(starts, place.out, window.stride[first:], strict=False)
        ]
        bounds = graph.whole(*starts), graph.whole(*stops)
        found.append(graph.add("Slice", x, *bounds, graph.whole(*axes), steps))
    return found


def _matrix(weight: Array, groups: int) -> Array:
    """Shape (taps * channels, outputs), of the weight (…, channels / groups, outputs)."""
    *size, in_group, outputs = weight.shape
    taps, own = prod(size), outputs // groups
    matrix = np.zeros((taps, groups, in_group, outputs), weight.dtype)
    for group in range(groups):
        part = slice(group * own, (group + 1) * own)
        matrix[:, group, :, part] = weight.reshape(taps, in_group, outputs)[..., part]
    return matrix.reshape(-1, outputs)


def _pads(window: Window, dimensions: int) -> list[int]:
    """All that come before, then all that come after."""
    return [padding[side] for side in (0, 1) for padding in window.padding[-dimensions:]]


def _channels_first(graph: GraphBuilder, x: str, dimensions: int) -> str:
    return graph.transpose(x, 0, dimensions + 1, *range(1, dimensions + 1))


def _channels_last(graph: GraphBuilder, x: str, dimensions: int) -> str:
    return graph.transpose(x, 0, *range(2, dimensions + 2), 1)
