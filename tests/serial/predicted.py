"""Calls of ``predict`` and ``evaluate`` in this process, and what they wrote."""

import csv
from pathlib import Path

import numpy as np

from lepton_mpi.data.batches import BatchReader
from lepton_mpi.prediction.request import Request
from lepton_mpi.prediction.streaming import predict
from lepton_mpi.run import evaluation
from lepton_mpi.run.trained import load_trained
from lepton_mpi.tasks.registry import make_task
from lepton_mpi.world.alone import Alone
from tests.serial.made_checkpoints import save_random
from tests.serial.raw_files import (
    prepare,
    write_csv,
)
from tests.serial.test_prepare_like import NAMES, WORDS, shop
from tests.serial.thread_ranks import on_ranks

OLD = Path(__file__).parents[1] / "checkpoints" / "digits-step-35.h5"


class Frame:
    """As little of a data frame as is needed."""

    def __init__(self, columns: dict):
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return self._columns[name]

    def __len__(self):
        return len(next(iter(self._columns.values())))


def run(checkpoint, *inputs, out, world=None, **more):
    """``predict`` in this process; returns the path."""
    asked = Request(
        checkpoint=str(checkpoint), inputs=tuple(map(str, inputs)), out=str(out), **more
    )
    predict(asked, world or Alone())
    return out


def run_on(ranks, *words, **given):
    """``run`` on threads as ranks."""
    on_ranks(ranks, lambda world: run(*words, world=world, **given))


def records(path):
    """The lines of a CSV file by column."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def floats(rows, *names):
    return np.array([[float(row[name]) for name in names] for row in rows])


def shop_checkpoint(folder, *words, **options):
    """A checkpoint of the shop's table, and the file that it was made for."""
    table = write_csv(folder / "shop.csv", shop(), *NAMES)
    prepare(table, folder / "shop.h5", *WORDS, *words)
    return save_random(folder / "runs", folder / "shop.h5", hidden=(7,), **options)


def evaluated(checkpoint, split="test"):
    """Figures of ``evaluate``, and the true answers."""
    found = load_trained(checkpoint, None, Alone())
    rows, task = found.data.splits[split], make_task(found.data.y_kind, found.data)
    reader = BatchReader(found.data, evaluation.batch_rows(found.data))
    figures = evaluation.evaluate(found.model, found.parameters, rows, task, reader, Alone())
    y = rows.y[rows.indices]
    if found.data.target_count:
        return figures, found.data.target_scale.unscaled(y)
    return figures, np.array(found.data.class_names)[y]
