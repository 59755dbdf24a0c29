"""Runs have the same weights from memory, mapped and streamed, and go on where they stopped, on any number of ranks."""

import h5py
import numpy as np
import pytest

from lepton_mpi.data import host_order, training_order
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.parallel.together import refused, together

# 3 micro-batches a step, so that some of 4 ranks have none, in windows of 2 micro-batches and blocks of 8 rows.
OPTIONS = {
    "global_batch": 30,
    "micro_batch": 12,
    "shuffle": "blocks",
    "epochs": 2,
    "hidden": (8,),
    "progress": "none",
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of about 8 rows of 4 floats."""
    monkeypatch.setattr(training_order, "BLOCK_BYTES", 128)
    monkeypatch.setattr(training_order, "_BLOCK_BYTES_MIN", 1)


def _write(world, folder, dtype: str = "f4", **storage) -> str:
    """One file of 200 rows to be split at random."""
    path = folder / "rows.h5"
    with world.agreeing():
        if world.rank == 0:
            random = np.random.default_rng(5)
            y = np.arange(200) * 3 // 200
            x = 40 * y[:, None] + random.integers(0, 60, (200, 4))
            with h5py.File(path, "w") as file:
                file.create_dataset("x", data=x.astype(dtype), **storage)
                file["y"] = y
    return str(path)


def _config(path: str, way: str, dtype: str = "f4", **options) -> Config:
    row_bytes = 4 if dtype == "u1" else 16
    common = {"data": path, "loader": way, "shuffle_buffer": 3 * 24 * row_bytes}
    return Config(**OPTIONS | common | options)


@pytest.mark.parametrize("dtype", ["f4", "u1"])
def test_weights_do_not_depend_on_the_way(world, folder, dtype):
    """Nor do the figures, with rows held out for validation and test."""
    path = _write(world, folder, dtype)
    results = [train(_config(path, way, dtype), world) for way in ("memory", "mapped", "streamed")]
    with together(world):
        assert len({result["weights_digest"] for result in results}) == 1
        assert len({result["test_accuracy"] for result in results}) == 1
    other = train(_config(path, "memory", dtype, shuffle="full"), world)
    with together(world):
        assert other["weights_digest"] != results[0]["weights_digest"]


def test_packed_rows_are_streamed(world, folder):
    """With the weights of the same rows in memory; to map them is refused."""
    path = _write(world, folder, chunks=(7, 4), compression="gzip", shuffle=True, fletcher32=True)
    results = [train(_config(path, way), world) for way in ("memory", "streamed")]
    with together(world):
        assert len({result["weights_digest"] for result in results}) == 1
    with refused(world, ConfigurationError, "--loader mapped", "got chunks"):
        train(_config(path, "mapped"), world)


def test_an_order_that_ranks_make_together_is_the_same(world, folder, monkeypatch):
    """Some of 4 ranks have no micro-batch, and make their part of the order."""
    path = _write(world, folder)
    options = {"shuffle": "full", "checkpoint": str(folder / "runs"), "checkpoint_steps": 7}
    alone = train(_config(path, "memory", **options), world)
    monkeypatch.setattr(host_order, "_SHARED_ROWS", 1)
    shared = train(_config(path, "memory", shuffle="full"), world)
    middle = folder / "runs/step-00000007.h5"
    rest = train(_config(path, "memory", shuffle="full", resume=str(middle)), world)
    with together(world):
        digests = {result["weights_digest"] for result in (alone, shared, rest)}
        assert len(digests) == 1


@pytest.mark.parametrize("way", ["mapped", "streamed"])
def test_a_run_goes_on_in_the_middle_of_an_epoch(world, folder, way):
    """From a checkpoint after 2 of the 5 steps of epoch 2 it ends with the weights of a run that was not stopped."""
    path = _write(world, folder)
    options = {"checkpoint": str(folder / "runs"), "checkpoint_steps": 7, "epochs": 2}
    whole = train(_config(path, way, **options), world)
    middle = folder / "runs/step-00000007.h5"  # 128 rows in steps of 30
    with together(world), h5py.File(middle) as file:
        assert (file.attrs["epoch"], file.attrs["row"]) == (2, 60)
    rest = train(_config(path, way, resume=str(middle), epochs=2), world)
    with together(world):
        assert rest["weights_digest"] == whole["weights_digest"]
