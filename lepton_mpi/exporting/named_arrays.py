"""A model's parameters by the names, and in the layouts, in which other programs keep them."""

from collections.abc import Mapping

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.exporting.subject import Subject
from lepton_mpi.layers.layer import Array
from lepton_mpi.models.keras_names import KERAS_MODELS, keras_names
from lepton_mpi.models.torch_names import Stored, torch_names


def by_torch(subject: Subject) -> dict[str, Array]:
    """As a torch state dict has them; of a model that is not built in, by its own names with dots, in its own layout."""
    return _written(torch_names(subject.name, subject.model.shapes), subject)


def by_keras(subject: Subject) -> dict[str, Array]:
    """As ``save_weights`` of Keras 3 has them. Raises ConfigurationError for a model whose layers Keras has not."""
    if subject.name not in KERAS_MODELS:
        raise ConfigurationError(
            f"model {subject.model.name}: expected one that Keras can hold, {', '.join(KERAS_MODELS)}, got another; .onnx, .safetensors "
            "and .npz hold it"
        )
    return _written(keras_names(subject.name, subject.model.shapes, {}), subject)


def by_path(subject: Subject) -> dict[str, Array]:
    """As a checkpoint has them, with the normalisation beside, and ``about``, each text of ``Subject.about`` as ``about/NAME``."""
    found = {f"parameters/{name}": array for name, array in subject.parameters.items()}
    shift, scale = subject.data.normalisation
    found |= {"normalisation/shift": shift, "normalisation/scale": scale}
    return found | {f"about/{name}": np.array(text) for name, text in subject.about().items()}


def _written(table: Mapping[str, Stored], subject: Subject) -> dict[str, Array]:
    return {stored.name: stored.theirs(subject.parameters[name]) for name, stored in table.items()}
