"""Attention maps: from which positions each position of a text reads, in every layer and head.

    map = softmax(q @ k.T / sqrt(size)), causal: the row of position t is 0 behind t

The kernels never hold such a map (``layers/attention.py``); it is computed here from what each attention layer reads, in float64.
"""

from collections.abc import Mapping

import numpy as np

from lepton_mpi.interpretation.scored import values_of
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.layer import Array
from lepton_mpi.models.network import Network


def attention_layers(network: Network) -> dict[str, Attention]:
    """By name, in order."""
    return {n.name: n.layer for n in network.graph.nodes if isinstance(n.layer, Attention)}


def attention_maps(
    network: Network, parameters: Mapping[str, Array], inputs: tuple[Array, ...], length: int
) -> dict[str, Array]:
    """Of each attention layer the maps of the first ``length`` positions: float64, (rows, heads, length, length)."""
    layers = attention_layers(network)
    read = {n.name: n.inputs[0] for n in network.graph.nodes if n.name in layers}
    values = values_of(network, parameters, inputs, list(read.values()))
    return {name: maps_of(layer, values[read[name]][:, :length]) for name, layer in layers.items()}


def maps_of(layer: Attention, x: Array) -> Array:
    """Of the numbers that a layer reads, (rows, T, (heads + 2 shared) * size): (rows, heads, T, T)."""
    rows, length, width = x.shape
    size = width // (layer.heads + 2 * layer.shared)
    heads = x.astype(np.float64).reshape(rows, length, -1, size).transpose(0, 2, 1, 3)
    q, k = heads[:, : layer.heads], heads[:, layer.heads : layer.heads + layer.shared]
    k = np.repeat(k, layer.heads // layer.shared, axis=1)
    z = q @ k.transpose(0, 1, 3, 2) / np.sqrt(size)
    if layer.is_causal:
        z = np.where(np.tril(np.ones((length, length), bool)), z, -np.inf)
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)
