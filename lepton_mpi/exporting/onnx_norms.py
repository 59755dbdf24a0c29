"""Normalisations as nodes of ONNX. Of running statistics two constants are left for each channel: ``x * factor + summand``."""

from math import prod

import numpy as np

from lepton_mpi.exporting.onnx_graph import GraphBuilder, Place
from lepton_mpi.layers.batch_norm import BatchNorm
from lepton_mpi.layers.group_norm import GroupNorm
from lepton_mpi.layers.norm import LayerNorm, RmsNorm


def batch_norm(graph: GraphBuilder, layer: BatchNorm, place: Place, x: str) -> str:
    """Of evaluation, also for ``SyncBatchNorm``."""
    names = ("weight", "bias", "running_mean", "running_variance")
    weight, bias, mean, variance = (graph.array(place, name).astype(np.float64) for name in names)
    factor = weight / np.sqrt(variance + layer.epsilon)
    out = graph.add("Mul", x, graph.constant(factor))
    out = graph.add("Add", out, graph.constant(bias - mean * factor))
    return graph.add("Relu", out) if layer.relu else out


def group_norm(graph: GraphBuilder, layer: GroupNorm, place: Place, x: str) -> str:
    """By statistics of a row's places and of the channels of a group."""
    *places, channels = place.x.shape
    grouped = graph.reshape(x, 0, prod(places), layer.groups, channels // layer.groups)
    axes = graph.whole(1, 3)
    centred = graph.add("Sub", grouped, graph.add("ReduceMean", grouped, axes))
    out = graph.reshape(_by_size(graph, centred, axes, layer.epsilon), 0, *places, channels)
    out = graph.add("Mul", out, graph.parameter(place, "weight"))
    out = graph.add("Add", out, graph.parameter(place, "bias"))
    return graph.add("Relu", out) if layer.relu else out


def layer_norm(graph: GraphBuilder, layer: LayerNorm, place: Place, x: str) -> str:
    given = x, graph.parameter(place, "weight"), graph.parameter(place, "bias")
    return graph.add("LayerNormalization", *given, axis=-1, epsilon=layer.epsilon)


def rms_norm(graph: GraphBuilder, layer: RmsNorm, place: Place, x: str) -> str:
    out = _by_size(graph, x, graph.whole(-1), layer.epsilon)
    return graph.add("Mul", out, graph.parameter(place, "weight"))


def _by_size(graph: GraphBuilder, x: str, axes: str, epsilon: float) -> str:
    """``x / sqrt(mean(x**2) + epsilon)``."""
    square = graph.add("ReduceMean", graph.add("Mul", x, x), axes)
    return graph.add("Div", x, graph.add("Sqrt", graph.add("Add", square, graph.constant(epsilon))))
