"""A checkpoint is written by a thread: the run goes on meanwhile, one file at a time, and what goes wrong is told to the run."""

import dataclasses
import threading

import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.owned_folder import OwnedFolder
from tests.serial.made_checkpoints import small_checkpoint
from tests.serial.raw_files import full_disk


@pytest.fixture
def folder(tmp_path):
    made = OwnedFolder(tmp_path / "runs", kept=2)
    made.open(pytest.fail)
    yield made
    made.close()


@pytest.fixture
def held(monkeypatch):
    """Writing begins, and goes on when the event is set."""
    write, may_go_on = checkpoint_folder.write_file, threading.Event()

    def write_held(*arguments):
        assert may_go_on.wait(30)
        write(*arguments)

    monkeypatch.setattr(checkpoint_folder, "write_file", write_held)
    return may_go_on


def _steps(folder):
    return sorted(path.name for path in folder.path.iterdir() if path.suffix == ".h5")


def test_the_one_before_is_the_newest_until_the_file_is_whole(folder, held):
    """And then it has the bytes of one that was written at once."""
    folder.begin_saving(small_checkpoint(1))
    assert _steps(folder) == [] and folder.newest is None
    held.set()
    folder.wait()
    written = folder.newest.read_bytes()
    assert _steps(folder) == ["step-00000001.h5"] and folder.write_seconds > 0
    folder.save(small_checkpoint(1))
    assert folder.newest.read_bytes() == written
    assert folder.news() == []


def test_one_is_written_after_the_other(folder, held):
    """The second waits for the first, and so does whoever asks whether all is well, or gives the folder back."""
    folder.begin_saving(small_checkpoint(1))
    release = threading.Timer(0.1, held.set)
    release.start()
    folder.begin_saving(small_checkpoint(2))
    assert "step-00000001.h5" in _steps(folder)
    assert folder.trouble == ""
    assert _steps(folder) == ["step-00000001.h5", "step-00000002.h5"]
    folder.begin_saving(small_checkpoint(3))
    folder.close()
    assert _steps(folder) == ["step-00000002.h5", "step-00000003.h5"]
    for name in _steps(folder):
        checkpoint.verify(folder.path / name)
    assert [path.suffix for path in folder.path.iterdir()] == [".h5", ".h5"]


def test_a_full_disk_is_told_to_the_run(folder):
    """One line, no file and no leftover; the next one tries again, and that is said, too."""
    folder.begin_saving(small_checkpoint(1))
    folder.wait()
    with full_disk(1500):
        folder.begin_saving(small_checkpoint(2))
        assert "File too large" in folder.trouble
    (line,) = folder.news()
    assert line.startswith("cannot write the newest checkpoint") and "training goes on" in line
    assert _steps(folder) == ["step-00000001.h5"] and folder.newest.name == "step-00000001.h5"
    folder.begin_saving(small_checkpoint(3))
    folder.wait()
    assert folder.news() == [f"can be written to {folder.path} again: the newest checkpoint"]
    assert folder.trouble == "" and _steps(folder) == ["step-00000001.h5", "step-00000003.h5"]


@pytest.mark.parametrize("ask", ["wait", "news"])
def test_an_error_of_the_program_is_raised_where_the_run_is(folder, ask):
    """Once; a thread would have printed it, and the run would have gone on without checkpoints."""
    nameless = dataclasses.replace(small_checkpoint(1), attributes={})
    folder.begin_saving(nameless)
    folder._thread.join()
    with pytest.raises(KeyError, match="step"):
        getattr(folder, ask)()
    folder.begin_saving(small_checkpoint(1))
    folder.wait()
    assert _steps(folder) == ["step-00000001.h5"]


def test_it_needs_a_folder():
    """Like the other options of checkpoints."""
    with pytest.raises(ConfigurationError, match=r"--async-save: expected a folder"):
        Config(async_save=True)
