"""A checkpoint as something to predict with: the model, and how raw rows are encoded for it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.data.opening import base_of
from lepton_mpi.errors import ConfigurationError, DataError, same_on_all_ranks
from lepton_mpi.prepare.encoding import Encoding
from lepton_mpi.prepare.normalisation import Normalisation
from lepton_mpi.prepare.transformation import Transformation
from lepton_mpi.run.trained import Trained, load_found
from lepton_mpi.wording import one_line

HINT = "--like FILE names the file that it was trained on"


@dataclass(frozen=True)
class Subject:
    """What is predicted with.

    Attributes
    ----------
    found : Trained
        Its data have no rows that are used.
    encoding : Encoding
        From raw rows to those that the model reads.
    has_names : bool
        False where nobody has named the columns: those of a table are then taken in their order.
    """

    found: Trained
    encoding: Encoding
    has_names: bool


def open_subject(path: Path, like: str | None, world: Any, model_name: str | None) -> Subject:
    """A checkpoint that ``find`` has let pass, to predict raw rows with. Collective. Raises LeptonError on every rank.

    Parameters
    ----------
    like
        A prepared file in place of what the checkpoint says, which one of an earlier version does not.
    """
    found = load_found(path, like, world, model_name, needs_rows=False, hint=HINT)
    data = found.data
    with same_on_all_ranks():
        refuse_texts(found)
        raw = data.encodings.prepared
        encoding = _of_bytes(raw, found) if raw else _of_numbers(found)
    # In the type of the batches, features far from 0 would lose what tells them apart.
    data = dataclasses.replace(data, bases=base_of(*data.normalisation), is_normalised=False)
    found = dataclasses.replace(found, data=data)
    return Subject(found, encoding, bool(raw))


def refuse_texts(found: Trained) -> None:
    """Raise ConfigurationError for a model that has neither classes nor targets."""
    if found.data.y_kind not in ("classes", "targets"):
        raise ConfigurationError(
            f"{found.path}: expected a model of classes or targets, got one of {found.data.outputs_text}: generate continues a text "
            "with it, evaluate says its bits per byte"
        )


def _of_bytes(raw: bytes, found: Trained) -> Encoding:
    try:
        return Encoding.from_bytes(raw)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{found.path}: encoding: expected what prepare writes: {one_line(error)}; {HINT}"
        ) from None


def _of_numbers(found: Trained) -> Encoding:
    """Of data that ``prepare`` has not made: numbers as they were in the file. Raises DataError for other inputs."""
    data = found.data
    kinds = [spec.kind for spec in data.inputs.values()]
    if kinds != ["numbers"]:
        raise DataError(
            f"{found.path}: trained on {data.inputs_text}, which were not made by prepare: expected a file of such rows to predict, "
            "with the data sets of the one that was trained on; what raw cells stand for is not known"
        )
    shift, scale = data.normalisation
    return Encoding(
        *({}, (), data.feature_shape or (1,), data.class_names, Transformation({})),
        *(Normalisation("none", "feature", shift, scale), data.target_scale),
    )


def without_labels(data: Any, row_count: int) -> np.ndarray:
    """``y`` of rows whose answers nobody knows, as a reader of batches takes it."""
    if data.target_count:
        return np.zeros((row_count, data.target_count), data.dtype)
    return np.zeros(row_count, np.int32)
