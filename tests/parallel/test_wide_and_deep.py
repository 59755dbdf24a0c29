"""Tables with categories and wide_and_deep: the same bits of weights and figures on any number of ranks; it learns what goes together."""

import hashlib

import h5py
import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.data.loader import load
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.options.sources import from_program
from lepton_mpi.run import checkpoint
from lepton_mpi.run.build import wanted_of
from lepton_mpi.run.fit import train
from tests.parallel.together import check, together
from tests.serial.data_files import OneRank

VALUES, ROWS = (3, 4, 30), {"train": 167, "validation": 40, "test": 61}


@pytest.fixture
def table(world, folder):
    """Two numbers and three categories; the class is a matter of a number, and of two categories together."""
    path = folder / "table.h5"
    with world.agreeing():
        if world.rank == 0:
            generator = np.random.default_rng(5)
            effects = 2 * generator.standard_normal((VALUES[0], VALUES[1]))
            with h5py.File(path, "w") as file:
                for split, rows in ROWS.items():
                    x = generator.standard_normal((rows, 2))
                    codes = generator.integers(0, VALUES, (rows, 3))
                    scores = x[:, 0] + effects[codes[:, 0], codes[:, 1]]
                    file[f"{split}/x"] = x.astype("f4")
                    file[f"{split}/y"] = (scores + generator.logistic(size=rows) > 0).astype("u1")
                    file[f"{split}/inputs/categories"] = codes.astype("u1")
                    made = file[f"{split}/inputs/categories"]
                    made.attrs["kind"], made.attrs["values"] = np.bytes_("categories"), VALUES
                file["about/inputs/columns"] = [b"plan", b"region", b"shop"]
    return path


def _config(table, **options) -> Config:
    own = {"crosses": ("plan*region", "shop*plan"), "cross_buckets": 40} | options.pop("own", {})
    given = {"model": "wide_and_deep", "own": {"model": own}, "hidden": (12, 7), "dropout": 0.3}
    common = {"data": (str(table),), "epochs": 3, "global_batch": 37, "learning_rate": 0.02}
    return Config(**{"progress": "none", **common, **given, **options})


# Options, and the digest of the weights on any number of ranks.
VARIANTS = {
    "plain": ({}, "cc774afd56a8cc9f75f02306f81d6571"),
    "batch norm, clipped": (
        {"own": {"norm": "batch"}, "clip_norm": 1.0},
        "e3bcc748c9aff43080a45e0e8efae3b8",
    ),
    "layer norm": (
        {"own": {"norm": "layer"}, "activation": "gelu", "weight_decay": 0.1, "optimizer": "adamw"},
        "3c3e0875dff378cca61db6503250a08b",
    ),
    "few rows": (
        {"global_batch": 9, "micro_batch": 2, "epochs": 1},
        "73e0d3f16bd78b326198ca198d63c7d0",
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_have_the_same_bits_on_any_number_of_ranks(world, table, name):
    """With dropout and a last step that is short: these tests run on 1, 2, 3 and 4 ranks."""
    options, digest = VARIANTS[name]
    result = train(_config(table, **options), world)
    with together(world):
        assert result["weights_digest"] == digest


def test_a_run_goes_on_in_the_middle_of_an_epoch(world, table, folder):
    """To the bits of the run that never stopped, from a checkpoint that is the same from any number of ranks."""
    options = {"checkpoint": str(folder / "runs"), "checkpoint_steps": 3, "keep": 1000}
    whole = train(_config(table, **options), world)
    path = folder / "runs" / "step-00000009.h5"
    resumed = train(_config(table, resume=str(path)), world)
    with together(world):
        saved = checkpoint.read(path)
        arrays = saved.parameters, *saved.state.values()
        digest = hashlib.blake2b(b"".join(a.tobytes() for a in arrays), digest_size=16).hexdigest()
        assert digest == "f26942d0f3eeb74529825e2b61edcf86"
        assert resumed["weights_digest"] == whole["weights_digest"] == VARIANTS["plain"][1]


def test_auc_is_that_of_all_rows_in_one_place(world, table):
    """The share of pairs that are in order, counted pair by pair; the same on any number of ranks."""
    config = _config(table)
    result = train(config, world)
    with together(world):
        data = load(config.data, wanted_of(config), OneRank())
        model = make_model(config.model, config.for_model(threads=1), data)
        with h5py.File(table) as file:
            x, y = file["test/x"][()], file["test/y"][()].astype(np.int32)
            codes = file["test/inputs/categories"][()].astype(np.int32)
        batch = Batch(x, y, None, 0, None, {"x": x, "categories": codes})
        outputs = np.empty((len(y), 2), np.float32)
        model.predict(result["parameters"], batch, outputs)
        low, high = (outputs[y == kind, 1] for kind in (0, 1))
        pairs = np.sign(high[:, None] - low).sum() / 2 + high.size * low.size / 2
        assert result["test_auc"] == pairs / (high.size * low.size) == 634 / (30 * 31)


def test_the_recipe_orders_loans_better_than_boosted_trees(world):
    """A third of it. ``python -m benchmarks.risk_table`` prints 0.8189 for scikit-learn's trees and 0.852 for all of it."""
    given = from_program({"recipe": "loans", "epochs": 5, "progress": "none"})
    result = train(given.config, world)
    check(world, result["test_auc"] > 0.84, result["test_auc"])
