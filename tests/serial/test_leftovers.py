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


# Of the machine itself, and of a container with both of its own, or with the machine's name.
_MACHINE = {"pid": "pid:[4026531836]", "uts": "uts:[4026531838]"}
_CONTAINER = {"pid": "pid:[4026532001]", "uts": "uts:[4026532002]"}
_NAMED_AS_MACHINE = {**_CONTAINER, "uts": _MACHINE["uts"]}


def _be_in(root, namespaces):
    (root / "proc/self/ns").mkdir(parents=True, exist_ok=True)
    for kind, target in namespaces.items():
        (root / "proc/self/ns" / kind).unlink(missing_ok=True)
        (root / "proc/self/ns" / kind).symlink_to(target)


def _map(root, process, path):
    """Have a process map the file, by a path that its container has."""
    state = path.stat()
    device = f"{os.major(state.st_dev):02x}:{os.minor(state.st_dev):02x}"
    line = f"7f00-7f40 rw-s 00000000 {device} {state.st_ino} /other/place\n"
    (root / f"proc/{process}/maps").write_text(line)


@pytest.fixture
def root(tmp_path):
    for name in ("dev/shm", "proc/17", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/17/status").write_text("Name:\tx\nNSpid:\t17\t4\n")
    _be_in(tmp_path, _MACHINE)
    return tmp_path


def test_shared_files(root):
    left = _make(root / f"dev/shm/sm_segment.{_HOST}.0.1.0")
    whole = _make(root / f"dev/shm/vader_segment.{_HOST}.example.org.0.1.0")
    nameless = _make(root / "dev/shm/mpich_old")
    _map(root, 17, _make(root / f"dev/shm/sm_segment.{_HOST}.0.1.1"))
    _make(root / f"dev/shm/sm_segment.{_HOST}2.0.1.0")  # of another host
    _make(root / "dev/shm/sm_segment.another.0.1.0")
    _make(root / "dev/shm/mpich_young", age_seconds=5)
    _make(root / "dev/shm/somebody_elses")
    assert leftovers.shared_files(root) == sorted([left, whole, nameless])
    _be_in(root, _CONTAINER)
    assert leftovers.shared_files(root) == sorted([left, whole])


@pytest.mark.parametrize("namespaces", [_NAMED_AS_MACHINE, {}], ids=["its name", "not said"])
def test_what_another_containers_ranks_may_use_stays(root, namespaces):
    """Their processes cannot be seen."""
    for path in (root / "proc/self/ns").iterdir():
        path.unlink()
    _be_in(root, namespaces)
    _make(root / "dev/shm/mpich_old")
    _make(root / f"dev/shm/sm_segment.{_HOST}.0.1.0")
    assert leftovers.shared_files(root) == []


@pytest.mark.parametrize("namespaces", [_CONTAINER, _NAMED_AS_MACHINE])
def test_a_number_that_cannot_be_looked_up_is_not_dead(root, namespaces):
    _make(root / "tmp/ompi.16", is_folder=True)
    _be_in(root, namespaces)
    assert leftovers.session_folders(root / "tmp", root / "proc") == []


def test_session_folders(root):
    left = _make(root / "tmp/ompi.16", is_folder=True)
    _make(root / "tmp/ompi.17", is_folder=True)  # there is such a process
    _make(root / "tmp/ompi.4", is_folder=True)  # in a container
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


def _launcher(root, process, began_seconds_ago, name="hydra_pmi_proxy"):
    """A process of MPICH's launcher."""
    began_at = time.clock_gettime(time.CLOCK_BOOTTIME) - began_seconds_ago
    began = int(began_at * os.sysconf("SC_CLK_TCK"))
    (root / f"proc/{process}").mkdir(exist_ok=True)
    (root / f"proc/{process}/comm").write_text(f"{name}\n")
    fields = ["S", "1", *["0"] * 17, str(began), *["0"] * 30]
    (root / f"proc/{process}/stat").write_text(f"{process} (a) b) {' '.join(fields)}\n")


def _topology(root, name, age_seconds, host=_HOST):
    path = root / f"tmp/hydra_hwloc_xmlfile_{name}"
    path.write_text(f'<topology><info name="HostName" value="{host}"/></topology>\n')
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def test_topology_files(root):
    """Those before all launchers that live; of this host, and where processes can be seen."""
    left = _topology(root, "aAbB12", 500)
    named = _topology(root, "full__", 500, f"{_HOST}.example.org")
    later = _topology(root, "later1", 200)
    _topology(root, "other1", 500, "another")
    _topology(root, "young1", 5)
    _topology(root, "toolong1", 500)
    folder, processes = root / "tmp", root / "proc"
    assert leftovers.topology_files(folder, processes) == sorted([left, named, later])
    _launcher(root, 18, 100, name="python")
    assert leftovers.topology_files(folder, processes) == sorted([left, named, later])
    _launcher(root, 19, 300)
    assert leftovers.topology_files(folder, processes) == sorted([left, named])
    (root / "proc/19/stat").write_text("")  # nobody knows when it began
    assert leftovers.topology_files(folder, processes) == []
    (root / "proc/19/comm").unlink()
    _be_in(root, _CONTAINER)
    assert leftovers.topology_files(folder, processes) == []
