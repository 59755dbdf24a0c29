"""Whole runs of ``train`` on all ranks: against a slow reference, on odd sizes, with models of a user's."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.collectives.choosing.trial import Trial
from lepton_mpi.commands import evaluate
from lepton_mpi.data import order
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.files import hdf5
from lepton_mpi.data.loader import Wanted, load
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError, RankError
from lepton_mpi.layers.initial import initialise_uniform
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.options.by_rule import EARLIER
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint, evaluation
from lepton_mpi.run.fit import train
from lepton_mpi.strategies import shared_parameters
from lepton_mpi.tasks.classes import Classes
from lepton_mpi.tasks.registry import make_task
from tests import reference
from tests.parallel.together import check, equal_everywhere, refused, together

FIGURES = ("accuracy", "loss", "macro_recall", "macro_precision", "macro_f1")


def _config(**options) -> Config:
    """The digits recipe, three quiet epochs."""
    quiet = {"progress": "none", "epochs": 3, "learning_rate": 0.003}
    return Config(**{**EARLIER, **quiet} | options)


def _copy(parameters: dict) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in parameters.items()}


def _check_close(world, parameters: dict, expected: dict, atol: float) -> None:
    with together(world):
        assert parameters.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(parameters[name], array, rtol=0, atol=atol, err_msg=name)


class Softmax:
    """As plain as a user's model can be: shapes, and a function that fills gradients; it counts its calls."""

    is_trusted = True

    def __init__(self, feature_shape, class_count):
        self.shapes = {"weight": (int(np.prod(feature_shape)), class_count), "bias": (class_count,)}
        self.row_counts = []

    def probabilities(self, parameters, batch):
        scores = batch.x.reshape(len(batch.x), -1) @ parameters["weight"] + parameters["bias"]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def loss_and_gradient(self, parameters, batch, gradient):
        p, rows = self.probabilities(parameters, batch), np.arange(len(batch.y))
        self.row_counts.append(len(rows))
        loss = -np.log(p[rows, batch.y]).sum()
        p[rows, batch.y] -= 1
        gradient["weight"][:] = batch.x.reshape(len(batch.x), -1).T @ p
        gradient["bias"][:] = p.sum(axis=0)
        return loss


class EvaluatedSoftmax(Softmax):
    """The same, and it can be evaluated."""

    def evaluate(self, parameters, batch, predicted):
        p = self.probabilities(parameters, batch)
        predicted[:] = p.argmax(axis=1)
        return -np.log(p[np.arange(len(batch.y)), batch.y]).sum()


@pytest.fixture
def few_rows(world, folder):
    """A file of 23 training rows in 3 classes, 5 validation and 4 test rows."""
    path = folder / "few.h5"
    with world.agreeing():
        if world.rank == 0:
            generator = np.random.default_rng(0)
            with h5py.File(path, "w") as file:
                for split, rows in (("train", 23), ("validation", 5), ("test", 4)):
                    y = np.arange(rows) % 3
                    file[f"{split}/x"] = generator.standard_normal((rows, 4)) + y[:, None]
                    file[f"{split}/y"] = y
    return path


# -- the result --------------------------------------------------------------------------------------


def test_digits_are_learnt_and_every_rank_ends_with_the_same_weights(world):
    result = train(_config(), world)
    equal_everywhere(world, result["weights_digest"])
    equal_everywhere(world, result["parameters"]["layer0/weight"].tobytes())
    with together(world):
        assert result["world_size"] == world.size
        assert result["test_accuracy"] > 0.9
        assert result["test_macro_recall"] > 0.9
        assert abs(sum(result["time_split"].values()) - 1) < 1e-9
        assert result["samples_per_second"] > 0


def test_the_same_run_twice_gives_the_same_digest(world):
    digests = [train(_config(epochs=1), world)["weights_digest"] for _ in range(2)]
    check(world, digests[0] == digests[1], str(digests))


