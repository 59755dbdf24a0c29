"""Dense layers, activations, gates and joins as nodes of ONNX. Formulas are those of the layers' modules."""

from math import pi, sqrt

import numpy as np

from lepton_mpi.exporting.onnx_graph import GraphBuilder, Place
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.compose import Concatenate, Sum
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.gated import SwiGlu


def activated(graph: GraphBuilder, kind: str | None, x: str) -> str:
    """``kind`` as of ``Activation``; None leaves x as it is."""
    if kind is None:
        return x
    if kind in ("relu", "tanh", "sigmoid"):
        return graph.add(kind.capitalize(), x)
    if kind == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    if kind == "gelu":
        argument = graph.add("Mul", x, graph.constant(sqrt(0.5)))
        # onnxruntime has erf in float32 alone, which is off by 1e-7.
        erf = graph.cast(graph.add("Erf", graph.cast(argument, np.float32)), graph.dtype)
        return _half(graph, x, erf)
    assert kind == "gelu_tanh"
    cube = graph.add("Mul", graph.add("Mul", x, x), x)
    inner = graph.add("Add", x, graph.add("Mul", cube, graph.constant(0.044715)))
    return _half(graph, x, graph.add("Tanh", graph.add("Mul", inner, graph.constant(sqrt(2 / pi)))))


def _half(graph: GraphBuilder, x: str, f: str) -> str:
    """``x (1 + f) / 2``."""
    share = graph.add("Mul", graph.add("Add", f, graph.constant(1)), graph.constant(0.5))
    return graph.add("Mul", x, share)


def activation(graph: GraphBuilder, layer: Activation, place: Place, x: str) -> str:
    return activated(graph, layer.kind, x)


def dense(graph: GraphBuilder, layer: Dense, place: Place, x: str) -> str:
    out = graph.add("MatMul", x, graph.parameter(place, "weight"))
    if layer.has_bias:
        out = graph.add("Add", out, graph.parameter(place, "bias"))
    return activated(graph, layer.activation, out)


def dropout(graph: GraphBuilder, layer: Dropout, place: Place, x: str) -> str:
    """Outside of training it drops nothing."""
    return x


def swiglu(graph: GraphBuilder, layer: SwiGlu, place: Place, x: str) -> str:
    gate, value = graph.add_several("Split", [x], 2, axis=-1, num_outputs=2)
    return graph.add("Mul", activated(graph, "silu", gate), value)


def added(graph: GraphBuilder, layer: Sum, place: Place, *xs: str) -> str:
    out, *others = xs
    for x in others:
        out = graph.add("Add", out, x)
    return out


def concatenated(graph: GraphBuilder, layer: Concatenate, place: Place, *xs: str) -> str:
    return graph.add("Concat", *xs, axis=-1)
