"""``tcn``: dilated causal convolutions over signals, in residual blocks whose taps are 1, 2, 4, … steps apart.

    block:  relu(norm(conv(drop(relu(norm(conv(x)))))) + shortcut(x))        no output depends on what comes later
    end:    the mean of all steps, and a dense layer

The shortcut is x itself, or a convolution of one tap where the channels change. Source: Bai, Kolter, Koltun, "An empirical evaluation
of generic convolutional and recurrent networks for sequence modeling", 2018, with normalisation by channel in place of weights'.
"""

from collections.abc import Mapping
from typing import Any

from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.compose import Part, Residual, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.pooling import AveragePool
from lepton_mpi.layers.windows import along
from lepton_mpi.models.built_network import network_for
from lepton_mpi.models.convolutional import convolution, rows_of
from lepton_mpi.models.model import DataFacts
from lepton_mpi.models.network import Network


def build(options: Mapping[str, Any], data: DataFacts) -> Network:
    """From the options of ``image_options.py``, ``dropout``, ``loss`` and ``huber_delta``."""
    x, parts = rows_of("tcn", data, 2), dict[str, Part]()
    channels = x.shape[-1]
    for level in range(options["levels"]):
        parts[f"level{level}"] = _block(options, 2**level, channels)
        channels = options["width"]
    parts["pool"] = AveragePool()
    parts["classes"] = Dense(data.output_count)
    return network_for("tcn", Sequential(parts), {"x": x}, options, data)


def _block(options: Mapping[str, Any], dilation: int, channels: int) -> Part:
    width, taps, norm = options["width"], options["taps"], options["norm"]
    window = along(taps, padding=(dilation * (taps - 1), 0), dilation=dilation)
    body: dict[str, Part] = {"first": convolution(width, window, norm, is_sequence=True)}
    if options["dropout"]:
        body["dropout"] = Dropout(options["dropout"])
    body["second"] = convolution(width, window, norm, relu=False, is_sequence=True)
    shortcut = None
    if channels != width:
        shortcut = convolution(width, along(1), norm, relu=False, is_sequence=True)
    parts: dict[str, Part] = {"residual": Residual(Sequential(body), shortcut)}
    return Sequential(parts | {"relu": Activation("relu")})
