"""``cnn``: convolutions of 3x3 and pooling in turn, then dense layers; for small images such as digits.

Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, with ReLU and normalisation.
"""

from collections.abc import Mapping
from typing import Any

from lepton_mpi.layers.compose import Part, Reshape, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.initial import he_uniform
from lepton_mpi.layers.pooling import MaxPool
from lepton_mpi.layers.windows import square
from lepton_mpi.models.built_network import network_for
from lepton_mpi.models.convolutional import convolution, rows_of
from lepton_mpi.models.model import DataFacts
from lepton_mpi.models.network import Network


def build(options: Mapping[str, Any], data: DataFacts) -> Network:
    """From the options of ``image_options.py``, ``dropout``, ``loss`` and ``huber_delta``."""
    x = rows_of("cnn", data, 3)
    height, width, _ = x.shape
    parts: dict[str, Part] = {}
    for number, channels in enumerate(options["channels"]):
        parts[f"block{number}"] = convolution(channels, square(3, padding=1), options["norm"])
        if min(height, width) >= 2:
            parts[f"pool{number}"] = MaxPool(square(2, stride=2))
            height, width = height // 2, width // 2
    parts["flat"] = Reshape()
    parts["units"] = Dense(options["units"], "relu", initial=he_uniform)
    if options["dropout"]:
        parts["dropout"] = Dropout(options["dropout"])
    parts["classes"] = Dense(data.output_count)
    return network_for("cnn", Sequential(parts), {"x": x}, options, data)
