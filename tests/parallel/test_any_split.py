"""Weights after whole runs have the bits of a training written out here, in which no rank occurs."""

import math
import platform
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.commands import evaluate
from lepton_mpi.data import augmentation, order
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.loader import Wanted, load
from lepton_mpi.data.order import MicroBatches, draws
from lepton_mpi.errors import DataError
from lepton_mpi.layers.initial import initialise_uniform
from lepton_mpi.models.registry import make_model
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.tasks.targets import Targets
from lepton_mpi.vectors import Layout
from tests import reference
from tests.parallel.together import check, refused, together
from tests.serial.command_line import parse
from tests.serial.data_files import OneRank
from tests.split_runs import RUNS

README = Path(__file__).parents[2] / "README.md"


def _tree_sum(vectors: list[np.ndarray]) -> np.ndarray:
    """Neighbours are added in pairs, level by level; one without a neighbour goes up unchanged."""
    while len(vectors) > 1:
        pairs = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        vectors = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return vectors[0]


def _trained_alone(config: Config) -> str:
    """Digest of the weights after a training in this process alone."""
    dtype = np.dtype(config.dtype)
    data = load(config.data, Wanted(dtype, config.held_out, config.seed, config.y_kind), OneRank())
    model = make_model(config.model, config.for_model(threads=1), data)
    layout = Layout(model.shapes)
    parameters = np.zeros(layout.size, dtype)
    initialise_uniform(layout.views(parameters), config.seed)
    settings = Settings(config.optimizer, lambda step: config.learning_rate, config.momentum)
    state = np.zeros((len(rule_of(settings).state), layout.size), dtype)
    optimizer = Optimizer(settings, layout, dtype, state)
    micro_rows = config.micro_batch or -(-config.global_batch // 8)
    micro_batches = MicroBatches(config.global_batch, micro_rows)
    rows, step = data.splits["train"], 0
    augment = augmentation.parse(config.augment, data.augmented_shape)
    reader = BatchReader(data, micro_batches.rows, augment)
    for epoch in range(1, config.epochs + 1):
        in_order = rows.indices[order.epoch_order(rows.row_count, config.seed, epoch)]
        for start, stop in reference.step_bounds(rows.row_count, config.global_batch):
            gradients = []
            for number in range(micro_batches.count):
                gradients.append(np.zeros(layout.size, dtype))
                own = in_order[slice(*micro_batches.bounds(number, start, stop))]
                if own.size:
                    draw = draws(config.seed, step, 1)[0]
                    batch = reader.read_for_training(rows.read_of(own), draw)
                    views = layout.views(parameters), layout.views(gradients[-1])
                    model.loss_and_gradient(views[0], batch, views[1], NO_SYNC)
            gradient, scale = _tree_sum(gradients), 1.0 / (stop - start)
            if config.clip_norm:
                norm = ReplicatedNorm(gradient).compute()
                scale = clipped_scale(scale, norm, config.clip_norm)
            step += 1
            optimizer.begin_step(step, scale)
            optimizer.update(parameters, gradient, 0, layout.size)
    return layout.digest(parameters)


@pytest.mark.parametrize("name", RUNS)
def test_weights_have_the_bits_of_a_training_without_ranks(world, name):
    """Whatever the number of ranks: these tests run on 1, 2, 3 and 4."""
    config = Config(**RUNS[name])
    digest = train(config, world)["weights_digest"]
    with together(world):
        assert digest == _trained_alone(config)


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
    with refused(world, DataError, "train/y", "expected one 1, at the class", "float64"):
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
