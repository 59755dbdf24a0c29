"""The loss of every one of a run's first 100 steps against that of torch on the same batches."""

import json

import h5py
import numpy as np
import pytest

from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.parallel.together import together
from tests.parallel.torch_losses import BATCH, EPOCHS, FILE, RUNS, STEPS_PER_EPOCH, Run


class Recorded:
    """A model that keeps the loss of each of its batches."""

    is_trusted = True

    def __init__(self, model) -> None:
        self.shapes, self.losses, self._model = model.shapes, [], model

    def loss_and_gradient(self, parameters, batch, gradient, sync):
        loss, correct = self._model.loss_and_gradient(parameters, batch, gradient, sync)
        self.losses.append(loss)
        return loss, correct


@pytest.fixture
def rows_file(world, folder):
    """Writes a case's rows; collective."""

    def write(run: Run):
        path = folder / "rows.h5"
        with world.agreeing():
            if world.rank == 0:
                with h5py.File(path, "w") as file:
                    file["x"], file["y"] = run.case.rows(BATCH * STEPS_PER_EPOCH)
        return path

    return write


def _losses(world, run: Run, path, allreduce: str) -> np.ndarray:
    """Mean loss of every step of the engine's own training. Collective."""
    config = Config(
        data=str(path),
        global_batch=BATCH,
        epochs=EPOCHS,
        optimizer="sgd" if run.optimizer == "momentum" else run.optimizer,
        momentum=0.9,
        learning_rate=run.learning_rate,
        dtype=run.dtype,
        allreduce=allreduce,
        validation_split=0.0,
        test_split=0.0,
        progress="none",
    )
    widths = run.case.widths
    model = Recorded(Logistic(*widths) if run.case.is_logistic else Mlp(widths))
    train(config, world, model)
    # A rank has the same number of micro-batches at every step, or none.
    mine = np.array(model.losses).reshape(EPOCHS * STEPS_PER_EPOCH, -1).sum(axis=1)
    return world.sum(mine) / BATCH


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("allreduce", ["auto", "mpi"])
@pytest.mark.parametrize("run", RUNS, ids=str)
def test_the_loss_curve_is_that_of_torch(world, rows_file, run, allreduce):
    """Each of 100 losses before its step; in float64 far closer than float32 can be."""
    expected = json.loads(FILE.read_text("utf-8"))["losses"][str(run)]
    losses = _losses(world, run, rows_file(run), allreduce)
    with together(world):
        assert losses[-1] < 0.8 * losses[0], "hardly anything was learnt"
        tolerance = {"float32": 1e-4, "float64": 1e-12}[run.dtype]
        np.testing.assert_allclose(losses, expected, rtol=tolerance)
