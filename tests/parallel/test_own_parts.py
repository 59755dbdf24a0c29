"""Strategies, hooks, models and layers from outside of the package, each by one file and one option."""

from pathlib import Path

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.models.gradient_check import check_gradient
from lepton_mpi.options.config import Config
from lepton_mpi.registry import load
from lepton_mpi.run.build import build
from lepton_mpi.run.fit import train
from lepton_mpi.vectors import Layout
from tests.parallel.together import together

OWN = Path(__file__).parents[1] / "own"


def _config(**options) -> Config:
    return Config(**{"epochs": 3, "progress": "none"} | options)


@pytest.mark.parametrize("file", sorted(OWN.glob("[a-z]*.py")), ids=lambda file: file.name)
def test_a_part_is_short(file):
    """What the seams ask of a user fits on a screen."""
    assert len(file.read_text().splitlines()) <= 40


def test_a_strategy_of_ones_own(world):
    """Trains, and all ranks end with the same parameters; with one rank it is plain training."""
    result = train(_config(strategy=f"{OWN}/local_sgd.py:LocalSgd", learning_rate=0.003), world)
    with together(world):
        assert result["test_accuracy"] > 0.8


def test_a_hook_of_ones_own(world):
    """Is called at every point, sees the figures of the hooks before it, and adds to the result."""
    result = train(_config(hook=(f"{OWN}/best_epoch.py:BestEpoch",)), world)
    with together(world):
        assert result["best_epoch"] in (1, 2, 3)


def test_an_optimizer_of_ones_own(world):
    """Its rule is compiled into the step, and its state is saved and restored under its name."""
    name = f"{OWN}/sign.py:sign"
    result = train(_config(optimizer=name, learning_rate=0.001, epochs=10), world)
    again = train(_config(optimizer=name, learning_rate=0.001, epochs=10, allreduce="ring"), world)
    with together(world):
        assert result["test_accuracy"] > 0.9 and again["test_accuracy"] > 0.9


def test_a_layer_of_ones_own_behind_a_frozen_one(world):
    """Nobody wants a gradient by what comes into it."""
    model = f"{OWN}/rms_norm.py:network"
    result = train(_config(model=model, freeze=("layer0/*",), learning_rate=0.01), world)
    with together(world):
        assert result["test_accuracy"] > 0.8


def test_a_task_of_ones_own(world):
    """Its figures are those of all ranks together, and its sentence is said."""
    result = train(_config(task=f"{OWN}/costs.py:Costs"), world)
    costs = world.comm.allgather(result["test_cost"])
    with together(world):
        assert 0 < costs[0] < 2 and len(set(costs)) == 1


def test_a_layer_of_ones_own(world):
    """In a network that a file makes: it learns, its gradient is right, and a second run gives the same weights."""
    name = f"{OWN}/rms_norm.py:network"
    digests = [train(_config(model=name, learning_rate=0.003), world) for _ in range(2)]
    found = load("--model", name)((64,), 10)
    layout = Layout(found.shapes)
    parameters = layout.views(np.zeros(layout.size))
    found.initialise(parameters, 0)
    rows = np.random.default_rng(0).standard_normal((6, 64))
    check_gradient(found, parameters, Batch(rows, np.arange(6, dtype=np.int32), np.arange(6)))
    with together(world):
        assert digests[0]["weights_digest"] == digests[1]["weights_digest"]
        assert digests[0]["test_accuracy"] > 0.9


def test_a_wrong_model_of_ones_own_is_named(world, folder):
    """In one line, by the first step on every rank that computes."""
    file = folder / "mean.py"
    if world.rank == 0:
        file.write_text(
            "import numpy as np\n\n\nclass Mean:\n"
            "    def __init__(self, feature_shape, output_count):\n"
            "        self.shapes = {'w': (*feature_shape, output_count)}\n\n"
            "    def loss_and_gradient(self, parameters, batch, gradient):\n"
            "        gradient['w'][:] = batch.x.mean()\n"
            "        return 1.0\n"
        )
    world.comm.Barrier()
    with pytest.raises(ConfigurationError) as raised:
        train(_config(model=f"{file}:Mean", global_batch=64 * world.size), world)
    with together(world):
        assert "model Mean: loss: expected the sum over the rows" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "mlq"}, "or FILE.py:NAME, got 'mlq', did you mean mlp?"),
        ({"strategy": "synk"}, "or FILE.py:NAME, got 'synk', did you mean sync?"),
        ({"task": "clases"}, "--task: expected auto, classes, targets, tokens or FILE.py:NAME, got 'clases', did you mean classes?"),
        ({"strategy": "no.py:Own"}, "--strategy: no.py: no such file"),
        ({"hook": (f"{OWN}/best_epoch.py:Best",)}, "best_epoch.py has no callable 'Best'"),
        ({"hook": (f"{OWN}/local_sgd.py:np.zeros",)}, "has no callable 'np.zeros'"),
    ],
)  # fmt: skip
def test_what_is_no_part_is_refused_on_every_rank(world, options, message):
    """In one line that names option and file."""
    with pytest.raises(ConfigurationError) as raised:
        build(_config(**options), world)
    with together(world):
        assert message in str(raised.value)


def test_an_object_without_the_points_of_a_hook(world, folder):
    """Names what is missing."""
    file = folder / "none.py"
    if world.rank == 0:
        file.write_text(
            "class No:\n    def __init__(self, run): pass\n    def after_step(self, run): pass\n"
        )
    world.comm.Barrier()
    with pytest.raises(ConfigurationError) as raised:
        build(_config(hook=(f"{file}:No",)), world)
    with together(world):
        assert "got none called before_epoch, after_epoch, at_end" in str(raised.value)


@pytest.mark.parametrize("loader", ["memory", "streamed"])
def test_gradients_are_compared_with_finite_differences_if_asked_for(world, folder, loader):
    """A right model passes; one whose gradient is half of what it should be is named, on every rank."""
    train(_config(epochs=1, check_model=True, loader=loader), world)
    file = folder / "half.py"
    if world.rank == 0:
        file.write_text(
            "import numpy as np\n\n\nclass Half:\n"
            "    def __init__(self, feature_shape, output_count):\n"
            "        self.shapes = {'w': (int(np.prod(feature_shape)),)}\n\n"
            "    def loss_and_gradient(self, parameters, batch, gradient):\n"
            "        x = batch.x.reshape(len(batch.x), -1)\n"
            "        gradient['w'][:] = x.sum(axis=0) / 2\n"
            "        return float((x @ parameters['w']).sum())\n"
        )
    world.comm.Barrier()
    with pytest.raises(ConfigurationError) as raised:
        train(_config(model=f"{file}:Half", check_model=True, loader=loader), world)
    with together(world):
        assert "model Half: gradient['w']" in str(raised.value)


def test_ranks_without_work_are_told_of(world, capsys):
    """A step has as many micro-batches as the head says; ranks beyond them compute nothing."""
    train(_config(epochs=1, micro_batch=64, progress="plain"), world)
    printed = capsys.readouterr().out
    with together(world):
        if world.rank == 0:
            assert ("ranks have nothing to compute" in printed) == (world.size > 1)
