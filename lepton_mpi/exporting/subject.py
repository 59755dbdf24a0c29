"""What is exported: a trained model as a network of layers, with all that its inputs and outputs stand for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

import numpy as np

from lepton_mpi import __version__
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.layer import Array
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.models.as_network import as_network
from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.model import Model
from lepton_mpi.models.network import Network


@dataclass(frozen=True)
class Subject:
    """See the module.

    Attributes
    ----------
    name : str
        ``--model``; of a user's own ``FILE.py:NAME``.
    model : Model
    parameters : mapping of str to array
        By the names of ``Model.shapes``.
    data : DataSet
        Without rows: inputs, normalisation, names, how targets are scaled.
    options : mapping of str to any
        Of the run, by name.
    digest : str
        Of the parameters.
    """

    name: str
    model: Model
    parameters: Mapping[str, Array]
    data: DataSet
    options: Mapping[str, Any]
    digest: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return next(iter(self.parameters.values())).dtype

    def network(self) -> tuple[Network, Mapping[str, Array]]:
        """Layers with the same outputs, and their parameters. Raises ConfigurationError for a model that is no network."""
        if isinstance(self.model, Logistic):
            weight, bias = self.parameters["weight"], self.parameters["bias"]
            # The logarithm of the odds stands against 0.
            found = {
                "layer0/weight": np.stack([np.zeros_like(weight), weight], axis=1),
                "layer0/bias": np.concatenate([np.zeros_like(bias), bias]),
            }
            return Network("logistic", Dense(2), self.model.inputs, CrossEntropy()), found
        try:
            return as_network(self.model, self.parameters)
        except ConfigurationError:
            raise ConfigurationError(
                f"model {self.model.name}: expected a built-in model or a Network of built-in layers, whose formulas are known, got "
                "a model of your own; .npz and .safetensors hold its parameters"
            ) from None

    def arguments(self) -> dict[str, str]:
        """A name of Python for each input of the data."""
        names = list(self.data.inputs)
        return {
            name: name if name.isidentifier() and not iskeyword(name) else f"input{number}"
            for number, name in enumerate(names)
        }

    def about(self) -> dict[str, str]:
        """What the numbers stand for, as texts by name, most of them JSON: the metadata of a file."""
        data, known = self.data, self.data.encodings
        shift, scale = (_short(values) for values in data.normalisation)
        facts: dict[str, Any] = {
            "feature_names": known.columns,
            "category_columns": known.input_columns,
            "categories": known.categories,
            "class_names": data.class_names,
            "target_names": known.target_names,
            "vocabulary": [token.decode("latin-1") for token in known.vocabulary],
        }
        found = {name: json.dumps(value) for name, value in facts.items() if value}
        found["lepton_mpi"], found["model"] = __version__, str(self.model)
        found["weights_digest"] = self.digest
        if any(spec.kind == "numbers" for spec in data.inputs.values()):
            found["normalisation"] = json.dumps({"shift": shift, "scale": scale})
        if not data.target_scale.is_identity:
            found["target_scale"] = json.dumps(data.target_scale.as_json())
        return found


def _short(values: Array) -> Any:
    """One number where all are the same."""
    is_one = values.size > 0 and bool((values == values.flat[0]).all())
    return float(values.flat[0]) if is_one else values.tolist()
