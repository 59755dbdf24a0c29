"""A folder of a process that was killed goes with the next one; others stay."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from lepton_mpi import own_folders

_HOLDS = """
import sys
from lepton_mpi.own_folders import temporary_folder
with temporary_folder() as folder:
    (folder / "rows").write_bytes(bytes(9))
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def _holder() -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", _HOLDS], stdin=pipe, stdout=pipe, text=True)


def test_of_a_killed_process_it_goes_with_the_next(temporary):
    """That of a process that lives stays, of the same program and of another."""
    with _holder() as killed, _holder() as lives:
        gone, stays = killed.stdout.readline().strip(), lives.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert os.path.exists(gone)
        with own_folders.temporary_folder() as mine:
            assert sorted(temporary.iterdir()) == sorted(map(type(mine), (stays, str(mine))))
            own_folders.remove_left()
            assert mine.is_dir()
        lives.stdin.close()
        lives.wait()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "lepton_mpi-abc",
        "lepton_mpi-kernels-0",
        "lepton_mpi-{start}-1-{process}-1-a",
        "lepton_mpi-00000000-{space}-{process}-1-a",
        "lepton_mpi-{start}-{space}-{process}-1",
    ],
)
def test_what_may_be_of_others_stays(temporary, name):
    """Of another machine or container, or of no process that is named."""
    start, space = own_folders._here().split("-")[1:]
    with _holder() as ended:
        ended.stdin.close()
    path = temporary / name.format(start=start, space=space, process=ended.pid)
    path.mkdir()
    own_folders.remove_left()
    assert path.exists()


def test_a_number_that_another_process_has_now_does_not_keep_it(temporary):
    """Linux gives numbers anew."""
    path = temporary / f"{own_folders._here()}-{os.getpid()}-1-abc"
    path.mkdir()
    own_folders.remove_left()
    assert not path.exists()
