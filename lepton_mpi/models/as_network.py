"""Any built-in model as a network of layers with the same outputs: what is fused in a kernel has no gradients by its input."""

from collections.abc import Mapping
from math import prod

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.compose import Part, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.layer import Array
from lepton_mpi.layers.losses import CrossEntropy, SquaredError
from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.models.model import Model
from lepton_mpi.models.network import Network
from lepton_mpi.models.own_model import OwnModel


def as_network(model: Model, parameters: Mapping[str, Array]) -> tuple[Network, dict[str, Array]]:
    """The network, and its parameters by name: the model's own arrays, but for logistic regression.

    Its outputs are those before the softmax; of logistic regression, for class 1 the logarithm of the odds, for class 0 the same
    with another sign. Raises ConfigurationError for a user's own model that is no ``Network``.
    """
    if isinstance(model, OwnModel):
        model = model.given if isinstance(model.given, Network) else model
    if isinstance(model, Network):
        return model, dict(parameters)
    if isinstance(model, Mlp):
        return _of_mlp(model), dict(parameters)
    if isinstance(model, Logistic):
        weight, bias = parameters["weight"], parameters["bias"]
        network = Network("logistic", Dense(2), model.inputs, CrossEntropy())
        return network, {
            "layer0/weight": np.stack([-weight, weight], axis=1),
            "layer0/bias": np.concatenate([-bias, bias]),
        }
    raise ConfigurationError(
        f"model {model.name}: expected a built-in model or a Network, whose layers give gradients by the input, got a model of your "
        "own; permutation importance (--method importance) needs no gradients"
    )


def _of_mlp(model: Mlp) -> Network:
    last = len(model.widths) - 2
    parts: dict[str, Part] = {
        f"layer{number}": Dense(width, model.activation if number < last else None)
        for number, width in enumerate(model.widths[1:])
    }
    head = CrossEntropy() if model.loss == "cross_entropy" else SquaredError()
    network = Network("mlp", Sequential(parts), model.inputs, head)
    assert sum(map(prod, network.shapes.values())) == sum(map(prod, model.shapes.values()))
    return network
