"""What the doctor finds out about a machine, from files that say what machines are like."""

import os
import socket
import time
from types import SimpleNamespace

import pytest

from lepton_mpi.doctor import (
    core_latency,
    cores,
    memory,
    network,
    pages,
    storage,
)
from lepton_mpi.doctor.host_facts import examine


def _write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_cores_of_a_machine(tmp_path):
    """Those that are on and in the cpuset, their hyperthreads, quota and load."""
    cpus = tmp_path / "sys/devices/system/cpu"
    for core in range(8):
        folder = cpus / f"cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    (cpus / "online").write_text("0-6\n")
    _write(tmp_path, proc__loadavg="1.50 1 1 1/1 1\n", proc__self__cgroup="0::/job\n")
    group = tmp_path / "sys/fs/cgroup/job"
    group.mkdir(parents=True)
    (group / "cpuset.cpus.effective").write_text("0-1,4-7\n")
    (group / "cpu.max").write_text("300000 100000\n")
    found = cores.gather({0: [0]}, tmp_path)
    assert found.available == [0, 1, 4, 5, 6]
    assert found.siblings[1] == [1, 5]
    assert (found.quota, found.load, cores.usable(found)) == (3, 1.5, 1)


def test_cores_without_any_files(tmp_path):
    """Then those of the ranks are all that is known."""
    found = cores.gather({0: [2, 3], 1: [3, 4]}, tmp_path)
    assert found == cores.Facts({0: [2, 3], 1: [3, 4]}, [2, 3, 4])


def test_leftovers_are_found_and_removed(tmp_path):
    """Files of MPI that are old and that no process has in its memory; nothing else is touched."""
    shared = tmp_path / "dev/shm"
    shared.mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    kinds = (
        "sm_segment.{}.dead",
        "vader_segment.{}.dead",
        "sm_segment.{}.used",
        "sm_segment.{}.new",
    )
    names = (*(kind.format(host) for kind in kinds), "mine")
    for name in names:
        (shared / name).write_bytes(b"x" * 5000)
        os.utime(shared / name, (0, time.time() if name.endswith("new") else 1e9))
    _write(tmp_path, proc__meminfo="MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\n")
    used = (shared / names[2]).stat()
    device = f"{os.major(used.st_dev):02x}:{os.minor(used.st_dev):02x}"
    _write(
        tmp_path,
        proc__self__cgroup="",
        proc__77__maps=f"7f-8f rw-s 0 {device} {used.st_ino} /dev/shm/sm_segment.used\n",
    )
    (tmp_path / "proc/self/ns").mkdir()
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    found = memory.gather(1, root=tmp_path)
    dead = [str(shared / name) for name in names[:2]]
    assert found.left == dead and found.left_bytes >= 8192
    assert found.total == 4_000_000 << 10 and found.free == 3_000_000 << 10
    removed = memory.gather(1, True, root=tmp_path)
    assert (removed.left, removed.removed) == ([], 2)
    assert sorted(path.name for path in shared.iterdir()) == sorted(names[2:])
    assert memory.gather(1, root=tmp_path).left == []


def test_room_of_shared_memory(tmp_path):
    """As the file system says; none where there is no folder."""
    _write(tmp_path, proc__meminfo="", proc__self__cgroup="")
    full = SimpleNamespace(f_frsize=4096, f_bavail=1024, f_blocks=16384)
    found = memory.gather(1, root=tmp_path, statvfs=lambda path: full)
    assert (found.shared_free, found.shared_total) == (4 << 20, 64 << 20)
    assert memory.gather(1, root=tmp_path).shared_total == 0


def test_large_pages_of_a_machine(tmp_path):
    """The word in brackets; empty without the files."""
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "enabled").write_text("always madvise [never]\n")
    found = pages.gather(tmp_path)
    assert (found.enabled, found.shared) == ("never", "")


def test_interfaces_of_a_machine(tmp_path):
    """Those that are up, with their speeds; a bridge has no device."""
    net = tmp_path / "sys/class/net"
    for name, state, speed in (
        *(("eth0", "up", "10000"), ("eth1", "down", "-1"), ("lo", "unknown", "")),
        ("br0", "up", "-1"),
    ):
        (net / name).mkdir(parents=True)
        (net / name / "operstate").write_text(state + "\n")
        (net / name / "speed").write_text(speed + "\n")
    (net / "eth0/device").mkdir()
    assert network.gather(tmp_path) == [
        network.Interface("br0", 0, True),
        network.Interface("eth0", 10000),
    ]
    assert network.gather(tmp_path / "none") == []


def test_a_folder_is_tried(tmp_path):
    """Locks, HDF5, reading; nothing stays in it."""
    found = storage.gather(tmp_path, None, {}, 60.0)
    assert found.trial.hdf5 and found.trial.h5py and found.trial.read_bytes_per_second > 0
    assert not found.trial.lock_error and not found.trial.hdf5_error
    assert list(tmp_path.iterdir()) == []
    data = tmp_path / "data"
    data.write_bytes(bytes(3 << 20))
    assert storage.gather(tmp_path, data, {}, 60.0).trial.read_bytes_per_second > 0
    gone = storage.gather(tmp_path, tmp_path / "gone", {}, 60.0)
    assert gone.trial.not_readable == "No such file or directory"


def test_a_folder_that_does_not_answer(tmp_path):
    """The program that tries it is left behind."""
    with pytest.raises(TimeoutError):
        storage._try(tmp_path, None, 0.001)


def test_latency_between_cores():
    """Positive, and the binding of this thread is as before."""
    mine = os.sched_getaffinity(0)
    found = core_latency.gather(sorted(mine))
    assert os.sched_getaffinity(0) == mine
    assert all(1 < nanoseconds < 1e6 for nanoseconds in found.nanoseconds.values())
    assert core_latency.gather([min(mine)]).nanoseconds == {}


def test_a_partner_that_never_answers_is_given_up():
    """Both threads of a pair end, whatever the other does."""
    import numpy as np

    from lepton_mpi.doctor import core_latency_kernels as kernels

    words = np.zeros(kernels.WORDS, np.int64)
    kernels.answer(words, 1, 5, 1000)
    assert words[kernels.GAVE_UP] == 1
    words[0] = 0
    kernels.answer(words, 0, 5, 10**9)  # answers once, then sees that the other has given up
    assert words[0] == 1


def test_a_check_that_is_late_or_fails_is_told_apart():
    """The others are carried out all the same."""

    def raising():
        raise ValueError("of this kind")

    def late():
        raise TimeoutError

    checks = {"a": lambda: 1, "b": raising, "c": late, "d": lambda: time.sleep(30), "e": lambda: 2}
    found = examine(checks, 0.2)
    assert found.found == {"a": 1, "e": 2}
    assert found.late == ["c", "d"]
    assert found.failed == {"b": "ValueError: of this kind"}


def test_many_late_checks_do_not_add_up():
    """What there is no time for is late, too."""
    began = time.monotonic()
    checks = {str(number): lambda: time.sleep(30) for number in range(20)}
    assert examine(checks, 0.2).late == list(checks)
    assert time.monotonic() - began < 5
