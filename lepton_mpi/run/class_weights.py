"""``--class-weights``: how much a row of each class counts in the loss.

A row's loss, and with it its gradient, is multiplied by the weight of its class; the sum is divided by the rows of the step, as Keras does with
``class_weight``, and not by the sum of their weights, as torch's ``CrossEntropyLoss(weight)`` does. So a step of many
micro-batches is the sum of them, and the weights of the model do not depend on the number of ranks. The loss of validation and test rows is
weighted, too; all other figures are not.

Source of ``balanced``, n / (k n_c) of n training rows, n_c of them of class c, k classes: King and Zeng, "Logistic regression in rare events
data", Political Analysis 9, 2001, as in scikit-learn. Its mean over the training rows is 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options import class_weights as texts
from lepton_mpi.wording import did_you_mean, one_line

if TYPE_CHECKING:
    from lepton_mpi.data.dataset import DataSet
    from lepton_mpi.models.model import Model
    from lepton_mpi.world.rank_group import RankGroup

_ATTRIBUTE = "class_weights"
# Classes whose weights a line names.
_SHOWN = 8


def counts_of(data: DataSet) -> np.ndarray:
    """Training rows of each class, int64 (classes,)."""
    rows = data.splits["train"]
    labels = rows.y if rows.chosen is None else rows.y[rows.chosen]
    return np.bincount(labels, minlength=len(data.class_names))


def balanced(counts: np.ndarray) -> np.ndarray:
    """n / (k n_c), float64 (classes,); 1 for classes without a row, which are not among the k.

    >>> balanced(np.array([90, 10, 0])).round(3).tolist()
    [0.556, 5.0, 1.0]
    """
    occurs = counts > 0
    return np.divide(counts.sum(), occurs.sum() * counts, out=np.ones(len(counts)), where=occurs)


def weigh(option: str | None, model: Model, data: DataSet, world: RankGroup) -> None:
    """Tell a model its weights, if there are any. Collective. Raises ConfigurationError on every rank."""
    if option is None:
        return
    given: texts.Weights | None = None
    with world.agreeing():
        if not data.class_names:
            raise ConfigurationError(
                f"--class-weights: expected data of classes, got {data.outputs_text}"
            )
        if world.rank == 0:
            given = _given(option)
    given = world.broadcast(given)
    with world.agreeing():
        found = balanced(counts_of(data)) if given is None else _of_all(given, data.class_names)
        if not (found * counts_of(data)).any():
            raise ConfigurationError(
                "--class-weights: expected a weight above 0 for a class that has training rows, got none"
            )
        model.weigh_classes(found.astype(data.dtype))


def check_same(attributes: Mapping[str, Any], model: Model, path: Path | None) -> None:
    """Raises ConfigurationError for other weights than those with which a run was begun, as of a file that has changed."""
    before = attributes.get(_ATTRIBUTE)
    mine = attribute(model).get(_ATTRIBUTE)
    if before != mine:
        raise ConfigurationError(
            f"--class-weights: expected {one_line(str(before))} as in {path}, got {mine}; a run that goes on keeps its weights"
        )


def attribute(model: Model) -> dict[str, str]:
    """For a checkpoint: JSON, a number for each class; nothing without weights."""
    weights = model.class_weights
    return {} if weights is None else {_ATTRIBUTE: json.dumps(weights.tolist())}


def take(attributes: Mapping[str, Any], model: Model, dtype: np.dtype[Any], path: Path) -> None:
    """Tell a model the weights of its checkpoint, whoever wrote it. Raises DataError."""
    text = attributes.get(_ATTRIBUTE)
    if text is None:
        return
    try:
        weights = json.loads(text)
        if not isinstance(weights, list) or not all(
            isinstance(w, float) and 0 <= w < math.inf for w in weights
        ):
            raise ValueError("expected a list of numbers of at least 0")
        model.weigh_classes(np.array(weights, dtype))
    except (ValueError, TypeError, RecursionError, ConfigurationError) as error:
        raise DataError(f"{path}: attribute {_ATTRIBUTE}: {one_line(error)}") from None


def sentence(model: Model, data: DataSet) -> str:
    """For the head of a run; empty without weights."""
    weights = model.class_weights
    if weights is None:
        return ""
    shown = [
        f"{name} {weight:.4g}"
        for name, weight in zip(data.class_names, weights.tolist(), strict=True)
    ]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"a row counts in the loss as its class: {', '.join(shown[:_SHOWN])}{more}; other figures are not weighted"


def mean_weight(model: Model, data: DataSet) -> float:
    """Of the training rows; 1 without weights."""
    if model.class_weights is None:
        return 1.0
    counts = counts_of(data)
    return float((model.class_weights * counts).sum() / counts.sum())


def _given(option: str) -> texts.Weights | None:
    """Of the option's text, or of its file; None for balanced ones. Raises ConfigurationError."""
    try:
        return texts.read_file(option) if texts.is_file(option) else texts.read(option)
    except OSError as error:
        raise ConfigurationError(f"--class-weights {option}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"--class-weights {option}: {one_line(error)}") from None


def _of_all(given: texts.Weights, names: tuple[str, ...]) -> np.ndarray:
    """One for each class, float64; 1 where nothing is said. Raises ConfigurationError."""
    if isinstance(given, tuple):
        if len(given) != len(names):
            raise ConfigurationError(
                f"--class-weights: expected {len(names)} weights, of {', '.join(names[:_SHOWN])}{' …' * (len(names) > _SHOWN)}, got "
                f"{len(given)}"
            )
        return np.array(given, np.float64)
    for name in given.keys() - {*names}:
        raise ConfigurationError(
            f"--class-weights: expected classes of the data, {', '.join(names[:_SHOWN])}{' …' * (len(names) > _SHOWN)}, got "
            f"{one_line(name)!r}{did_you_mean(name, names)}"
        )
    return np.array([given.get(name, 1.0) for name in names], np.float64)
