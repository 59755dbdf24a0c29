"""What a user can get wrong ends in one line, on any number of ranks, with the exit code of the README."""

import re

import h5py
import numpy as np
import pytest

from tests.faults import jobs

ROWS = 40


def _write(path, change=None) -> None:
    """A good file of 40 rows, 4 features, 3 classes; ``change(x, y)`` returns what stands there instead."""
    x = np.random.default_rng(0).standard_normal((ROWS, 4))
    y = np.arange(ROWS) % 3
    x, y = change(x, y) if change else (x, y)
    with h5py.File(path, "w") as file:
        file["train/x"], file["train/y"] = x, y


def _train(folder, data) -> jobs.Ended:
    return jobs.run(2, *jobs.TRAIN, "--data", str(data), "--epochs", "1", cwd=folder)


def _only_line(job: jobs.Ended, code: int) -> str:
    """The only line of ours in a job that ended with ``code``."""
    assert job.code == code, job.text
    assert "Traceback" not in job.text, job.text
    lines = job.lines("lepton_mpi")
    assert len(lines) == 1, job.text
    return lines[0]


def _set(array: np.ndarray, index, value) -> np.ndarray:
    array[index] = value
    return array


def test_the_good_file_is_good(tmp_path):
    _write(tmp_path / "rows.h5")
    job = _train(tmp_path, tmp_path / "rows.h5")
    assert job.code == 0, job.text


def test_missing_file(tmp_path):
    line = _only_line(_train(tmp_path, tmp_path / "none.h5"), 3)
    assert line.startswith("lepton_mpi: ")
    assert str(tmp_path / "none.h5") in line
    assert "no such file" in line


@pytest.mark.slow
def test_text_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("1,2,3\n" * 100)
    line = _only_line(_train(tmp_path, path), 3)
    assert str(path) in line
    assert "HDF5" in line


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (_set(x, (17, 2), np.nan), y), ("train/x", "row 17", "nan")),
        (lambda x, y: (_set(x, (39, 0), np.inf), y), ("train/x", "row 39", "inf")),
        (lambda x, y: (x, _set(y, 23, -1)), ("train/y", "row 23", "-1")),
        (lambda x, y: (x, _set(y, 31, 1_000_000)), ("train/y", "row 31", "1000000")),
        (lambda x, y: (x, y[:-1]), ("train/y", "40 rows", "train/x", "got 39")),
        (lambda x, y: (x, _set(y + 0.5, 9, np.nan)), ("train/y", "row 9", "nan")),
        (lambda x, y: (x, y.astype("S1")), ("train/y", "numbers", "texts")),
    ],
    ids=["nan", "inf", "negative_label", "large_label", "lengths", "nan_target", "no_label"],
)
def test_wrong_rows(tmp_path, change, words):
    path = tmp_path / "rows.h5"
    _write(path, change)
    line = _only_line(_train(tmp_path, path), 3)
    for word in (str(path), *words):
        assert word in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("--loss", "cross_entropy"), 3, ("train/y: row 0", "a whole number, the class", "got 0.5", "--loss mse")),
        (("--model", "logistic"), 3, ("train/y: row 0", "a whole number, the class", "got 0.5", "--loss mse")),
    ],
    ids=["loss", "model"],
)  # fmt: skip
def test_targets_where_classes_are_needed(tmp_path, words, code, expected):
    path = tmp_path / "rows.h5"
    _write(path, lambda x, y: (x, y + 0.5))
    job = jobs.run(2, *jobs.TRAIN, "--data", str(path), *words, cwd=tmp_path)
    line = _only_line(job, code)
    for word in expected:
        assert word in line


# -- the command line --------------------------------------------------------------------------------


def test_unknown_option(tmp_path):
    job = jobs.run(4, *jobs.TRAIN, "--epoch", "3", cwd=tmp_path)
    line = _only_line(job, 2)
    assert "--epoch," in line
    assert "did you mean --epochs?" in line


def test_wrong_value(tmp_path):
    line = _only_line(jobs.run(3, *jobs.TRAIN, "--epochs", "0", cwd=tmp_path), 2)
    assert "--epochs" in line
    assert "at least 1" in line
    assert "got '0'" in line


def test_help_is_printed_once(tmp_path):
    job = jobs.run(2, *jobs.TRAIN, "--help", cwd=tmp_path)
    assert job.code == 0, job.text
    assert len(re.findall("^usage:", job.out, re.MULTILINE)) == 1, job.text
    assert job.out.count("--learning-rate") >= 1


@pytest.mark.slow
def test_metrics_in_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "none" / "metrics.jsonl"
    line = _only_line(jobs.run(3, *jobs.TRAIN, "--metrics", str(path), cwd=tmp_path), 4)
    assert str(path) in line


def test_a_launcher_of_another_mpi(tmp_path):
    """Four processes were started, and the MPI library sees each alone."""
    for rank in ("0", "3"):
        alien = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": rank}
        job = jobs.run(0, *jobs.TRAIN, cwd=tmp_path, **alien)
        assert job.code == 4, job.text
        if rank == "0":
            assert "started 4 processes" in _only_line(job, 4)
            assert "mpirun" in job.err
        else:
            assert job.lines("lepton_mpi") == []
