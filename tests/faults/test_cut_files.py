"""Data files that are cut short at any moment of an epoch, in a batch, too: 20 of 20 named by ``LEPTON_CUTS=20``.

For what happens to other changes, such as files that are replaced or unlinked, see ``tests/parallel/test_changing_files.py``.
"""

import os
import random
import re
import shutil
import time

import h5py
import numpy as np
import pytest

from tests.faults import jobs

_CUTS = int(os.environ.get("LEPTON_CUTS", "2"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """32 MB in one piece, without checksums."""
    path = tmp_path_factory.mktemp("data") / "rows.h5"
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, count in (("train", 8_000), ("validation", 100)):
            file[f"{split}/x"] = draw.standard_normal((count, 1000), np.float32)
            file[f"{split}/y"] = draw.integers(0, 2, count).astype(np.int32)
    return path


def _train_until_cut(folder, rows, loader, model) -> jobs.Ended:
    """Train on two ranks, and cut the file after some steps."""
    path, metrics, seed = shutil.copy(rows, folder / "rows.h5"), folder / "m.jsonl", folder.name
    words = (
        "--data",
        path,
        "--loader",
        loader,
        "--model",
        model,
        "--epochs",
        "100000",
        "--metrics",
        str(metrics),
    )
    words += ("--progress", "none", "--shuffle", "blocks", "--shuffle-buffer", "4000000")
    began = time.monotonic()
    with jobs.started(2, *jobs.TRAIN, *words, cwd=folder) as job:
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:
            assert job.poll() is None and time.monotonic() - began < 100, job.communicate()
            time.sleep(0.02)
        time.sleep(random.Random(seed).uniform(0, 0.3))
        os.truncate(path, 1 << 20)
        out, err = job.communicate(timeout=60)
    return jobs.Ended(job.returncode, out, err, time.monotonic() - began)


@pytest.mark.slow(but_every=6)
@pytest.mark.parametrize("number", range(_CUTS))
@pytest.mark.parametrize(
    ("loader", "model"), [("mapped", "mlp"), ("mapped", "logistic"), ("streamed", "mlp")]
)
def test_a_file_that_is_cut_short_is_named(tmp_path, rows, loader, model, number):
    """One line with file, data set and row, exit code 3, whether a rank is between two batches or within one."""
    job = _train_until_cut(tmp_path, rows, loader, model)
    found = [line for line in job.text.splitlines() if line.startswith("lepton_mpi:")]
    assert len(found) == 1, job.text
    assert re.fullmatch(
        r"lepton_mpi: (rank \d of 2: )?\S*rows\.h5: /train/x: rows? \d+.*shorter.*", found[0]
    ), found
    assert job.code == 3, job.text