def test_epochs_without_a_meeting_are_evaluated_as_the_last_one_left_it(world, folder):
    """54 steps of three epochs, after none of which one is due: two show what the run began with, the last its final meeting.

    Where a checkpoint is written workers meet, and the epoch shows it.
    """
    own = {"sync_every": 1000, "outer_rate": 1.0, "outer_momentum": 0.0, "across_epochs": True}
    more = {"data": ("digits",), "strategy": "diloco", "own": {"strategy": own}, "epochs": 3}
    ends, losses = [], []
    for number, saving in enumerate(({}, {"checkpoint": str(folder / "saved")})):
        path = folder / f"{number}.jsonl"
        ends.append(train(_config(metrics=str(path), **more, **saving), world))
        records = [json.loads(line) for line in path.read_text().splitlines()]
        losses.append([each["val_loss"] for each in records if each["event"] == "epoch"])
        equal_everywhere(world, ends[-1]["weights_digest"])
    with together(world):
        assert [end["meetings"] for end in ends] == [1, 3]
        assert losses[0][0] == losses[0][1] > 2 > 1 > losses[0][2]
        assert 2 > losses[1][0] > losses[1][1] > losses[1][2]
        assert all(end["test_accuracy"] > 0.85 for end in ends)


@pytest.mark.parametrize("data", ["digits", "breast_cancer"])
def test_rows_used_as_they_lie_give_the_digest_of_rows_gathered(world, data):
    """Bytes and floats, the latter normalised in memory."""

    digests = []
    for reads_in_place in (True, False):

        def model(shape, outputs, reads_in_place=reads_in_place):
            made = Mlp((math.prod(shape), 16, outputs))
            made.reads_in_place = reads_in_place
            return made

        digests.append(train(_config(data=data, epochs=2), world, model)["weights_digest"])
    check(world, digests[0] == digests[1], str(digests))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_the_ways_of_the_update_give_the_same_bits(world, monkeypatch, dtype, clip_norm):
    """Long and short blocks, in place and past the caches, of a number that ends in the middle of a cache line."""
    digests, tried = [], set()
    for number in range(4):

        class Always(Trial):
            """The same of the ways in every step."""

            def __init__(self, ways, number=number) -> None:
                super().__init__(ways)
                self.way = ways[number % len(ways)]
                tried.add(self.way)

            def next(self):
                return self.way

        monkeypatch.setattr(shared_parameters, "Trial", Always)
        config = _config(epochs=2, hidden=(37,), dtype=dtype, clip_norm=clip_norm)
        digests.append(train(config, world)["weights_digest"])
    check(world, len(set(digests)) == 1, str(digests))
    check(world, len(tried) > 1, str(tried))


def test_another_seed_gives_another_digest(world):
    digests = [train(_config(epochs=1, seed=seed), world)["weights_digest"] for seed in (1, 2)]
    check(world, digests[0] != digests[1], str(digests))


def _reference_training(config: Config) -> dict[str, np.ndarray]:
    """One process, float64, one row order, whole batches, no micro-batch and no rank anywhere."""
    with h5py.File(hdf5.EMBEDDED / "digits.h5") as file:
        shift, scale = file["normalisation/shift"][()], file["normalisation/scale"][()]
        x = ((file["train/x"][()] - shift) * scale).reshape(-1, 64)
        y = file["train/y"][()].astype(int)
    kept, _ = order.hold_out(len(y), config.validation_split, config.seed, "validation")
    shapes = {"layer0/weight": (64, 128), "layer0/bias": (128,)}
    shapes |= {"layer1/weight": (128, 10), "layer1/bias": (10,)}
    w = {name: np.zeros(shape) for name, shape in shapes.items()}
    initialise_uniform(w, config.seed)
    first = {name: np.zeros(shape) for name, shape in shapes.items()}
    second = {name: np.zeros(shape) for name, shape in shapes.items()}
    step = 0
    for epoch in range(1, config.epochs + 1):
        rows_in_order = kept[order.epoch_order(len(kept), config.seed, epoch)]
        for start in range(0, len(kept), config.global_batch):
            step += 1
            rows = rows_in_order[start : start + config.global_batch]
            hidden = np.maximum(x[rows] @ w["layer0/weight"] + w["layer0/bias"], 0)
            scores = hidden @ w["layer1/weight"] + w["layer1/bias"]
            reference.softmax_cross_entropy(scores, y[rows])  # scores become p - one hot
            below = np.where(hidden > 0, scores @ w["layer1/weight"].T, 0)
            gradients = {
                "layer0/weight": x[rows].T @ below,
                "layer0/bias": below.sum(axis=0),
                "layer1/weight": hidden.T @ scores,
                "layer1/bias": scores.sum(axis=0),
            }
            for name, gradient in gradients.items():
                mean = gradient / len(rows)
                first[name] = 0.9 * first[name] + 0.1 * mean
                second[name] = 0.999 * second[name] + 0.001 * mean**2
                corrected = first[name] / (1 - 0.9**step)
                root = np.sqrt(second[name] / (1 - 0.999**step))
                w[name] -= config.learning_rate * corrected / (root + 1e-8)
    return w


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_against_a_slow_reference(world, dtype):
    config = _config(epochs=1, dtype=dtype)
    result = train(config, world)
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    _check_close(world, result["parameters"], _reference_training(config), tolerance)


