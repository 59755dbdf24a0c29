"""Grad-CAM: which places of an image or a signal a convolutional network looks at.

    map = relu(sum over channels c of mean over places of d score / d a[…, c], times a[…, c])

for the activations ``a`` of a layer, by default those that the first layer behind the last convolutions reads that changes their places: the
pooling. Source: Selvaraju et al., "Grad-CAM", ICCV 2017.
"""

from collections.abc import Mapping

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.interpretation.scored import Scored
from lepton_mpi.layers.convolution import Conv2d
from lepton_mpi.layers.layer import Array
from lepton_mpi.models.network import Network
from lepton_mpi.wording import did_you_mean


def layers_of(network: Network) -> dict[str, int]:
    """Layers whose outputs have places and channels, from the first convolution on, by name: the value of each."""
    nodes = network.graph.nodes
    first = next((n for n, node in enumerate(nodes) if isinstance(node.layer, Conv2d)), None)
    if first is None:
        return {}
    rank = len(network.graph.values[nodes[first].output].shape)
    places = ((node.name, node.output) for node in nodes[first:])
    return {name: v for name, v in places if len(network.graph.values[v].shape) == rank}


def default_layer(network: Network) -> str:
    """See the module; empty for a network without convolutions."""
    nodes, values = network.graph.nodes, network.graph.values
    found = [n for n, node in enumerate(nodes) if isinstance(node.layer, Conv2d)]
    if not found:
        return ""
    current = nodes[found[-1]]
    for node in nodes[found[-1] + 1 :]:
        if (
            current.output not in node.inputs
            or values[node.output].shape[:-1] != values[current.output].shape[:-1]
        ):
            break
        current = node
    return current.name


def check_layer(network: Network, name: str) -> int:
    """The value of a layer. Raises ConfigurationError for one without a map."""
    known = layers_of(network)
    if name not in known:
        raise ConfigurationError(
            f"--layer: expected one of {', '.join(known)}, got {name!r}{did_you_mean(name, list(known))}"
        )
    return known[name]


def grad_cam(
    network: Network,
    parameters: Mapping[str, Array],
    inputs: tuple[Array, ...],
    outputs: Array,
    layer: str,
) -> Array:
    """The map of every row: float64, shape (rows, places…), at least 0. Arguments as of ``Scored.at``."""
    value = check_layer(network, layer)
    found = Scored(network, parameters, [value]).at(inputs, outputs)
    activations, slopes = (
        part[value].astype(np.float64) for part in (found.values, found.gradients)
    )
    places = tuple(range(1, slopes.ndim - 1))
    weights = slopes.mean(axis=places, keepdims=True)
    return np.maximum((weights * activations).sum(axis=-1), 0)
