"""A run's folder that can no longer be written: one line, the next checkpoint tries again, and the last good one stays."""

import errno
import os
import shutil

import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.run import checkpoint, checkpoint_folder, owned_folder
from lepton_mpi.run.owned_folder import OwnedFolder
from tests.serial.made_checkpoints import small_checkpoint
from tests.serial.raw_files import full_disk


@pytest.fixture
def folder(tmp_path):
    made = OwnedFolder(tmp_path / "runs", kept=2)
    made.open(pytest.fail)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(owned_folder, "_PAUSES_SECONDS", (0.0, 0.0))


def _steps(folder):
    return sorted(path.name for path in folder.path.iterdir() if path.suffix == ".h5")


def test_a_full_disk_is_said_once_and_tried_again(folder):
    """Two that fail, and one that is written when there is room again."""
    assert folder.save(small_checkpoint(1)) == ""
    with full_disk(1500):
        line = folder.save(small_checkpoint(2))
        assert line.startswith(
            f"cannot write the newest checkpoint to {folder.path}: File too large"
        )
        assert "training goes on" in line and str(folder.newest) in line
        assert folder.save(small_checkpoint(3)) == ""
        assert "File too large" in folder.trouble
    assert _steps(folder) == ["step-00000001.h5"]
    assert (
        folder.save(small_checkpoint(4))
        == f"can be written to {folder.path} again: the newest checkpoint"
    )
    assert folder.trouble == "" and _steps(folder) == ["step-00000001.h5", "step-00000004.h5"]
    checkpoint.verify(folder.newest)


def test_the_last_one_is_worth_more_than_one_try(folder, monkeypatch):
    """A file server that is away for seconds."""
    save, tries = checkpoint_folder.save, []

    def away(*arguments, **more):
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.EIO, "Input/output error")
        return save(*arguments, **more)

    monkeypatch.setattr(checkpoint_folder, "save", away)
    assert folder.save(small_checkpoint(1), is_last=True) == "" and folder.newest.exists()
    tries.clear()
    assert "Input/output error" in folder.save(small_checkpoint(2)) and len(tries) == 1


def test_a_folder_that_was_removed_is_made_anew(folder):
    """With its lock, so that no other run takes it."""
    folder.save(small_checkpoint(1))
    shutil.rmtree(folder.path)
    assert folder.save(small_checkpoint(2)) == ""
    assert folder.save(small_checkpoint(3)) == ""
    assert folder.save(small_checkpoint(4)) == ""
    assert _steps(folder) == ["step-00000003.h5", "step-00000004.h5"]
    with pytest.raises(
        ConfigurationError,
        match=r"belongs to process .*give this run a folder of its own, as --checkpoint .*/\{job\}",
    ):
        OwnedFolder(folder.path, 2).open(pytest.fail)


def test_a_folder_in_whose_place_something_else_is(folder):
    """A file; then the folder again."""
    folder.save(small_checkpoint(1))
    folder.path.rename(folder.path.with_name("kept"))
    folder.path.write_text("a file")
    assert "cannot write the newest checkpoint" in folder.save(small_checkpoint(2))
    folder.path.unlink()
    folder.path.with_name("kept").rename(folder.path)
    assert "can be written" in folder.save(small_checkpoint(3))
    assert _steps(folder) == ["step-00000001.h5", "step-00000003.h5"]


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_another_file_system_is_not_written(tmp_path):
    """As when a mount has gone: what is written there would be hidden, or fill the disk of the system."""
    (tmp_path / "disk").mkdir()
    place = tmp_path / "place"
    place.symlink_to(tmp_path / "disk")
    folder = OwnedFolder(place / "runs", 2)
    folder.open(pytest.fail)
    folder.save(small_checkpoint(1))
    other = f"/dev/shm/lepton-test-{os.getpid()}"
    os.mkdir(other)
    try:
        place.unlink()
        place.symlink_to(other)
        assert "its file system is not mounted" in folder.save(small_checkpoint(2))
        assert os.listdir(other) == []
        place.unlink()
        place.symlink_to(tmp_path / "disk")
        assert "can be written" in folder.save(small_checkpoint(3))
    finally:
        shutil.rmtree(other)
    assert _steps(folder) == ["step-00000001.h5", "step-00000003.h5"]
    folder.close()


