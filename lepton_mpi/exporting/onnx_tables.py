"""Layers of tables with categories as nodes of ONNX: codes go in, int32 (rows, columns)."""

from math import prod

import numpy as np

from lepton_mpi.exporting.onnx_graph import GraphBuilder, Place
from lepton_mpi.layers.column_embedding import ColumnEmbedding
from lepton_mpi.layers.crossed_linear import Cross, CrossedLinear

# Shifts and factors of ``counter_random_kernels.mix``; the last shift has no factor behind it.
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 0))


def column_embedding(graph: GraphBuilder, layer: ColumnEmbedding, place: Place, x: str) -> str:
    codes = graph.reshape(x, 0, len(layer.values))
    found = []
    for column in range(len(layer.values)):
        own = graph.add("Gather", codes, graph.constant(column, np.int64), axis=1)
        found.append(graph.add("Gather", graph.parameter(place, f"column{column}"), own))
    return graph.add("Concat", *found, axis=-1)


def crossed_linear(graph: GraphBuilder, layer: CrossedLinear, place: Place, x: str) -> str:
    codes = graph.cast(graph.reshape(x, 0, len(layer.values)), np.uint64)
    rows = [_row(graph, layer, number, codes) for number in range(len(layer.features))]
    weight = graph.parameter(place, "weight")
    read = graph.add("Gather", weight, graph.add("Concat", *rows, axis=1))
    return graph.add("ReduceSum", read, graph.whole(1), keepdims=0)


def _row(graph: GraphBuilder, layer: CrossedLinear, number: int, codes: str) -> str:
    """Which row of the weight a feature reads: int64 (rows, 1)."""
    feature: Cross = layer.features[number]
    start, stop = (int(layer.starts[number + more]) for more in (0, 1))
    code = graph.add("Gather", codes, graph.whole(feature[0]), axis=1)
    for column in feature[1:]:
        own = graph.add("Gather", codes, graph.whole(column), axis=1)
        values = graph.constant(layer.values[column], np.uint64)
        code = graph.add("Add", graph.add("Mul", code, values), own)
    if layer.is_hashed[number]:
        assert prod(layer.values[column] for column in feature) > stop - start
        code = graph.add("Mod", _mixed(graph, code), graph.constant(stop - start, np.uint64))
    return graph.add("Add", graph.cast(code, np.int64), graph.constant(start, np.int64))


def _mixed(graph: GraphBuilder, value: str) -> str:
    """``counter_random_kernels.mix``, on uint64."""
    for shift, factor in _MIX:
        by = graph.constant(shift, np.uint64)
        shifted = graph.add("BitShift", value, by, direction="RIGHT")
        value = graph.add("BitwiseXor", value, shifted)
        if factor:
            value = graph.add("Mul", value, graph.constant(factor, np.uint64))
    return value
