"""``speech_cnn``: words of a small vocabulary from log-mel spectrograms, by depthwise separable convolutions (DS-CNN).

    stem:   relu(norm(conv 10 x 4, frames x bands, stride 2))              half as many frames and bands, rounded up
    block:  relu(norm(conv 3 x 3 of each channel alone)), then relu(norm(conv 1 x 1))
    end:    the mean of all places, dropout, and a dense layer

Source: Zhang, Suda, Lai, Chandra, "Hello edge: keyword spotting on microcontrollers", 2017, arXiv:1711.07128, whose small network has
64 channels and 4 blocks.
"""

from collections.abc import Mapping
from typing import Any

from lepton_mpi.layers.compose import Part, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.pooling import AveragePool
from lepton_mpi.layers.windows import Window, square
from lepton_mpi.models.built_network import network_for
from lepton_mpi.models.convolutional import convolution, rows_of
from lepton_mpi.models.model import DataFacts
from lepton_mpi.models.network import Network

_STEM = Window((10, 4), (2, 2), ((4, 5), (1, 2)))


def build(options: Mapping[str, Any], data: DataFacts) -> Network:
    """From the options of ``speech_options.py``, ``dropout``, ``loss`` and ``huber_delta``."""
    x = rows_of("speech_cnn", data, 3, "frames, bands and channels")
    width, norm = options["width"], options["norm"]
    parts: dict[str, Part] = {"stem": convolution(width, _STEM, norm)}
    for number in range(options["blocks"]):
        depthwise = convolution(width, square(3, padding=1), norm, groups=width)
        pointwise = convolution(width, square(1), norm)
        block = {"depthwise": depthwise, "pointwise": pointwise}
        parts[f"block{number}"] = Sequential(block)
    parts["pool"] = AveragePool()
    if options["dropout"]:
        parts["dropout"] = Dropout(options["dropout"])
    parts["classes"] = Dense(data.output_count)
    return network_for("speech_cnn", Sequential(parts), {"x": x}, options, data)
