"""Inputs of codes: what an embedding makes of them is a value with gradients, and each code's part of it is known.

Embedding         (rows, length, width)        a part for each element of the row: a token, or a column
ColumnEmbedding   (rows, sum of widths)        a part for each column, side by side
CrossedLinear     (rows, outputs)              a part for each column and each cross, added up
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np

from lepton_mpi.layers.column_embedding import ColumnEmbedding
from lepton_mpi.layers.compose import Node
from lepton_mpi.layers.crossed_linear import CrossedLinear
from lepton_mpi.layers.embedding import Embedding
from lepton_mpi.layers.layer import Array
from lepton_mpi.models.network import Network

Baseline = Literal["zero", "mean", "raw"]


class Embedded(NamedTuple):
    """A layer that looks up codes.

    Attributes
    ----------
    node : Node
    input : str
    features : list of tuple of int
        Of each part the elements of the row of codes that it is made of.
    """

    node: Node
    input: str
    features: list[tuple[int, ...]]

    @property
    def value(self) -> int:
        return self.node.output

    @property
    def is_summed(self) -> bool:
        """Whether parts are added up, and not side by side."""
        return isinstance(self.node.layer, CrossedLinear)


def embedded_of(network: Network) -> list[Embedded]:
    """Every such layer of a network, in order."""
    names = {value: name for name, value in network.graph.inputs.items()}
    found = []
    for node in network.graph.nodes:
        layer, size = node.layer, network.graph.values[node.inputs[0]].size
        features: list[tuple[int, ...]] = [(j,) for j in range(size)]
        if isinstance(layer, CrossedLinear):
            features = layer.features
        elif not isinstance(layer, Embedding | ColumnEmbedding):
            continue
        found.append(Embedded(node, names[node.inputs[0]], features))
    return found


def parts_of(embedded: Embedded, parameters: Mapping[str, Array], codes: Array) -> list[Array]:
    """What each part adds: arrays of shape (rows, numbers of the part); ``codes`` int32, (rows, …)."""
    node, flat = embedded.node, codes.reshape(len(codes), -1)
    own = {name: parameters[key] for name, key in node.parameters.items()}
    if isinstance(node.layer, CrossedLinear):
        rows = node.layer.rows_of(flat)
        return [own["weight"][rows[:, part]] for part in range(rows.shape[1])]
    if isinstance(node.layer, ColumnEmbedding):
        return [own[f"column{j}"][flat[:, j]] for j in range(flat.shape[1])]
    assert isinstance(node.layer, Embedding)
    firsts = _firsts(node.layer, flat.shape[1])
    return [own["weight"][flat[:, j] + firsts[j]] for j in range(flat.shape[1])]


def baseline_of(
    embedded: Embedded, parameters: Mapping[str, Array], kind: Baseline, count: int
) -> list[Array]:
    """What stands for each part in a row that says nothing, shape (numbers of the part,): zeros, or the mean of its table."""
    node = embedded.node
    own = {name: parameters[key] for name, key in node.parameters.items()}
    if isinstance(node.layer, CrossedLinear):
        starts = node.layer.starts
        tables = [own["weight"][starts[j] : starts[j + 1]] for j in range(len(starts) - 1)]
    elif isinstance(node.layer, ColumnEmbedding):
        tables = [own[f"column{j}"] for j in range(count)]
    else:
        assert isinstance(node.layer, Embedding)
        firsts, values = _firsts(node.layer, count), node.layer.values
        sizes = [values] * count if isinstance(values, int) else values
        pairs = zip(firsts, sizes, strict=True)
        tables = [own["weight"][first : first + size] for first, size in pairs]
    if kind == "mean":
        return [table.mean(axis=0, dtype=np.float64).astype(table.dtype) for table in tables]
    return [np.zeros(table.shape[1], table.dtype) for table in tables]


def together(embedded: Embedded, parts: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """The value that these parts make, of this shape."""
    if embedded.is_summed:
        return np.sum(np.stack(parts), axis=0).reshape(shape)
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1).reshape(shape)


def by_part(
    embedded: Embedded, slopes: Array, parts: Sequence[Array], baselines: Sequence[Array]
) -> Array:
    """The sum over each part of ``slopes * (part - baseline)``: float64, shape (rows, parts)."""
    flat, out = slopes.reshape(len(slopes), -1), np.empty((len(slopes), len(parts)))
    starts = [0] * len(parts) if embedded.is_summed else _starts(parts)
    for j, (part, baseline, start) in enumerate(zip(parts, baselines, starts, strict=True)):
        own = flat[:, start : start + part.shape[1]].astype(np.float64)
        out[:, j] = (own * (part.astype(np.float64) - baseline)).sum(axis=1)
    return out


def norms(slopes: Array, parts: Sequence[Array]) -> Array:
    """The length of each part's slopes, of parts side by side: float64, shape (rows, parts)."""
    flat = slopes.reshape(len(slopes), -1).astype(np.float64)
    pairs = zip(_starts(parts), parts, strict=True)
    found = [np.sqrt((flat[:, s : s + part.shape[1]] ** 2).sum(axis=1)) for s, part in pairs]
    return np.stack(found, axis=1)


def _starts(parts: Sequence[Array]) -> list[int]:
    return [*accumulate((part.shape[1] for part in parts), initial=0)][:-1]


def _firsts(layer: Embedding, count: int) -> list[int]:
    """Where the table of each element begins."""
    if isinstance(layer.values, int):
        return [0] * count
    return [*accumulate(layer.values, initial=0)][:-1]
