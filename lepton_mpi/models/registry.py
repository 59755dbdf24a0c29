"""Models by name. Adding one is its file and one line in ``options/names.py``; its own options are declared as ``options/own.py`` says."""

from collections.abc import Mapping
from typing import Any

from lepton_mpi.models import own_model
from lepton_mpi.models.model import DataFacts, Model
from lepton_mpi.options import names
from lepton_mpi.registry import Registry, is_own_file

MODELS = Registry("--model", names.MODELS)


def make_model(name: str, options: Mapping[str, Any], data: DataFacts) -> Model:
    """The model that ``name`` stands for: a built-in one, or ``FILE.py:NAME``, called as ``NAME(feature_shape, output_count)``.

    Parameters
    ----------
    options
        Values by name, of all options of a run; a model's ``build(options, data)`` reads those that are its own, and
        ``threads``, the BLAS threads of this rank.
    data : DataFacts

    Raises
    ------
    ConfigurationError
    """
    found = MODELS.find(name)
    if is_own_file(name):
        return own_model.adapt(found, data, options["threads"])
    model: Model = found(options, data)
    return model
