"""How a process has ended: by its status, while it waits for its parent and when it is gone, and by the counters of a lack of memory."""

import fcntl
import os
import signal
import struct
import subprocess
import sys

import pytest

from lepton_mpi import report_word
from lepton_mpi.world import deaths, heartbeats, witness


@pytest.mark.parametrize(
    ("program", "cause"),
    [
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV (Segmentation fault)"),
        ("import os; os._exit(3)", "exit code 3"),
        ("", "exit code 0"),
    ],
)
def test_the_status_of_a_process_that_has_ended(program, cause):
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", program]) as process:
        descriptor = os.pidfd_open(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it still waits for its parent
        assert deaths.cause(deaths.wait_status(process.pid)) == cause
        process.wait()
        found = deaths.cause(deaths.wait_status(process.pid, descriptor))
        assert found in (cause, "")  # Linux before 6.15 does not tell
        assert deaths.wait_status(process.pid) is None
        os.close(descriptor)


def test_a_living_process_has_no_status():
    assert deaths.wait_status(os.getpid()) is None


_VERSIONS = {
    "version 2": ("0::/job\n", "sys/fs/cgroup/job", "memory.events", "memory.max"),
    "version 1": (
        "4:memory:/job\n0::/\n",
        "sys/fs/cgroup/memory/job",
        "memory.oom_control",
        "memory.limit_in_bytes",
    ),
}


@pytest.mark.parametrize("version", _VERSIONS)
@pytest.mark.parametrize(
    ("limit", "parent", "said"),
    [
        (str(512 << 20), "max", "out of memory: the job's control group may take 512 MiB"),
        ("max", str(2 << 30), "out of memory: the job's control group may take 2048 MiB"),
        ("max", "9223372036854771712", "out of memory: the machine has none left"),
    ],
)
def test_a_kill_for_lack_of_memory_is_counted(tmp_path, version, limit, parent, said):
    """In the process's own group, whichever group's limit it was."""
    groups, folder, counter, limits = _VERSIONS[version]
    place = tmp_path / folder
    place.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    (place / limits).write_text(limit + "\n")
    (place.parent / limits).write_text(parent + "\n")
    for each, count in ((place, 2), (place.parent, 5)):
        (each / counter).write_text(f"low 0\noom_kill {count}\n")
    found = deaths.MemoryKills(tmp_path)
    (place.parent / counter).write_text("low 0\noom_kill 9\n")
    assert found.text() == ""  # of another job
    (place / counter).write_text("low 0\noom_kill 3\n")
    assert found.text() == said


def test_where_no_group_counts_the_machine_does(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "proc/vmstat").write_text("nr_free 1\noom_kill 4\n")
    found = deaths.MemoryKills(tmp_path)
    assert found.text() == ""
    (tmp_path / "proc/vmstat").write_text("nr_free 1\noom_kill 5\n")
    assert found.text() == "out of memory: the machine has none left"


_CRASHING = """
import ctypes, os, sys
from lepton_mpi.world.deaths import CrashStacks
file = int(sys.argv[1])
stacks = CrashStacks([os.getpid(), os.getpid()], [file, file], 1)
def a_function():
    ctypes.string_at(0)
a_function()
"""


def test_a_crash_leaves_its_stack():
    """In the file that the neighbours have opened."""
    file = os.memfd_create("stack", 0)
    ended = subprocess.run(
        [sys.executable, "-c", _CRASHING, str(file)], pass_fds=[file], stderr=subprocess.PIPE
    )
    assert ended.returncode == -signal.SIGSEGV, ended.stderr
    assert ended.stderr == b""
    neighbour = deaths.CrashStacks([os.getpid(), os.getpid()], [file, file], 0)
    text = neighbour.of(1)
    neighbour.close()
    os.close(file)
    assert "Segmentation fault" in text and "in a_function" in text


def _ended(*statuses, stack_of=None):
    return [deaths.Ended(n, s, "a stack" * (n == stack_of)) for n, s in enumerate(statuses)]


@pytest.mark.parametrize(
    ("ended", "first"),
    [
        (_ended(signal.SIGKILL), [0]),
        (_ended(signal.SIGKILL, signal.SIGKILL), [0, 1]),
        (_ended(None, None, None), [0, 1, 2]),
        (_ended(signal.SIGKILL, signal.SIGSEGV), [1]),
        (_ended(signal.SIGTERM, 3 << 8, signal.SIGKILL), [1]),
        (_ended(None, None, stack_of=1), [1]),
        (_ended(3 << 8, signal.SIGABRT, stack_of=1), [1]),
    ],
)
def test_of_ranks_that_are_dead_at_once_the_first_one_is_told(ended, first):
    """By a stack, or by a status that launchers do not give."""
    assert [each.local_rank for each in deaths.first_of(ended)] == first


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        ((signal.SIGKILL, signal.SIGSEGV), "lepton_mpi: rank 5 of 8 (process {1}) died: "),
        ((signal.SIGKILL, signal.SIGKILL), "lepton_mpi: one of ranks 4, 5 of 8 died: "),
    ],
)
def test_the_witness_names_who_died_by_itself(signals, said):
    """And no rank where nothing tells it. Both are dead when it looks."""
    file = os.memfd_create("heartbeats")
    os.truncate(file, heartbeats.file_bytes(2))
    ranks = [subprocess.Popen(["sleep", "100"]) for _ in signals]
    for rank, number in zip(ranks, signals, strict=True):
        rank.send_signal(number)
        os.waitid(os.P_PID, rank.pid, os.WEXITED | os.WNOWAIT)
    host = heartbeats.Host(8, [4, 5], [rank.pid for rank in ranks], [99, 99], [99, 99], 60.0)
    words = [sys.executable, "-I", "-S", witness.__file__, host.to_json(0), str(file)]
    found = subprocess.run(words, pass_fds=[file], capture_output=True, text=True, timeout=60)
    assert found.stderr.startswith(said.format(*host.process_ids)), found
    assert found.stderr.splitlines()[0].endswith(signals[1].name) or "SIGSEGV (" in found.stderr
    for rank in ranks:
        rank.wait()
    os.close(file)


