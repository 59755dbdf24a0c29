"""Runs of torch modules by ``fit``, on however many ranks: same bits, same curve after a resume, the trained module back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch, which is not installed")

from pathlib import Path  # noqa: E402

import h5py  # noqa: E402

import lepton_mpi.torch  # noqa: E402
from lepton_mpi.errors import RankError  # noqa: E402
from lepton_mpi.models import own_model  # noqa: E402
from lepton_mpi.options.config import Config  # noqa: E402
from lepton_mpi.run.fit import train  # noqa: E402
from tests.parallel.alone import trained_alone  # noqa: E402
from tests.parallel.conftest import folder, limited, world  # noqa: E402, F401
from tests.parallel.together import refused, together  # noqa: E402
from tests.torch import modules  # noqa: E402

FILE = Path(__file__).with_name("modules.py")
_COMMON = {"epochs": 2, "progress": "none", "threads": 1, "learning_rate": 0.01}
_RUNS = {
    "dense": {"model": f"{FILE}:Mlp", "optimizer": "sgd", "global_batch": 50},
    "dropout": {"model": f"{FILE}:dropping"},
    "batch norm": {"model": f"{FILE}:Convolutional"},
    "recurrent, float64": {"model": f"{FILE}:Recurrent", "dtype": "float64"},
    "dense, over messages": {"model": f"{FILE}:Mlp", "allreduce": "ring"},
}


def _config(**options) -> Config:
    return Config(**_COMMON | {"data": "digits", "global_batch": 64} | options)


@pytest.mark.parametrize("name", _RUNS)
def test_weights_have_the_bits_of_a_training_without_ranks(world, name):  # noqa: F811
    """Whatever the number of ranks."""
    config = _config(**_RUNS[name])
    result = train(config, world)
    module = result["module"]
    with together(world):
        if config.allreduce == "auto":  # a schedule over messages has an order of its own
            assert result["weights_digest"] == trained_alone(config)
        state = module.state_dict()
        for key, array in result["parameters"].items():
            assert np.array_equal(state[key].numpy(), array), key


def test_a_module_learns_and_is_given_back(world):  # noqa: F811
    """The very object, in memory of its own, with the accuracy that the run has said."""
    torch.manual_seed(3)
    module = modules.Convolutional((8, 8), 10)
    options = _COMMON | {"data": "digits", "epochs": 4}
    result = train(Config(**options), world, lepton_mpi.torch.model(module))
    with together(world):
        assert result["module"] is module and not module.training
        assert result["test_accuracy"] > 0.85


@pytest.mark.parametrize("name", ["dropout", "batch norm"])
def test_a_run_that_goes_on_ends_like_one_that_never_stopped(world, folder, name):  # noqa: F811
    """From a checkpoint in the middle of an epoch."""
    options = _RUNS[name] | {"checkpoint": str(folder), "checkpoint_steps": 7}
    whole = train(_config(**options), world)
    with world.agreeing():
        if world.rank == 0:
            names = sorted(folder.glob("*.h5"), key=lambda path: path.stat().st_mtime)
            for path in names[-2:]:
                path.unlink()
    rest = train(_config(**options, resume=str(folder)), world)
    with together(world):
        assert rest["weights_digest"] == whole["weights_digest"]


def test_other_values_on_another_rank_are_refused(world):  # noqa: F811
    """A program that makes its module without a seed."""
    if world.size == 1:
        pytest.skip("one rank has no other")
    torch.manual_seed(world.rank)
    module = modules.Mlp((8, 8), 10)
    with refused(world, RankError, "model Mlp, its values"):
        train(Config(**_COMMON, data="digits"), world, module)


def test_texts(world, folder):  # noqa: F811
    """Tokens, tied weights, dropout, and figures of texts."""
    path = folder / "text.h5"
    with world.agreeing():
        if world.rank == 0:
            with h5py.File(path, "w") as file:
                stream = np.random.default_rng(0).integers(0, 4, 900).cumsum() % 7
                file["train/tokens"] = stream[:700].astype(np.uint8)
                file["test/tokens"] = stream[700:].astype(np.uint8)
    config = _config(data=str(path), model=f"{FILE}:Language", context=8, epochs=8)
    result = train(config, world)
    with together(world):
        assert result["weights_digest"] == trained_alone(config)
        assert result["test_perplexity"] < 6.5  # 4 of 7 tokens may come next


def test_regression_and_initial_values_of_a_file(world, folder):  # noqa: F811
    """Targets; what one run has learned another begins with, by way of safetensors."""
    pytest.importorskip("safetensors", reason="needs safetensors, which is not installed")
    path, weights = folder / "plane.h5", folder / "weights.safetensors"
    with world.agreeing():
        if world.rank == 0:
            x = np.random.default_rng(0).standard_normal((230, 4))
            with h5py.File(path, "w") as file:
                file["train/x"], file["train/y"] = x[:200], x[:200, :1] * 3 + 1
                file["test/x"], file["test/y"] = x[200:], x[200:, :1] * 3 + 1
    options = {"data": str(path), "model": f"{FILE}:Regression", "epochs": 20}
    first = train(_config(**options, learning_rate=0.02), world)
    with world.agreeing():
        if world.rank == 0:
            lepton_mpi.torch.save(first["module"], weights)
    second = train(_config(**options, initial=str(weights), learning_rate=1e-9), world)
    with together(world):
        assert first["test_r2"] > 0.8
        assert second["test_r2"] == pytest.approx(first["test_r2"], abs=1e-3)


def test_adapt_sets_torchs_threads():
    """A rank has those of ``--threads``."""
    from tests.torch.test_module import data_facts

    own_model.adapt(modules.Mlp, data_facts(), threads=1)
    assert torch.get_num_threads() == 1
