"""Loss and scores on rows that were not trained on, and the command that does it for a checkpoint."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data import loader, order
from lepton_mpi.data.batches import BatchReader, Rows
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.models.model import Model
from lepton_mpi.models.registry import make_model
from lepton_mpi.run import checkpoint
from lepton_mpi.tasks.registry import TASKS, make_task
from lepton_mpi.tasks.task import Figures, Task
from lepton_mpi.vectors import Layout, Views
from lepton_mpi.wording import one_line
from lepton_mpi.world.world import World

# Rows of one call: enough for products to run at full speed; fewer where rows are long, since a batch takes memory.
_BATCH_ROWS_MAX, _BATCH_ROWS_MIN, _BATCH_BYTES = 256, 8, 4 << 20


def batch_rows(data: loader.DataSet) -> int:
    """Rows that a reader should have room for."""
    row_bytes = data.normalisation[0].nbytes
    return min(_BATCH_ROWS_MAX, max(_BATCH_ROWS_MIN, _BATCH_BYTES // row_bytes))


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
    predicted = task.room_for(min(_BATCH_ROWS_MAX, reader.rows_max))
    for batch in _own_batches(rows, reader, world):
        own = predicted[: len(batch.y)]
        loss += model.evaluate(parameters, batch, own)
        weight += task.weight(batch)
        task.add(sums, batch, own)
    # One message: whole numbers below 2**53 are exact as float64.
    totals = world.sum(np.concatenate([[loss, weight], sums.reshape(-1)]))
    loss, weight = float(totals[0]), int(totals[1])
    return (
        task.figures(totals[2:].reshape(sums.shape).astype(sums.dtype), loss, weight)
        if weight
        else {}
    )


def _own_batches(rows: Rows, reader: BatchReader, world: World) -> Iterator[Batch]:
    """This rank's part of the rows; a batch lasts until the next."""
    first, last = order.share(0, rows.row_count, world.size, world.rank)
    for read in reads_in_order(rows, first, last, min(_BATCH_ROWS_MAX, reader.rows_max)):
        world.clock.enter("evaluation")  # progress, for the time limit
        yield Batch(*reader.read(read))


def evaluate_checkpoint(
    path: Path, data_name: str | None, split: str, world: World, model_name: str | None = None
) -> None:
    """Load a checkpoint and print its figures on one split of its own data, or of another file. Collective.

    ``model_name`` is needed where the checkpoint names a program: one that a file names is not run.
    """
    with world.agreeing():
        if world.local_rank == 0:
            checkpoint.verify(path)
    with world.agreeing():
        saved = checkpoint.read(path)
        config = checkpoint.configuration(saved.attributes, path)
        # Older checkpoints do not say, and have classes.
        y_kind = saved.attributes.get("y_kind", "classes")
        if y_kind not in TASKS.built_in or config.y_kind not in ("auto", y_kind):
            raise DataError(
                f"{path}: attribute y_kind: expected {', '.join(TASKS.built_in)} as loss {config.loss} has them, got "
                f"{one_line(y_kind)}"
            )
        if model_name is None and config.model.rpartition(":")[0].endswith(".py"):
            raise DataError(
                f"{path}: trained a model of your own: expected --model {one_line(config.model)}, got none; "
                "a file that names a program is not reason enough to run it"
            )
    dtype = np.dtype(config.dtype)
    data = loader.load(data_name or config.data, dtype, config.held_out, config.seed, world, y_kind)
    with world.agreeing():
        model = make_model(model_name or config.model, config.for_model(threads=1), data)
        _check_fits(path, saved, Layout(model.shapes), data, dtype)
    parameters = saved.layout.views(saved.parameters)
    # The checkpoint was trained with its own normalisation, whatever the file says.
    data = loader.renormalised(data, tuple(values.astype(dtype) for values in saved.normalisation))
    reader = BatchReader(data, batch_rows(data))
    task = make_task(data.y_kind, data)
    figures = evaluate(model, parameters, data.splits[split], task, reader, world)
    with world.agreeing():
        if not figures:
            raise DataError(
                f"{data.paths[0]}: no {split} rows to evaluate on, or a model that cannot evaluate"
            )
    if world.rank == 0:
        print(f"{split} of {data.name}: {task.sentence(figures)}")
        for line in task.table(figures):
            print("  " + line)


def _check_fits(path: Path, saved, layout: Layout, data: loader.DataSet, dtype: np.dtype) -> None:
    """Whether the checkpoint's arrays are those of the model and of the rows; kernels check nothing."""
    if layout != saved.layout:
        raise ConfigurationError(
            f"{data.paths[0]}: rows of shape {data.feature_shape} and {data.outputs_text} do not fit the "
            f"checkpoint's model, {one_line(saved.attributes['model'])}"
        )
    if saved.parameters.dtype != dtype:
        raise DataError(f"{path}: expected parameters of {dtype}, got {saved.parameters.dtype}")
    if saved.normalisation[0].size != prod(data.feature_shape):
        raise DataError(
            f"{path}: expected a normalisation of {prod(data.feature_shape)} features, got "
            f"{saved.normalisation[0].size}"
        )