@pytest.mark.parametrize("allreduce", ["ring", "rabenseifner", "mpi", "mpi_persistent"])
def test_every_way_of_summing_gives_nearly_the_same_weights(world, allreduce):
    expected = _copy(train(_config(epochs=1), world)["parameters"])
    result = train(_config(epochs=1, allreduce=allreduce), world)
    _check_close(world, result["parameters"], expected, 1e-4)
    equal_everywhere(world, result["weights_digest"])


def test_two_level_gives_the_bits_of_auto(world):
    digests = [
        train(_config(epochs=1, allreduce=name), world)["weights_digest"]
        for name in ("auto", "two_level")
    ]
    check(world, digests[0] == digests[1])


def test_buckets_do_not_change_the_bits(world):
    digests = [
        train(_config(epochs=1, bucket_bytes=size), world)["weights_digest"]
        for size in (4 << 20, 4096, 1)
    ]
    check(world, len(set(digests)) == 1, str(digests))


# -- odd sizes ---------------------------------------------------------------------------------------


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("micro_batch", [0, 1, 2, 100])
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 23, 1000])
def test_batches_below_and_beside_the_number_of_ranks(world, few_rows, batch, micro_batch):
    config = _config(
        data=str(few_rows), global_batch=batch, micro_batch=micro_batch, dtype="float64", hidden=()
    )
    model = EvaluatedSoftmax((4,), 3)
    result = train(config, world, model)
    rows = world.comm.allreduce(sum(model.row_counts))
    equal_everywhere(world, result["weights_digest"])
    with together(world):
        assert rows == 3 * 23, "not every row exactly once an epoch"
        assert 0 not in model.row_counts, "the model was called without a row"
    # The built-in network without a hidden layer is the same model.
    built_in = train(config, world)["parameters"]
    renamed = {name.removeprefix("layer0/"): array for name, array in built_in.items()}
    _check_close(world, result["parameters"], renamed, 1e-9)


def test_validation_and_test_rows_are_counted_once(world, few_rows):
    result = train(_config(data=str(few_rows)), world)
    with together(world):
        assert result["test_accuracy"] * 4 == round(result["test_accuracy"] * 4)


# -- models of a user's ------------------------------------------------------------------------------


def test_a_model_without_evaluate(world):
    result = train(_config(allreduce="auto"), world, Softmax)
    equal_everywhere(world, result["weights_digest"])
    with together(world):
        assert "test_accuracy" not in result
        assert np.abs(result["parameters"]["weight"]).max() > 0


def test_a_model_with_evaluate(world):
    result = train(_config(epochs=20, learning_rate=0.01), world, EvaluatedSoftmax)
    equal_everywhere(world, result["weights_digest"])
    check(world, result["test_accuracy"] > 0.9, str(result["test_accuracy"]))


def test_a_model_object_and_its_class_do_the_same(world):
    by_class = train(_config(epochs=1), world, Softmax)["weights_digest"]
    by_object = train(_config(epochs=1), world, Softmax((8, 8), 10))["weights_digest"]
    check(world, by_class == by_object)


