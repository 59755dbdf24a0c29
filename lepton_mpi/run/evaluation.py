"""Loss and scores on rows that were not trained on, and the command that does it for a checkpoint."""

import dataclasses
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data import loader, order
from lepton_mpi.data.batches import BatchReader, Rows
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.models.registry import make_model
from lepton_mpi.run import checkpoint
from lepton_mpi.tasks import metrics
from lepton_mpi.vectors import Layout
from lepton_mpi.wording import one_line
from lepton_mpi.world.world import World

# Rows of one call: enough for products to run at full speed; fewer where rows are long, since a batch takes memory.
_BATCH_ROWS_MAX, _BATCH_ROWS_MIN, _BATCH_BYTES = 256, 8, 4 << 20


def batch_rows(data: loader.DataSet) -> int:
    """Rows that a reader should have room for."""
    row_bytes = data.normalisation[0].nbytes
    return min(_BATCH_ROWS_MAX, max(_BATCH_ROWS_MIN, _BATCH_BYTES // row_bytes))


def evaluate(
    model: Any,
    parameters: dict,
    rows: Rows,
    class_names: tuple[str, ...],
    reader: BatchReader,
    world: World,
) -> dict[str, Any]:
    """Figures of ``model`` on ``rows``, each row counted once, each rank its part. Collective.

    Parameters
    ----------
    reader
        Its ``rows_max`` rows, but no more than 256, are evaluated in one call.
    class_names
        Of the classes of the rows; empty for rows with targets.

    Returns
    -------
    dict
        ``loss`` (mean over rows); with classes ``accuracy``, ``macro_precision``, ``macro_recall``, ``macro_f1``, and
        ``classes``, a list of dicts with name, precision, recall and f1; with targets ``mse``, ``rmse``, ``mae``
        and ``r2``. Empty if the model cannot evaluate or there are no rows.
    """
    if not hasattr(model, "evaluate") or rows.row_count == 0:
        return {}
    world.clock.enter("evaluation")
    batches = _own_batches(rows, reader, world)
    if class_names:
        loss, confusion = _count_classes(model, parameters, batches, len(class_names))
        figures = _class_figures(metrics.scores(world.sum(confusion)), class_names)
    else:
        loss, sums = _add_targets(model, parameters, batches, rows)
        figures = metrics.regression_scores(world.sum(sums), rows.row_count)
    return {"loss": float(world.sum(loss)[0]) / rows.row_count, **figures}


def _own_batches(rows: Rows, reader: BatchReader, world: World) -> Iterator[Batch]:
    """This rank's part of the rows; a batch lasts until the next."""
    first, last = order.share(0, rows.row_count, world.size, world.rank)
    for read in reads_in_order(rows, first, last, min(_BATCH_ROWS_MAX, reader.rows_max)):
        world.clock.enter("evaluation")  # progress, for the time limit
        yield Batch(*reader.read(read))


def _count_classes(model, parameters, batches, class_count) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss, shape (1,), and confusion matrix."""
    confusion = np.zeros((class_count, class_count), np.int64)
    predicted, loss = np.empty(_BATCH_ROWS_MAX, np.int32), np.zeros(1)
    for batch in batches:
        loss += model.evaluate(parameters, batch, predicted[: len(batch.y)])
        metrics.count_confusion(confusion, batch.y, predicted[: len(batch.y)])
    return loss, confusion


def _add_targets(model, parameters, batches, rows) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss, shape (1,), and the sums of ``metrics.add_errors``."""
    origin, sums = rows.y[rows.numbers(0, 1)[0]], np.zeros((4, rows.y.shape[1]))
    predicted, loss = np.empty((_BATCH_ROWS_MAX, rows.y.shape[1]), rows.y.dtype), np.zeros(1)
    for batch in batches:
        loss += model.evaluate(parameters, batch, predicted[: len(batch.y)])
        metrics.add_errors(sums, origin, batch.y, predicted[: len(batch.y)])
    return loss, sums


def _class_figures(scores: metrics.Scores, class_names: tuple[str, ...]) -> dict[str, Any]:
    per_class = zip(class_names, scores.precision, scores.recall, scores.f1, strict=True)
    return {
        "accuracy": scores.accuracy,
        **{f"macro_{name}": value for name, value in scores.macro.items()},
        "classes": [
            {"name": n, "precision": float(p), "recall": float(r), "f1": float(f)}
            for n, p, r, f in per_class
        ],
    }


def sentence(figures: dict[str, Any]) -> str:
    """The figures in one line."""
    names = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "mse", "rmse", "mae", "r2")
    shown = [name for name in (*names, "loss") if name in figures]
    return ", ".join(f"{name.replace('_', ' ')} {figures[name]:.4f}" for name in shown)


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
        if y_kind not in ("classes", "targets") or config.y_kind not in ("auto", y_kind):
            raise DataError(
                f"{path}: attribute y_kind: expected classes or targets as loss {config.loss} has them, got "
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
        model = make_model(dataclasses.replace(config, model=model_name or config.model), data)
        _check_fits(path, saved, Layout(model.shapes), data, dtype)
    parameters = saved.layout.views(saved.parameters)
    # The checkpoint was trained with its own normalisation, whatever the file says.
    data = loader.renormalised(data, tuple(values.astype(dtype) for values in saved.normalisation))
    reader = BatchReader(data, batch_rows(data))
    figures = evaluate(model, parameters, data.splits[split], data.class_names, reader, world)
    with world.agreeing():
        if not figures:
            raise DataError(
                f"{data.paths[0]}: no {split} rows to evaluate on, or a model that cannot evaluate"
            )
    if world.rank == 0:
        print(f"{split} of {data.name}: {sentence(figures)}")
        for values in figures.get("classes", []):
            print(
                f"  {values['name']:<20} precision {values['precision']:.4f}  recall {values['recall']:.4f}  f1 {values['f1']:.4f}"
            )


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
