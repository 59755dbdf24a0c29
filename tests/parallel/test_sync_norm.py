"""``--norm sync_batch``: the same bits on any number of ranks, the training of the whole batch at once, and who may not."""

from pathlib import Path

import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.parallel.together import refused, together

_LOCAL_SGD = f"{Path(__file__).parents[1] / 'own' / 'local_sgd.py'}:LocalSgd"


def _config(model: str, norm: str = "sync_batch", own: dict | None = None, **options) -> Config:
    given = {"data": ("digits",), "learning_rate": 0.01, "epochs": 1, "progress": "none"}
    return Config(model=model, own={"model": {"norm": norm, **(own or {})}}, **given | options)


# The last step of an epoch of 1 150 rows has 150 of 200: two of its 8 micro-batches are empty. With 2 micro-batches in a step a third rank has none.
_CASES = [
    (
        "resnet8",
        {"augment": ("crop=1", "noise=0.05"), "global_batch": 200, "clip_norm": 1.0},
        "7a9f6da7080a81a4dfc53e3930559cd7",
    ),
    (
        "cnn",
        {"dropout": 0.3, "global_batch": 64, "micro_batch": 32},
        "34d1911636594de45a47af51c2d712ec",
    ),
    ("resnet8", {"global_batch": 64, "recompute": 1}, "276a5455dc8c6b96fecca3376a4b1bc4"),
    ("cnn", {"global_batch": 64, "activations": "bfloat16"}, "6f68f2e096872727295543bc58d72965"),
]


@pytest.mark.parametrize(("model", "options", "digest"), _CASES, ids=lambda v: str(v)[:60])
def test_weights_have_the_same_bits_on_any_number_of_ranks(world, model, options, digest):
    """With augmentation, dropout, and ranks that have nothing to compute in a step or in any."""
    result = train(_config(model, **options), world)
    with together(world):
        assert result["weights_digest"] == digest


def test_a_run_goes_on_in_the_middle_of_an_epoch(world, folder):
    """To the bits of the run that never stopped."""
    options = {
        "checkpoint": str(folder / "runs"),
        "checkpoint_steps": 3,
        "global_batch": 200,
        "keep": 1000,
    }
    whole = train(_config("cnn", **options), world)
    step = str(folder / "runs" / "step-00000003.h5")
    resumed = train(_config("cnn", global_batch=200, resume=step), world)
    with together(world):
        assert resumed["weights_digest"] == whole["weights_digest"]


def test_it_is_the_training_of_the_whole_batch(world):
    """8 micro-batches against one of all 64 rows with plain batch normalisation, in float64: weights, figures, running statistics."""
    options = {"dtype": "float64", "global_batch": 64, "optimizer": "sgd", "learning_rate": 0.02}
    results = [
        train(_config("cnn", norm, micro_batch=rows, **options), world)
        for norm, rows in (("batch", 64), ("sync_batch", 8))
    ]
    whole, split = results
    with together(world):
        assert whole["test_accuracy"] > 0.8, "hardly anything was learnt"
        np.testing.assert_allclose(split["test_loss"], whole["test_loss"], rtol=1e-9)
        for name, exact in whole["parameters"].items():
            np.testing.assert_allclose(split["parameters"][name], exact, rtol=0, atol=1e-9)


def test_a_strategy_whose_ranks_make_steps_alone_is_refused(world):
    with refused(world, ConfigurationError, "local_sgd.py:LocalSgd: expected sync for model cnn"):
        train(_config("cnn", strategy=_LOCAL_SGD), world)
