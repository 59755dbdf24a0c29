"""Weights after whole runs have the bits of a training written out here, in which no rank occurs."""

import math
import platform
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.commands import evaluate
from lepton_mpi.errors import DataError
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from lepton_mpi.tasks.targets import Targets
from tests.parallel.alone import trained_alone
from tests.parallel.together import check, refused, together
from tests.serial.command_line import parse
from tests.split_runs import RUNS

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("name", RUNS)
def test_weights_have_the_bits_of_a_training_without_ranks(world, name):
    """Whatever the number of ranks: these tests run on 1, 2, 3 and 4."""
    config = Config(**RUNS[name])
    digest = train(config, world)["weights_digest"]
    with together(world):
        assert digest == trained_alone(config)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="exp and log are the C library's: README's digest is of x86-64 and glibc",
)
def test_the_weights_are_those_that_the_readme_shows(world):
    """On any number of ranks, and on any processor: vectors of 32 and of 64 bytes give the same bits."""
    digest = train(parse("--progress", "none"), world)["weights_digest"]
    with together(world):
        shown = re.search(r"^weights +(\w+) \(BLAKE2b\)$", README.read_text(), re.MULTILINE)[1]
        assert digest == shown


def test_clipping_and_dropout_change_the_weights(world):
    """Otherwise the runs would show nothing of them."""
    options = RUNS["dropout, clipped, adam"]
    digests = {
        train(Config(**options | change), world)["weights_digest"]
        for change in ({}, {"dropout": 0.0}, {"clip_norm": 0.0})
    }
    check(world, len(digests) == 3)


# -- regression --------------------------------------------------------------------------------------


@pytest.fixture
def plane(world, folder):
    """A file of 230 rows, whose two targets are linear in four features: the first far from 0."""
    path = folder / "plane.h5"
    with world.agreeing():
        if world.rank == 0:
            generator = np.random.default_rng(0)
            x = generator.standard_normal((230, 4))
            y = x @ generator.standard_normal((4, 2)) + [9, 0]
            with h5py.File(path, "w") as file:
                file["train/x"], file["train/y"] = x[:200], y[:200]
                file["test/x"], file["test/y"] = x[200:], y[200:]
    return path


def _regression(plane, **options) -> Config:
    common = {"data": str(plane), "hidden": (), "learning_rate": 0.5, "progress": "none"}
    return Config(**common | {"dtype": "float64", "validation_split": 0.0} | options)


@pytest.mark.parametrize("loss", ["auto", "mse", "huber"])
def test_a_plane_is_found(world, plane, loss):
    """Linear regression: without a hidden layer nothing is left to explain."""
    schedule = {"schedule": "cosine", "epochs": 40}
    result = train(_regression(plane, loss=loss, **schedule), world)
    with together(world):
        assert result["test_r2"] > 0.999
        assert "test_accuracy" not in result and "macro_recall" not in result


def test_figures_of_a_regression_are_those_of_all_rows(world, plane):
    """Reduced over the ranks they are what NumPy computes on the whole split; the loss is torch's mean."""
    result = train(_regression(plane, epochs=2, loss="huber", huber_delta=2.0), world)
    w, b = result["parameters"]["layer0/weight"], result["parameters"]["layer0/bias"]
    with together(world):
        with h5py.File(plane) as file:
            x, y = file["test/x"][()], file["test/y"][()]
        e = np.abs(x @ w + b - y)
        expected = {
            "mse": (e**2).mean(),
            "rmse": math.sqrt((e**2).mean()),
            "mae": e.mean(),
            "r2": 1 - ((e**2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)).mean(),
            "loss": np.where(e < 2, e**2 / 2, 2 * (e - 1)).mean(),
        }
        for name, value in expected.items():
            assert result[f"test_{name}"] == pytest.approx(value, rel=1e-9), name


def test_the_evaluate_command_prints_the_figures_of_a_regression(world, plane, folder, capsys):
    result = train(_regression(plane, epochs=1, checkpoint=str(folder / "runs")), world)
    path = Path(world.comm.bcast(result["checkpoint"]))
    capsys.readouterr()
    evaluate.evaluate_checkpoint(path, None, "test", world)
    printed = capsys.readouterr().out
    with together(world):
        figures = {name: result[f"test_{name}"] for name in ("mse", "rmse", "mae", "r2", "loss")}
        expected = f"test of plane.h5: {Targets(np.zeros(2)).sentence(figures)}\n"
        assert printed == (expected if world.rank == 0 else "")


def test_a_checkpoint_of_classes_is_not_evaluated_on_targets(world, plane, folder):
    path = train(Config(epochs=1, progress="none", checkpoint=str(folder / "runs")), world)[
        "checkpoint"
    ]
    path = Path(world.comm.bcast(path))
    with refused(world, DataError, "train/y", "expected one 1, at the class"):
        evaluate.evaluate_checkpoint(path, str(plane), "test", world)


class Plane:
    """Linear regression as a user would write it; it counts its calls."""

    is_trusted = True

    def __init__(self, feature_shape, output_count):
        self.shapes = {"w": (*feature_shape, output_count), "b": (output_count,)}
        self.masks = []

    def loss_and_gradient(self, parameters, batch, gradient):
        assert batch.rows.shape == (len(batch.x),)
        self.masks.append((batch.draw, *batch.rows.tolist()))
        error = batch.x @ parameters["w"] + parameters["b"] - batch.y
        gradient["w"][:] = batch.x.T @ error
        gradient["b"][:] = error.sum(axis=0)
        return 0.5 * (error**2).sum()

    def evaluate(self, parameters, batch, predicted):
        predicted[:] = batch.x @ parameters["w"] + parameters["b"]
        return 0.5 * ((predicted - batch.y) ** 2).sum()


def test_a_users_own_model_learns_targets(world, plane):
    """It is given their number, sees every row with its number once an epoch, and one draw a step."""
    model = Plane((4,), 2)
    result = train(_regression(plane, epochs=3), world, model)
    calls = [call for calls in world.comm.allgather(model.masks) for call in calls]
    with together(world):
        assert result["test_loss"] == pytest.approx(result["test_mse"])  # of two targets
        assert sorted(row for _, *rows in calls for row in rows) == sorted([*range(200)] * 3)
        assert len({draw for draw, *_ in calls}) == 3 * 4, "as many draws as steps"
