"""``speech_gru``: words from log-mel spectrograms, frame by frame, by gated recurrent units; also for other sequences of numbers.

    for each layer:  h = gru(x);  x = dropout(h), or of two directions dropout(h forwards, h from the end)
    end:             the mean of all states, or the last one, and a dense layer

Sources: Cho et al., 2014, arXiv:1406.1078 (the unit); Zhang et al., "Hello edge: keyword spotting on microcontrollers", 2017,
arXiv:1711.07128 (one layer over the frames of a word).
"""

from collections.abc import Mapping
from typing import Any

from lepton_mpi.layers.compose import Part, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.gru import Gru, Returns, bidirectional
from lepton_mpi.layers.pooling import AveragePool
from lepton_mpi.models.built_network import network_for
from lepton_mpi.models.convolutional import rows_of
from lepton_mpi.models.model import DataFacts
from lepton_mpi.models.network import Network


def build(options: Mapping[str, Any], data: DataFacts) -> Network:
    """From the options of ``speech_options.py``, ``dropout``, ``loss`` and ``huber_delta``."""
    x, parts = rows_of("speech_gru", data, 2, "frames and bands"), dict[str, Part]()
    gru = bidirectional if options["bidirectional"] else Gru
    is_mean, top = options["pooling"] == "mean", options["layers"] - 1
    for number in range(options["layers"]):
        returns: Returns = "last" if number == top and not is_mean else "all"
        parts[f"gru{number}"] = gru(options["width"], returns)
        if number == top and is_mean:
            parts["pool"] = AveragePool()
        if options["dropout"]:
            parts[f"dropout{number}"] = Dropout(options["dropout"])
    parts["classes"] = Dense(data.output_count)
    return network_for("speech_gru", Sequential(parts), {"x": x}, options, data)