def test_a_model_of_ones_own_initialisation(world):
    class Initialised(Softmax):
        def initialise(self, parameters, seed):
            for array in parameters.values():
                array[...] = 1000 + seed

    result = train(_config(epochs=1, seed=3), world, Initialised)
    check(world, abs(result["parameters"]["bias"].mean() - 1003) < 1)


# -- checkpoints -------------------------------------------------------------------------------------


def test_a_checkpoint_evaluates_to_the_same_numbers(world, folder):
    result = train(_config(epochs=2, checkpoint=str(folder / "runs")), world)
    path = world.comm.bcast(result["checkpoint"])
    with world.agreeing():
        saved = checkpoint.load(path)
    data = load("digits", Wanted(np.dtype("float32"), {"validation": 0.2, "test": 0.2}), world)
    reader = BatchReader(data, evaluation.batch_rows(data))
    parameters = saved.layout.views(saved.parameters)
    figures = evaluation.evaluate(
        Mlp((64, 128, 10)),
        parameters,
        data.splits["test"],
        make_task("classes", data),
        reader,
        world,
    )
    _check_close(world, parameters, result["parameters"], 0)
    with together(world):
        assert (result["checkpoint"] is None) == (world.rank != 0)
        assert saved.layout.digest(saved.parameters) == result["weights_digest"]
        for name in FIGURES:
            assert figures[name] == result[f"test_{name}"], name
        assert saved.attributes["epoch"] == 2
        assert len(list((folder / "runs").iterdir())) == 2, "something else was left behind"


def test_the_evaluate_command_prints_the_same_numbers(world, folder, capsys):
    result = train(_config(epochs=1, checkpoint=str(folder / "runs")), world)
    path = Path(world.comm.bcast(result["checkpoint"]))
    capsys.readouterr()
    evaluate.evaluate_checkpoint(path, None, "test", world)
    printed = capsys.readouterr().out
    with together(world):
        figures = {name: result[f"test_{name}"] for name in FIGURES}
        assert (Classes((), np.dtype(np.float32)).sentence(figures) in printed) == (world.rank == 0)
        assert printed.count("recall") == (11 if world.rank == 0 else 0)


def test_initial_parameters_from_a_checkpoint(world, folder):
    first = train(_config(epochs=1, checkpoint=str(folder / "runs")), world)
    before = _copy(first["parameters"])
    path = world.comm.bcast(first["checkpoint"])
    second = train(_config(epochs=1, initial=path, learning_rate=1e-12), world)
    _check_close(world, second["parameters"], before, 1e-6)
    equal_everywhere(world, second["weights_digest"])


def test_a_checkpoint_of_another_model_is_refused(world, folder):
    path = train(_config(epochs=1, checkpoint=str(folder / "runs")), world)["checkpoint"]
    path = world.comm.bcast(path)
    with refused(world, ConfigurationError, path, "128", "64"):
        train(_config(epochs=1, initial=path, hidden=(64,)), world)


def test_a_missing_checkpoint_is_refused(world, folder):
    with refused(world, DataError, "no such file"):
        train(_config(initial=str(folder / "none.h5")), world)


# -- what is refused ---------------------------------------------------------------------------------


def test_configurations_that_differ_between_ranks(world):
    if world.size == 1:
        pytest.skip("one rank cannot differ from itself")
    with refused(world, RankError, "the configuration", "'seed': 0", "'seed': 1"):
        train(_config(seed=int(world.rank == world.size - 1)), world)


def test_logistic_regression_of_ten_classes(world):
    with refused(world, ConfigurationError, "logistic", "got 10"):
        train(_config(model="logistic"), world)


def test_a_missing_file(world, folder):
    with refused(world, DataError, str(folder / "none.h5"), "no such file"):
        train(_config(data=str(folder / "none.h5")), world)


def test_a_folder_that_nothing_can_be_written_to(world):
    """Is found out by all ranks before anything is read: here not even the data are there."""
    config = Config(data="none.h5", checkpoint="/proc", progress="none")
    with refused(world, LauncherError, "cannot write a checkpoint to /proc: "):
        train(config, world)
