"""Single test rows as a checkpoint sees them: loss, prediction, and what the row looks like. One process, without MPI."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.data.rows import Rows
from lepton_mpi.errors import DataError
from lepton_mpi.interpretation.columns import columns_of, has_columns, raw_numbers
from lepton_mpi.prediction.fields import target_names
from lepton_mpi.prediction.predictor import Predictor, Wanted
from lepton_mpi.run import evaluation
from lepton_mpi.run.trained import Trained, load_trained
from lepton_mpi.world.alone import Alone

ROWS_MAX = 2000
# Rows that are shown, and columns of one.
WORST, _COLUMNS = 12, 6
_COLOURS = 3


@dataclass(frozen=True)
class WorstRow:
    """A row that the model is far off on.

    Attributes
    ----------
    number : int
        Among the test rows, from 0.
    place : int
        Among those that were looked at.
    picture : float64, shape (height, width) or (height, width, 3), or None
    cells : list of (str, str)
        The first columns of a table, by name.
    """

    number: int
    place: int
    picture: np.ndarray | None
    cells: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Tested:
    """Test rows that were looked at.

    Attributes
    ----------
    path : Path
        The checkpoint.
    row_count : int
        Test rows that there are.
    class_names, target_names : tuple of str
        One of them is empty.
    y : int32, shape (rows,), or float64, shape (rows, targets)
        Classes, or targets in their own units.
    predicted : the same
    probabilities : floats, shape (rows, classes), or None
    losses : float64, shape (rows,)
        Minus the logarithm of the probability of the row's class; of targets the mean squared error in units of their scale.
    worst : list of WorstRow
        By falling loss.
    """

    path: Path
    row_count: int
    class_names: tuple[str, ...]
    target_names: tuple[str, ...]
    y: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None
    losses: np.ndarray
    worst: Sequence[WorstRow]


def look(checkpoint: Path, data: str | None, model: str | None) -> Tested:
    """At most ``ROWS_MAX`` test rows, evenly spread over them.

    Raises LeptonError: for a checkpoint or data that are missing or no longer fit, a model of one's own without ``model``, a model of
    texts, data without test rows.
    """
    found = load_trained(checkpoint, data, Alone(), model)  # type: ignore[arg-type]
    rows = found.data.splits["test"]
    if not rows.row_count or not found.data.has_labels:
        raise DataError(f"{found.data.paths[0]}: no test rows with labels")
    spread = np.linspace(0, rows.row_count - 1, min(ROWS_MAX, rows.row_count)).astype(np.int64)
    chosen = dataclasses.replace(rows, chosen=rows.indices[spread])
    classes = found.data.class_names
    predictor = Predictor(found, Wanted(proba=bool(classes)))
    reader, answers = BatchReader(found.data, evaluation.batch_rows(found.data)), list[np.ndarray]()
    batches = _kept(_batches(chosen, reader), answers)
    predicted, *more = predictor.of(batches, len(spread))
    y = np.concatenate(answers)
    if classes:
        with np.errstate(divide="ignore"):
            losses = -np.log(more[0][np.arange(len(y)), y].astype(np.float64))
    else:
        scale = found.data.target_scale
        y, known = scale.unscaled(y), y.astype(np.float64)
        losses = ((scale.scaled(predicted) - known) ** 2).mean(axis=1)
    order = np.argsort(-np.nan_to_num(losses, nan=np.inf), kind="stable")[:WORST]
    return Tested(
        *(found.path, rows.row_count, classes, () if classes else target_names(found.data)),
        *(y, predicted, more[0] if more else None, losses),
        _worst(found, chosen, reader, order, spread),
    )


def _batches(rows: Rows, reader: BatchReader) -> Iterator[Batch]:
    """Each lasts until the next."""
    size = evaluation.rows_of_call(reader)
    return (reader.read(read) for read in reads_in_order(rows, 0, rows.row_count, size))


def _kept(batches: Iterator[Batch], answers: list[np.ndarray]) -> Iterator[Batch]:
    """The same batches, whose true answers are added to a list."""
    for batch in batches:
        answers.append(batch.y.copy())
        yield batch


def _worst(
    found: Trained, rows: Rows, reader: BatchReader, order: np.ndarray, spread: np.ndarray
) -> list[WorstRow]:
    """Rows at places ``order`` of ``rows``, read once more."""
    made: dict[int, WorstRow] = {}
    for place in sorted(order.tolist()):
        one = dataclasses.replace(rows, chosen=rows.indices[place : place + 1])
        (batch,) = _batches(one, reader)
        picture, cells = _seen(found, batch)
        made[place] = WorstRow(int(spread[place]), place, picture, cells)
    return [made[place] for place in order.tolist()]


def _seen(found: Trained, batch: Batch) -> tuple[np.ndarray | None, list[tuple[str, str]]]:
    """What a row looks like: an image, or its first columns."""
    data = found.data
    raw = {
        name: raw_numbers(data, name, values) if data.inputs[name].kind == "numbers" else values
        for name, values in batch.inputs.items()
    }
    flat = {name: np.asarray(values).reshape(1, -1) for name, values in raw.items()}
    name, spec = next(iter(data.inputs.items()))
    shape = spec.shape
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, _COLOURS))
    if spec.kind == "numbers" and is_image and min(shape[:2]) > 1:
        picture = flat[name].reshape(shape).astype(np.float64)
        return picture[..., 0] if picture.shape[2:] == (1,) else picture, []
    if not has_columns(data):
        return None, []
    columns = columns_of(data)[:_COLUMNS]
    return None, [(c.name, c.text(flat[c.input][0, list(c.features)])) for c in columns]
