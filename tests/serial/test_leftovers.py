"""What a dead job has left is removed, what a living one uses, what is young and what is another's stays."""

import os
import socket
import time

import pytest

from lepton_mpi.world import leftovers

_HOST = socket.gethostname().partition(".")[0]


def _make(path, age_seconds=120.0, is_folder=False):
    if is_folder:
        (path / "1").mkdir(parents=True)
        (path / f"pmix.{_HOST}.tool").write_text("")
    else:
        path.write_text("")
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


@pytest.fixture
def root(tmp_path):
    for name in ("dev/shm", "proc/17", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/17/maps").write_text(
        "7f00-7f40 rw-s 0 00:01 1 /dev/shm/sm_segment.vm.0.1.1\n"
    )
    return tmp_path


def test_shared_files(root):
    left = _make(root / "dev/shm/sm_segment.vm.0.1.0")
    _make(root / "dev/shm/sm_segment.vm.0.1.1")  # of process 17
    _make(root / "dev/shm/mpich_young", age_seconds=5)
    _make(root / "dev/shm/somebody_elses")
    assert leftovers.shared_files(root) == [left]


def test_session_folders(root):
    left = _make(root / "tmp/ompi.16", is_folder=True)
    _make(root / "tmp/ompi.17", is_folder=True)  # there is such a process
    _make(root / "tmp/ompi.18", age_seconds=5, is_folder=True)
    _make(root / "tmp/ompi.19")
    other = _make(root / "tmp/ompi.20", is_folder=True)
    (other / f"pmix.{_HOST}.tool").rename(other / "pmix.another.tool")
    os.utime(other, (0, 0))
    (root / "tmp/ompi.21").symlink_to(left)
    assert leftovers.session_folders(root / "tmp", root / "proc") == [left]


def test_folders_that_are_not_there(tmp_path):
    assert leftovers.shared_files(tmp_path) == []
    assert leftovers.session_folders(tmp_path / "nowhere", tmp_path) == []
