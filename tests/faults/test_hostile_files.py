"""Files from strangers, given to the commands themselves: one line, exit code 3, nobody hangs, the secret stays one.

A few of the thousand that ``tests/serial/test_hostile_files.py`` has; more of them with
``LEPTON_HOSTILE_EVERY=20 python -m pytest tests/faults/test_hostile_files.py``.
"""

import json
import os
from pathlib import Path

import h5py
import pytest

from lepton_mpi.run import checkpoint
from tests import pages
from tests.faults import jobs
from tests.serial import hostile_files, hostile_outcomes
from tests.serial.attacks import other_files

_EVERY = int(os.environ.get("LEPTON_HOSTILE_EVERY", "350"))
_NOWHERE = Path("secret0.h5")  # cases are listed before there is a folder
SAMPLE = [case.name for case in hostile_files.cases(_NOWHERE)[::_EVERY]]
# With one rank of a host looking and all of them opening; HDF5 would crash on the second and not end with the third.
ON_RANKS = [
    "external at train/x",
    "last chunk is taken as it is at train/x",
    "latest, contiguous: other address 16",
]


@pytest.fixture
def secret(tmp_path) -> Path:
    return hostile_files.make_secret(tmp_path)


def _write(name: str, secret: Path, path: Path) -> str:
    """Write a file by its name; returns what must happen to it."""
    (case,) = (case for case in hostile_files.cases(secret) if case.name == name)
    case.write(path)
    return case.must


def _train(ranks: int, path: Path, *words: str) -> jobs.Ended:
    """A short run; without a launcher for no ranks, whose MPI then needs no shared memory."""
    command = (*jobs.TRAIN, "--data", str(path), "--epochs", "1", *words)
    alone = {} if ranks else {"OMPI_MCA_btl": "self"}
    return jobs.run(ranks, *command, cwd=path.parent, limit_seconds=60, **alone)


def _check_refused(job: jobs.Ended, path: Path) -> str:
    """One line of ours that names the file, and no other words of the program; returns it."""
    assert job.code == 3, job.text
    assert "Traceback" not in job.text and hostile_files.SECRET_TEXT not in job.text
    (line,) = job.lines("lepton_mpi")
    assert line.startswith(f"lepton_mpi: {path}: "), line
    return line


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("name", SAMPLE)
def test_one_rank_refuses_it_or_trains(tmp_path, secret, name):
    """Standard error is the one line and nothing else; a file that may be taken trains to the end."""
    path = tmp_path / "hostile.h5"
    must = _write(name, secret, path)
    with hostile_outcomes.watched(secret) as events:
        job = _train(0, path)
        assert events() == 0
    if must != hostile_files.REFUSED and job.code in (0, 2):  # 2: with a loss that is not finite
        assert job.err.count("\n") == (job.code == 2), job.text
        return
    _check_refused(job, path)
    assert job.err.count("\n") == 1 and job.out == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_RANKS)
def test_three_ranks_refuse_it_together(tmp_path, secret, name):
    """One of them finds out, all of them end."""
    path = tmp_path / "hostile.h5"
    must = _write(name, secret, path)
    with hostile_outcomes.watched(secret) as events:
        job = _train(3, path)
        assert events() == 0
    if must == hostile_files.REFUSED or job.code:
        _check_refused(job, path)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["unpacks not at all", "unpacks to less", "unpacks to more"])
def test_rows_that_are_streamed_are_not_believed_either(tmp_path, secret, attack):
    """They are unpacked while the job runs, by 3 ranks of which one finds out."""
    path = tmp_path / "hostile.h5"
    _write(f"{attack} at train/x", secret, path)
    job = _train(3, path, "--loader", "streamed")
    assert job.code == 3 and "Traceback" not in job.text, job.text
    (line,) = job.lines("lepton_mpi")
    assert f"{path}: /train/x: " in line and "damaged: expected gzip of" in line


# -- checkpoints -------------------------------------------------------------------------------------


def _sign(path: Path) -> None:
    """Make the digest fit, as anybody can."""
    with path.open("r+b") as raw:
        raw.write(checkpoint._head(path))


def _trained(folder: Path, *words: str) -> Path:
    command = ("--epochs", "1", "--checkpoint", str(folder / "runs"), *words)
    job = jobs.run(0, *jobs.TRAIN, *command, cwd=folder, OMPI_MCA_btl="self")
    assert job.code == 0, job.text
    (path,) = (folder / "runs").iterdir()
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> bytes:
    """A checkpoint that is good."""
    return _trained(tmp_path_factory.mktemp("trained")).read_bytes()


def _evaluate(ranks: int, path: Path, *words: str) -> jobs.Ended:
    alone = {} if ranks else {"OMPI_MCA_btl": "self"}
    return jobs.run(
        ranks, "-m", "lepton_mpi", "evaluate", str(path), *words, cwd=path.parent, **alone
    )


@pytest.mark.slow
def test_hostile_checkpoints_are_refused(tmp_path, secret, trained):
    """By ``evaluate`` and by ``--initial``."""
    path = tmp_path / "hostile.h5"
    path.write_bytes(trained)
    with h5py.File(path, "r+") as file:
        other_files.external(file, "parameters/more", secret)
    _sign(path)
    with hostile_outcomes.watched(secret) as events:
        assert "external storage" in _check_refused(_evaluate(0, path), path)
        job = jobs.run(3, *jobs.TRAIN, "--initial", str(path), cwd=tmp_path)
        assert "external storage" in _check_refused(job, path)
        assert events() == 0


def test_a_checkpoint_does_not_run_a_program(tmp_path):
    """One that names a model of the user's own is evaluated where the command line names it too."""
    block = pages.programs(jobs.ROOT / "lepton_mpi/models/README.md")["my_model.py"]
    program, name = tmp_path / "my_model.py", "my_model.py:LinearSoftmax"
    program.write_text(block)
    path = _trained(tmp_path, "--model", name).rename(tmp_path / "mine.h5")
    program.write_text(f"{block}\nprint('the program ran')\n")
    job = _evaluate(0, path)
    assert f"--model {name}" in _check_refused(job, path)
    assert "the program ran" not in job.text
    job = _evaluate(0, path, "--model", name)
    assert job.code == 0 and "the program ran" in job.out and "accuracy" in job.out, job.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "float64"}, "expected parameters of float64, got float32"),
        ({"data": "/dev/zero"}, "expected a file"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_configurations_in_checkpoints_are_checked(tmp_path, trained, changes, words):
    """They come from the file, as its arrays do."""
    path = tmp_path / "hostile.h5"
    path.write_bytes(trained)
    with h5py.File(path, "r+") as file:
        options = json.loads(file.attrs["configuration"])
        file.attrs["configuration"] = json.dumps(options | changes)
    _sign(path)
    line = _check_refused(_evaluate(0, path), Path(changes.get("data", path)))
    assert words in line
