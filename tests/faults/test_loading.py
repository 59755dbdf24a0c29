"""What is found out while rows are streamed, on one rank, ends the job on all: one line, exit code 3, at once."""

import h5py
import numpy as np
import pytest

from tests.faults import jobs

ROWS = 4000


def _write(path, **storage) -> None:
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, rows in (("train", ROWS), ("test", 50)):
            x = random.standard_normal((rows, 16)).astype("f4")
            file.create_dataset(f"{split}/x", data=x, **storage)
            file[f"{split}/y"] = np.arange(rows) % 3


def _nan(path) -> str:
    _write(path)
    with h5py.File(path, "r+") as file:
        file["train/x"][3456, 7] = np.nan
    return f"{path}: /train/x: row 3456: expected finite numbers, got nan"


def _damage(path) -> str:
    _write(path, chunks=(50, 16), fletcher32=True)
    with h5py.File(path) as file:
        place = file["train/x"].id.get_chunk_info(69).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place + 100)
        raw.write(b"\xff\xff\xff\xff")
    return f"{path}: /train/x: rows 3450 to 3499: damaged: its checksum does not fit"


@pytest.mark.slow(but_every=2)
@pytest.mark.parametrize("make_wrong", [_nan, _damage])
def test_wrong_rows_end_the_job_when_they_are_reached(tmp_path, make_wrong):
    """Windows are small, so that training has begun; the rank that reads them tells, and nobody is left waiting."""
    line = make_wrong(tmp_path / "rows.h5")
    options = ("--loader", "streamed", "--shuffle-buffer", "4096", "--epochs", "50")
    data = ("--data", str(tmp_path / "rows.h5"), "--validation-split", "0")
    job = jobs.run(2, *jobs.TRAIN, *data, *options, cwd=tmp_path, limit_seconds=60)
    assert job.code == 3, job.text
    assert "Traceback" not in job.text, job.text
    (told,) = job.lines("lepton_mpi: ")
    assert line in told
    assert not jobs.processes_with(str(tmp_path / "rows.h5"))
