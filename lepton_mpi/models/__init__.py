"""From batch to gradient; knows nothing of ranks.

A model is any object with these attributes; the built-in ones use the same door as a user's own:

``shapes``
    Mapping of parameter name to shape, in forward order.
``loss_and_gradient(parameters, batch, gradient) -> loss`` or ``(loss, correct_count)``
    Fill every array of ``gradient``, and return the loss, both **summed** over the rows of the batch, not
    averaged: the engine adds the sums of all ranks and divides by the rows of all ranks.
    ``parameters`` and ``gradient`` are dicts of name to array, of the configured dtype; ``parameters``
    must not be changed. ``correct_count``, if given, is the number of rows classified correctly.
    ``gradient.done(name)`` may be called as soon as an array is filled, best from the last layer to the first: between
    hosts it is summed while the rest is computed.
``evaluate(parameters, batch, predicted) -> loss`` (optional)
    Fill ``predicted``, int32 of shape (rows,), with the predicted classes and return the summed loss.
    Without it the run reports no validation and no test figures.
``initialise(parameters, seed)`` (optional)
    Fill the arrays of ``parameters``; the default is ``initialise_uniform``.

Reading order: tile_kernels.py and product_kernels.py (matrix products), kernels.py (layers and losses), mlp.py,
logistic.py.
"""

import importlib.util
import sys
from collections.abc import Mapping
from math import prod, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lepton_mpi import counter_random
from lepton_mpi.errors import ConfigurationError

_INITIALISATION = 10  # stream of the random numbers; parameter k uses this plus k


NOTHING_AHEAD = np.zeros(0, np.int64)


class Batch(NamedTuple):
    """Rows for one call.

    Attributes
    ----------
    x : shape (rows, *row shape)
    y : int32, shape (rows,)
    ahead : int64
        What will be read after this batch, as ``product_kernels.ask_ahead`` takes it; a model may ignore it.
    """

    x: np.ndarray
    y: np.ndarray
    ahead: np.ndarray = NOTHING_AHEAD


def make_model(
    name: str,
    feature_shape: tuple[int, ...],
    class_count: int,
    hidden: tuple[int, ...],
    threaded: bool = False,
) -> Any:
    """Model by name, or ``FILE.py:NAME``, called as ``NAME(feature_shape, class_count)``.

    Raises ConfigurationError.
    """
    if name == "mlp":
        from lepton_mpi.models.mlp import Mlp

        return Mlp((prod(feature_shape), *hidden, class_count), threaded)
    if name == "logistic":
        from lepton_mpi.models.logistic import Logistic

        if class_count != 2:
            raise ConfigurationError(
                f"--model logistic: expected data of 2 classes, got {class_count}; take --model mlp --hidden "
                "(no width) for more"
            )
        return Logistic(prod(feature_shape))
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py"):
        raise ConfigurationError(f"--model: expected mlp, logistic or FILE.py:NAME, got {name!r}")
    return _load(Path(path), attribute)(feature_shape, class_count)


def _load(path: Path, attribute: str) -> Any:
    if not path.is_file():
        raise ConfigurationError(f"--model: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up there
    spec.loader.exec_module(module)
    if not callable(getattr(module, attribute, None)):
        raise ConfigurationError(f"--model: {path} has no callable {attribute!r}")
    return getattr(module, attribute)


def initialise_uniform(parameters: Mapping[str, np.ndarray], seed: int) -> None:
    """Matrices uniform in ±sqrt(6 / (inputs + outputs)), everything of fewer dimensions 0.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010. The numbers depend on seed and parameter only.
    """
    for index, array in enumerate(parameters.values()):
        array[...] = 0
        if array.ndim >= 2:
            inputs, outputs = prod(array.shape[:-1]), array.shape[-1]
            limit = sqrt(6 / max(1, inputs + outputs))
            numbers = counter_random.uniform(seed, _INITIALISATION + index, array.size)
            array[...] = (limit * (2 * numbers - 1)).reshape(array.shape)
