"""From batch to gradient; knows nothing of ranks.

A model is any object with these attributes; the built-in ones use the same door as a user's own:

``shapes``
    Mapping of parameter name to shape, in forward order.
``loss_and_gradient(parameters, batch, gradient) -> loss`` or ``(loss, correct_count)``
    Fill every array of ``gradient``, and return the loss, both **summed** over the rows of the batch, not
    averaged: the engine adds the sums of all ranks and divides by the rows of all ranks.
    ``parameters`` and ``gradient`` are dicts of name to array, of the configured dtype; ``parameters``
    must not be changed. ``correct_count``, if given, is the number of rows classified correctly. Both are
    ``vectors.Views``, in which a name keeps its array.
    ``gradient.done(name)`` may be called as soon as an array is filled, best from the last layer to the first, or
    ``gradient.done(name, start, stop)`` for a part of its elements, best from its end: between hosts it is summed while
    the rest is computed. After the last of them no array of ``parameters`` must be read.
    Random numbers, if any, should be a function of ``batch.draw`` and ``batch.rows``, never of a generator
    with a state: then the weights do not depend on the number of ranks.
``evaluate(parameters, batch, predicted) -> loss`` (optional)
    Fill ``predicted`` with the predicted classes, int32 of shape (rows,), or the predicted targets, of the
    dtype and shape of ``batch.y``, and return the summed loss.
    Without it the run reports no validation and no test figures.
``initialise(parameters, seed)`` (optional)
    Fill the arrays of ``parameters``; the default is ``initialise_uniform``.
``asks_for_parameters`` (optional)
    True for a model that calls ``parameters.need(name)`` before ``loss_and_gradient`` reads an array, if
    ``parameters.is_awaited``: then, between hosts, a step may begin before the last one's sums have all arrived.
``reads_in_place`` (optional)
    True for a model that minds ``batch.places``: then rows are not gathered where they can be read as they lie.

Reading order::

    vector_code.py         writes vector instructions
    tile_kernels.py        a tile of a matrix product
    transpose_kernels.py   the transposed of a matrix
    product_kernels.py     matrix products of a batch with a layer
    row_kernels.py         rows with a vector
    elementary_kernels.py  exponentials
    kernels.py             matrix products by any way, bias, ReLU, softmax
    activation_kernels.py  any activation, dropout
    regression_kernels.py  squared error, Huber's loss
    logistic_kernels.py    logistic loss
    mlp_kernels.py         a whole network, forward and backward
    mlp.py, logistic.py    the models
"""

import importlib.util
import sys
from collections.abc import Mapping
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi import counter_random
from lepton_mpi.batch import Batch as Batch
from lepton_mpi.errors import ConfigurationError

# Streams of random numbers: parameter k uses the first plus k, and every step has one number of the second.
_INITIALISATION, _DRAWS = 10, 3


def draws(seed: int, first_step: int, count: int) -> list[int]:
    """``Batch.draw`` of ``count`` steps from ``first_step`` on: a function of seed and step."""
    return counter_random.bits(seed, _DRAWS, count, first_step).view(np.int64).tolist()


def make_model(config: Any, data: Any, threaded: bool = False) -> Any:
    """The model that ``config.model`` names, or ``FILE.py:NAME``, called as ``NAME(feature_shape, output_count)``.

    Parameters
    ----------
    config : lepton_mpi.config.Config
    data : lepton_mpi.data.loader.DataSet
        Of its ``class_count`` and ``target_count``, the one that is not None or 0 is the number of outputs.
    threaded
        Whether matrix products shall use the threads of BLAS.

    Raises
    ------
    ConfigurationError
    """
    name, features, loss = config.model, prod(data.feature_shape), config.loss
    if name == "mlp":
        from lepton_mpi.models.mlp import Mlp

        if loss == "auto":
            loss = "cross_entropy" if data.class_count else "mse"
        widths = (features, *config.hidden, data.output_count)
        return Mlp(widths, threaded, config.activation, config.dropout, loss, config.huber_delta)
    if name == "logistic":
        from lepton_mpi.models.logistic import Logistic

        if data.class_count != 2:
            raise ConfigurationError(
                f"--model logistic: expected data of 2 classes, got {data.outputs_text}; take --model mlp --hidden "
                "(no width) for more"
            )
        return Logistic(features)
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py"):
        raise ConfigurationError(f"--model: expected mlp, logistic or FILE.py:NAME, got {name!r}")
    return _load(Path(path), attribute)(data.feature_shape, data.output_count)


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


def flat_rows(batch: Batch, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Memory in which the rows of a batch lie, shape (any, features), and their places in it.

    ``places`` are those of a batch that has none: 0, 1, … for every row.
    """
    x = batch.x if batch.x.ndim == 2 else batch.x.reshape(len(batch.x), -1)
    return x, places if batch.places is None else batch.places


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
