"""What builders make of their layers: a network with the head, and with the memory of activations, that the options ask for."""

from collections.abc import Mapping
from typing import Any

from lepton_mpi.batch import Input
from lepton_mpi.layers.compose import Part
from lepton_mpi.layers.layer import Head
from lepton_mpi.layers.losses import CrossEntropy, Huber, SquaredError
from lepton_mpi.models.model import DataFacts
from lepton_mpi.models.network import Network


def network_for(
    name: str,
    body: Part,
    inputs: Mapping[str, Input],
    options: Mapping[str, Any],
    data: DataFacts,
) -> Network:
    """``name``, ``body`` and ``inputs`` as in ``Network``; from the options ``loss``, ``huber_delta``, ``recompute`` and ``activations``."""
    memory = options["recompute"], options["activations"]
    return Network(name, body, inputs, head_for(options, data), *memory)


def head_for(options: Mapping[str, Any], data: DataFacts) -> Head:
    """By ``loss`` (auto: by the data) and ``huber_delta``."""
    loss = options["loss"]
    if loss == "auto":
        loss = "cross_entropy" if data.class_count else "mse"
    if loss == "huber":
        return Huber(options["huber_delta"])
    return CrossEntropy() if loss == "cross_entropy" else SquaredError()