def test_another_run_s_folder_is_not_written(folder, tmp_path):
    """While this one was asleep, another has taken it over; when that has ended, this one has it again."""
    folder.save(small_checkpoint(1))
    for lock in folder.path.glob("owner-*"):
        lock.unlink()
    other = OwnedFolder(folder.path, 2)
    other.open(pytest.fail)
    before = _steps(folder)
    assert "it belongs to process" in folder.save(small_checkpoint(2))
    assert "it belongs to process" in folder.save_as("best.h5", small_checkpoint(2))
    assert _steps(folder) == before
    assert "the newest checkpoint" in folder.trouble and "best.h5" in folder.trouble
    other.close()
    assert "can be written" in folder.save(small_checkpoint(3))
    assert "best.h5" in folder.trouble and folder.lacks("best.h5")


def test_opening_removes_what_a_killed_run_has_left(tmp_path):
    """Temporary files of all kinds, and nothing else."""
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("step-00000006.tmp", "step-00000006.h5.abc.tmp", "best.h5.abc.tmp", "owner-x.tmp"):
        (runs / name).write_text("half")
    (runs / "mine.tmp").write_text("mine")
    folder = OwnedFolder(runs, 2)
    folder.open(pytest.fail)
    folder.close()
    assert [path.name for path in runs.iterdir()] == ["mine.tmp"]


@pytest.mark.parametrize("kept", [1, 3])
def test_so_many_are_kept(tmp_path, kept):
    """The newest ones."""
    folder = OwnedFolder(tmp_path, kept)
    folder.open(pytest.fail)
    for step in range(1, 6):
        folder.save(small_checkpoint(step))
    folder.close()
    assert [int(path.stem[5:]) for path in sorted(tmp_path.iterdir())] == list(range(6 - kept, 6))


def test_what_ranks_that_died_have_saved_is_not_pushed_out(folder):
    """The others train up to there again, and write from there on; earlier, if somebody removes it."""
    folder.kept, before = 1, folder.before
    folder.save(small_checkpoint(54))
    (newest,) = checkpoint_folder.own_now(folder.path, before)
    folder.own, folder.newest = [newest], newest
    folder.committed = checkpoint_folder.step_written(newest, before)
    assert folder.committed == 54 and folder.has(54) and not folder.has(55)
    assert folder.save(small_checkpoint(18), is_last=True) == ""
    folder.begin_saving(small_checkpoint(36))
    folder.wait()
    assert _steps(folder) == ["step-00000054.h5"] and folder.newest == newest
    newest.unlink()
    folder.save(small_checkpoint(45))
    assert _steps(folder) == ["step-00000045.h5"]
    folder.save(small_checkpoint(72))
    assert _steps(folder) == ["step-00000072.h5"]


def test_a_file_that_a_job_has_found_is_no_step_of_its_own(folder):
    """Whoever goes on from an older one means to train from there."""
    folder.save(small_checkpoint(54))
    newest = checkpoint_folder.newest_first(folder.path)[0]
    before = checkpoint_folder.Before((newest,), checkpoint_folder.newest_ns(folder.path))
    assert checkpoint_folder.step_written(newest, before) == 0


def test_an_old_one_that_cannot_be_removed_is_no_failed_save(folder):
    """A folder in its place, say, or another user's file in a folder with the sticky bit."""
    for step in (1, 2):
        folder.save(small_checkpoint(step))
    first, _ = folder.own
    first.unlink()
    first.mkdir()
    assert folder.save(small_checkpoint(3)) == "" == folder.trouble
    assert folder.newest == folder.path / "step-00000003.h5"
    assert folder.save(small_checkpoint(4)) == ""
    assert _steps(folder) == [f"step-0000000{step}.h5" for step in (1, 3, 4)]