# Killed between its word that it reports and the report: by the launcher, which ends the others of a rank that has died.
_KILLED_IN_ITS_REPORT = """
import mmap, os, signal, sys
import numpy as np
from lepton_mpi.world import failure
file = os.open(f"/proc/self/fd/{sys.argv[1]}", os.O_RDWR)
failure._flush = lambda: os.kill(os.getpid(), signal.SIGKILL)
failure.Failure(4, 8, file, np.frombuffer(mmap.mmap(file, 0), np.int64, 1)).fail("its report")
"""


def test_the_witness_reports_for_a_rank_that_was_killed_in_its_report():
    """Nobody else is left then."""
    file = os.memfd_create("heartbeats")
    os.truncate(file, heartbeats.file_bytes(2))
    killed = subprocess.Popen(
        [sys.executable, "-c", _KILLED_IN_ITS_REPORT, str(file)], pass_fds=[file]
    )
    crashed = subprocess.Popen(["sleep", "100"])
    crashed.send_signal(signal.SIGSEGV)
    for rank in (killed, crashed):
        os.waitid(os.P_PID, rank.pid, os.WEXITED | os.WNOWAIT)
    host = heartbeats.Host(8, [4, 5], [killed.pid, crashed.pid], [99, 99], [99, 99], 60.0)
    words = [sys.executable, "-I", "-S", witness.__file__, host.to_json(0), str(file)]
    found = subprocess.run(words, pass_fds=[file], capture_output=True, text=True, timeout=60)
    assert (killed.wait(), crashed.wait()) == (-signal.SIGKILL, -signal.SIGSEGV)
    os.close(file)
    assert found.stderr.startswith(f"lepton_mpi: rank 5 of 8 (process {crashed.pid}) died: "), found


def test_the_witness_waits_for_a_rank_that_reports():
    """Also for the first one, whose descriptor it has inherited, and with it, had it no other, its lock."""
    file = os.memfd_create("heartbeats")
    os.truncate(file, heartbeats.file_bytes(1))
    dead = subprocess.Popen(["true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    host = heartbeats.Host(8, [4], [dead.pid], [99], [99], 60.0)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.pwrite(file, struct.pack("q", report_word.reporting_with(5)), 0)
    words = [sys.executable, "-I", "-S", witness.__file__, host.to_json(0), str(file)]
    with subprocess.Popen(words, pass_fds=[file], stderr=subprocess.PIPE) as looking:
        with pytest.raises(subprocess.TimeoutExpired):
            looking.wait(2)
        os.pwrite(file, struct.pack("q", report_word.reported_with(5)), 0)
        fcntl.flock(file, fcntl.LOCK_UN)
        assert looking.communicate(timeout=60) == (None, b"")
    dead.wait()
    os.close(file)
