"""Permutation importance: what a model's score on rows loses when one column is dealt to the rows anew.

    importance = score(rows) - mean over repeats of score(rows, this column permuted over all of them)

The features that one column has become are permuted together. A permutation is a hash of seed, column and repeat. A rank evaluates
whole sets of rows, in one order and in batches of one size, and each set is one rank's: figures are the same bits on any number.
Source: Breiman, "Random forests", Machine Learning 45, 2001; as scikit-learn's ``permutation_importance``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.chunks import share
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.data.rows import Rows
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.interpretation.columns import Column
from lepton_mpi.kernels import counter_random
from lepton_mpi.models.model import Model
from lepton_mpi.run.evaluation import Ranking, batch_rows
from lepton_mpi.run.trained import Trained
from lepton_mpi.tasks.ranking import Ranked
from lepton_mpi.tasks.registry import make_task
from lepton_mpi.tasks.task import Task
from lepton_mpi.vectors import Views
from lepton_mpi.wording import did_you_mean
from lepton_mpi.world.alone import Alone
from lepton_mpi.world.rank_group import RankGroup

# Stream of random numbers.
_PERMUTATIONS = 1 << 21


@dataclass(frozen=True)
class Importance:
    """Of one column.

    Attributes
    ----------
    name : str
    drops : float64, shape (repeats,)
        By how much the score is worse; below 0 where it is better.
    """

    name: str
    drops: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.drops.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation over the repeats, of n."""
        return float(self.drops.std())


@dataclass(frozen=True)
class Importances:
    """Of all columns, the largest first.

    Attributes
    ----------
    score : str
        Name of the figure.
    base : float
        On the rows as they are.
    row_count, repeats : int
    columns : list of Importance
    """

    score: str
    base: float
    row_count: int
    repeats: int
    columns: list[Importance]


def permuted(seed: int, column: int, repeat: int, rows: int) -> np.ndarray:
    """Where each row's cell comes from, int64, shape (rows,)."""
    key = counter_random.key_of(seed, _PERMUTATIONS)
    for word in (column, repeat):
        key = counter_random.chain(key, word)
    return counter_random.shuffled(key, rows)


def measure(
    found: Trained,
    rows: Rows,
    columns: Sequence[Column],
    world: RankGroup,
    score: str | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> Importances:
    """Importance of every column, the ranks sharing the work. Collective. Raises ConfigurationError.

    Parameters
    ----------
    rows
        Of a split: one at least.
    score
        A figure of the task that compares; None: the task's own, such as accuracy.
    """
    world.clock.enter("evaluation")
    with world.agreeing():
        task = make_task(found.data.y_kind, found.data)
        score = _checked_score(task, score)
        sets = _Sets(found, rows, task, score, world)
    # The first one is the rows as they are; those of a column follow each other, so that a rank reads few columns.
    jobs = [(-1, 0), *((c, r) for c in range(len(columns)) for r in range(repeats))]
    scores = np.zeros(len(jobs))
    for number in range(*share(0, len(jobs), world.size, world.rank)):
        column, repeat = jobs[number]
        if column < 0:
            scores[number] = sets.score()
        else:
            order = permuted(seed, column, repeat, rows.row_count)
            scores[number] = sets.score(columns[column], order)
    scores = world.sum(scores)  # of each one number and zeros, which is exact
    base, of_columns = float(scores[0]), scores[1:].reshape(len(columns), repeats)
    drops = base - of_columns if task.better[score] == "higher" else of_columns - base
    each = [Importance(column.name, own) for column, own in zip(columns, drops, strict=True)]
    each.sort(key=lambda one: -one.mean)
    return Importances(score, base, rows.row_count, repeats, each)


def _checked_score(task: Task, score: str | None) -> str:
    if score is not None and score not in task.better:
        raise ConfigurationError(
            f"--score: expected one of {', '.join(task.better)}, got {score!r}{did_you_mean(score, list(task.better))}"
        )
    return score or task.score


class _Sets:
    """The rows, evaluated as they are or with a column from other rows."""

    def __init__(
        self, found: Trained, rows: Rows, task: Task, score: str, world: RankGroup
    ) -> None:
        self._model: Model = found.model
        self._parameters: Views = found.parameters
        self._rows, self._task, self._score, self._world = rows, task, score, world
        count = batch_rows(found.data)
        self._reader, self._predicted = BatchReader(found.data, count), task.room_for(count)
        self._column: tuple[Column, np.ndarray] | None = None

    def score(self, column: Column | None = None, order: np.ndarray | None = None) -> float:
        """The figure, NaN if there is none such as the AUC of rows of one class."""
        task, start, loss, weight = self._task, 0, 0.0, 0
        cells = None if column is None else self._cells(column)
        sums, ranked = task.new_sums(), self._ranking()
        for batch in self._batches():
            if column is not None and cells is not None and order is not None:
                part = order[start : start + len(batch.y)]
                _rows_of(batch, column)[:, list(column.features)] = cells[part]
            start += len(batch.y)
            own = self._predicted[: len(batch.y)]
            if ranked:
                loss += ranked.evaluate(self._model, self._parameters, batch, own)
            else:
                loss += self._model.evaluate(self._parameters, batch, own)
            weight += task.weight(batch)
            task.add(sums, batch, own)
        figures = task.figures(sums, loss, weight) | (
            ranked.figures(Alone()) if ranked else {}  # type: ignore[arg-type]
        )
        value = figures[self._score]
        return float("nan") if value is None else float(value)

    def _ranking(self) -> Ranking | None:
        """Only for a figure that it has."""
        task = self._task
        if not isinstance(task, Ranked) or not task.ranks_rows or not self._model.predicts:
            return None
        if self._score not in task.ranking_figures(None):
            return None
        return Ranking(task, task.outputs_for(self._reader.rows_max))

    def _cells(self, column: Column) -> np.ndarray:
        """Of all rows, shape (rows, features)."""
        if self._column is None or self._column[0] is not column:
            chosen = list(column.features)
            parts = [_rows_of(batch, column)[:, chosen] for batch in self._batches()]
            self._column = column, np.concatenate(parts)
        return self._column[1]

    def _batches(self) -> Iterator[Batch]:
        """All rows in order; a batch may be written to, and lasts until the next."""
        for read in reads_in_order(self._rows, 0, self._rows.row_count, self._reader.rows_max):
            self._world.clock.enter("evaluation")  # progress, for the time limit
            yield self._reader.read(read)


def _rows_of(batch: Batch, column: Column) -> np.ndarray:
    """The input that a column is in, (rows, elements): the batch's own memory."""
    rows = batch.x if batch.named is None else batch.named[column.input]
    return rows.reshape(len(rows), -1)
