"""Loss and scores on rows that were not trained on."""

from collections.abc import Iterator

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.chunks import share
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.data.rows import Rows
from lepton_mpi.models.model import Model
from lepton_mpi.tasks.ranking import Ranked, twice_ordered
from lepton_mpi.tasks.task import Figures, Task
from lepton_mpi.vectors import Views
from lepton_mpi.world.world import World

# Rows of one call: enough for products to run at full speed; fewer where rows are long, since a batch takes memory.
_BATCH_ROWS_MAX, _BATCH_ROWS_MIN, _BATCH_BYTES = 256, 8, 4 << 20


def batch_rows(data: DataSet) -> int:
    """Rows that a reader should have room for."""
    return min(_BATCH_ROWS_MAX, max(_BATCH_ROWS_MIN, _BATCH_BYTES // data.batch_row_bytes))


def rows_of_call(reader: BatchReader) -> int:
    """Rows that are evaluated in one call."""
    return min(_BATCH_ROWS_MAX, reader.rows_max)


def evaluate(
    model: Model, parameters: Views, rows: Rows, task: Task, reader: BatchReader, world: World
) -> Figures:
    """Figures of ``model`` on ``rows``, each row counted once, each rank its part. Collective.

    Parameters
    ----------
    task
        Says what is counted, and what the figures are.
    reader
        Its ``rows_max`` rows, but no more than 256, are evaluated in one call.

    Returns
    -------
    dict
        ``Task.figures``. Empty if the model cannot evaluate or there is nothing that counts.
    """
    if not model.evaluates or rows.row_count == 0:
        return {}
    world.clock.enter("evaluation")
    sums, loss, weight = task.new_sums(), 0.0, 0
    predicted = task.room_for(rows_of_call(reader))
    ranking = None
    if isinstance(task, Ranked) and task.ranks_rows and model.predicts:
        ranking = Ranking(task, task.outputs_for(len(predicted)))
    for batch in _own_batches(rows, reader, world):
        own = predicted[: len(batch.y)]
        if ranking:
            loss += ranking.evaluate(model, parameters, batch, own)
        else:
            loss += model.evaluate(parameters, batch, own)
        weight += task.weight(batch)
        task.add(sums, batch, own)
    # One message: whole numbers below 2**53 are exact as float64.
    totals = world.sum(np.concatenate([[loss, weight], sums.reshape(-1)]))
    loss, weight = float(totals[0]), int(totals[1])
    if not weight:
        return {}
    figures = task.figures(totals[2:].reshape(sums.shape).astype(sums.dtype), loss, weight)
    return figures | (ranking.figures(world) if ranking else {})


class Ranking:
    """Scores of this rank's rows, which stay here: the others' pass by, one rank's after another's.

    Parameters
    ----------
    task : Ranked
    outputs : shape (rows, outputs)
        Memory for the predictions of a batch.
    """

    def __init__(self, task: Ranked, outputs: np.ndarray) -> None:
        self._task, self._outputs = task, outputs
        self._low = [np.zeros(0, outputs.dtype)]
        self._high = [np.zeros(0, outputs.dtype)]

    def evaluate(
        self, model: Model, parameters: Views, batch: Batch, predicted: np.ndarray
    ) -> float:
        """``model.evaluate``, and the scores of the batch's rows."""
        own = self._outputs[: len(batch.y)]
        loss = model.evaluate_and_predict(parameters, batch, predicted, own)
        low, high = self._task.split_scores(batch, own)
        self._low.append(low.copy())
        self._high.append(high.copy())
        return loss

    def figures(self, world: World) -> Figures:
        """Exact, of the rows of all ranks. Collective."""
        low, high = np.sort(np.concatenate(self._low)), np.sort(np.concatenate(self._high))
        is_finite = np.isfinite(low).all() and np.isfinite(high).all()
        counts = world.sum(np.array([len(low), len(high), not is_finite], np.int64))
        pairs = int(counts[0]) * int(counts[1])
        if not pairs or counts[2]:
            return self._task.ranking_figures(None)
        ordered = 0
        for rank in range(world.size):
            ordered += twice_ordered(world.array_of(rank, low), high)
        return self._task.ranking_figures(
            int(world.sum(np.array([ordered], np.int64))[0]) / (2 * pairs)
        )


def _own_batches(rows: Rows, reader: BatchReader, world: World) -> Iterator[Batch]:
    """This rank's part of the rows; a batch lasts until the next."""
    first, last = share(0, rows.row_count, world.size, world.rank)
    for read in reads_in_order(rows, first, last, rows_of_call(reader)):
        world.clock.enter("evaluation")  # progress, for the time limit
        yield reader.read(read)
