"""Jobs that end while a thread writes their checkpoint: the step before it is whole, and they go on from there to the same bits."""

import re

import pytest

from lepton_mpi.errors import DataError
from lepton_mpi.run import checkpoint
from tests.faults import jobs

# 1 150 rows in batches of 100: 12 steps an epoch, saved after 5, 10, 12, 15, 20, 24, …
_TRAIN = (*jobs.TRAIN, "--recipe", "digits", "--epochs", "3", "--global-batch", "100")
_SAVED = ("--checkpoint", "runs", "--checkpoint-steps", "5", "--async-save", "--resume", "runs")


def _job(folder, ranks: int, fault: str = "") -> jobs.Ended:
    return jobs.run(ranks, *_TRAIN, *_SAVED, cwd=folder, LEPTON_FAULT=fault)


def _saved(folder) -> list[int]:
    """Steps of the files in the folder, each of which is whole."""
    for path in (found := sorted((folder / "runs").glob("*.h5"))):
        checkpoint.verify(path)
    return [int(path.stem.removeprefix("step-")) for path in found]


def _end(job: jobs.Ended) -> list[str]:
    assert job.code == 0, job.text
    return re.findall(r"^(?:test|weights) .*$", job.out, re.MULTILINE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[str]:
    """Test figures and digest without a checkpoint."""
    return _end(jobs.run(4, *_TRAIN, cwd=tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.slow
def test_kills_while_a_file_is_written_lose_no_step_that_was_saved(tmp_path, undisturbed):
    """The writer once all is written but the name, then another rank two steps after the copy was made."""
    first = _job(tmp_path, 2, "checkpoint.before_rename@step=15:kill")
    assert first.code != 0, first.text
    assert _saved(tmp_path) == [10, 12]
    second = _job(tmp_path, 3, "checkpoint.before_write@step=20:sleep=30, step@step=22:rank=1:kill")
    assert second.code != 0, second.text
    assert "goes on from runs/step-00000012.h5, epoch 2, row 0, step 12\n" in second.out
    assert second.seconds < 30, second.text
    assert _saved(tmp_path) == [12, 15]
    last = _job(tmp_path, 1)
    assert "goes on from runs/step-00000015.h5" in last.out, last.text
    assert _end(last) == undisturbed
    assert _saved(tmp_path) == [35, 36]
    assert "step-00000036.h5" in last.lines("checkpoint")[-1]
    assert [path.suffix for path in (tmp_path / "runs").iterdir()] == [".h5", ".h5"]


@pytest.mark.slow
def test_a_signal_while_a_file_is_written(tmp_path, undisturbed):
    """That file is finished, then the one of the step after which the ranks stop, and only then they say that it is saved."""
    stopped = _job(tmp_path, 2, "checkpoint.before_write@step=5:sleep=1, step@step=6:rank=1:term")
    assert stopped.code == 75, stopped.text
    (line,) = stopped.lines("lepton_mpi")
    step = int(re.search(r"stopped after step (\d+)", line)[1])
    assert 6 <= step <= 12 and "saved, go on with" in line, stopped.text
    assert step in _saved(tmp_path) and len(_saved(tmp_path)) == 2
    assert _end(_job(tmp_path, 3)) == undisturbed


@pytest.mark.slow
def test_a_full_disk_ends_no_training(tmp_path, undisturbed):
    """It is said once, in the middle of the run, and the exit code is 0 since the last checkpoint is there."""
    job = _job(tmp_path, 2, "checkpoint.before_rename@step=10:full")
    assert _end(job) == undisturbed
    (said, again, last) = job.lines("checkpoint")
    assert said == (
        "checkpoint cannot write the newest checkpoint to runs: No space left on device; training goes on, and tries again with the next "
        "one; the last good one is runs/step-00000005.h5"
    ), job.text
    assert again == "checkpoint can be written to runs again: the newest checkpoint"
    assert job.lines("saving")[0].startswith("saving    9 checkpoints while training went on")
    assert last.endswith("runs/step-00000036.h5") and _saved(tmp_path) == [35, 36]


@pytest.mark.slow
def test_half_a_file_is_no_checkpoint(tmp_path):
    """What the kill left under the temporary name is refused, and removed by the next run."""
    _job(tmp_path, 1, "checkpoint.before_rename@step=15:kill")
    (left,) = (tmp_path / "runs").glob("*.tmp")
    left.write_bytes(left.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        checkpoint.verify(left)
    _end(_job(tmp_path, 2))
    assert not list((tmp_path / "runs").glob("*.tmp"))
