"""Layers of language models as nodes of ONNX, for rows of any number of positions up to those that there are."""

from math import sqrt

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.exporting.onnx_graph import GraphBuilder, Place
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.embedding import Embedding, Positions
from lepton_mpi.layers.rotary import Rotary


def embedding(graph: GraphBuilder, layer: Embedding, place: Place, x: str) -> str:
    if layer.offsets.any():
        shape = place.x.shape
        offsets = graph.constant(layer.offsets.reshape(shape), np.int32)
        x = graph.add("Add", x, offsets)
    return graph.add("Gather", graph.parameter(place, "weight"), x)


def positions(graph: GraphBuilder, layer: Positions, place: Place, x: str) -> str:
    _check(layer.continues, place)
    table = graph.slice(graph.parameter(place, "weight"), 0, graph.size(x, 1), 0)
    return graph.add("Add", x, table)


def rotary(graph: GraphBuilder, layer: Rotary, place: Place, x: str) -> str:
    _check(layer.continues, place)
    half, turned = layer.size // 2, layer.heads * layer.size
    rest = place.x.shape[1] - turned
    head, behind = x, []
    if rest:
        head, last = graph.add_several("Split", [x, graph.whole(turned, rest)], 2, axis=2)
        behind = [last]
    head = graph.reshape(head, 0, 0, layer.heads, layer.size)
    left, right = graph.add_several("Split", [head, graph.whole(half, half)], 2, axis=3)
    # (length, 1, half): the same for all heads.
    cosine, sine = (
        graph.slice(graph.constant(table[:, None]), 0, graph.size(x, 1), 0)
        for table in layer.tables[graph.dtype]
    )
    first = graph.add("Sub", graph.add("Mul", left, cosine), graph.add("Mul", right, sine))
    second = graph.add("Add", graph.add("Mul", right, cosine), graph.add("Mul", left, sine))
    out = graph.reshape(graph.add("Concat", first, second, axis=3), 0, 0, turned)
    return graph.add("Concat", out, *behind, axis=2) if rest else out


def attention(graph: GraphBuilder, layer: Attention, place: Place, x: str) -> str:
    """Queries as (rows, shared heads, heads of each, positions, size), keys and values with one in place of those heads."""
    _check(layer.cache > 0, place)
    heads, shared = layer.heads, layer.shared
    size = place.out[1] // heads
    widths = graph.whole(heads * size, shared * size, shared * size)
    q, k, v = graph.add_several("Split", [x, widths], 3, axis=2)
    q = graph.transpose(graph.reshape(q, 0, 0, shared, heads // shared, size), 0, 2, 3, 1, 4)
    k = graph.transpose(graph.reshape(k, 0, 0, shared, 1, size), 0, 2, 3, 4, 1)
    v = graph.transpose(graph.reshape(v, 0, 0, shared, 1, size), 0, 2, 3, 1, 4)
    scores = graph.add("MatMul", graph.add("Mul", q, graph.constant(1 / sqrt(size))), k)
    if layer.is_causal:
        zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        length = graph.add("Squeeze", graph.size(x, 1), graph.whole(0))
        numbers = graph.add("Range", zero, length, one)
        sees = graph.add("GreaterOrEqual", graph.add("Unsqueeze", numbers, graph.whole(1)), numbers)
        scores = graph.add("Where", sees, scores, graph.constant(-np.inf))
    out = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), v)
    return graph.reshape(graph.transpose(out, 0, 3, 1, 2, 4), 0, 0, heads * size)


def _check(continues: bool, place: Place) -> None:
    if continues:
        raise ConfigurationError(
            f"{place.name}: expected a layer without a memory of earlier batches, got one that goes on from batch to batch"
        )
