"""How a rank's process has ended, as its neighbours find out: by which signal, for lack of memory, and where it was.

status    of a process that waits for its parent to look, /proc/PID/stat has it; of one that is gone, its descriptor (Linux 6.15)
memory    the out-of-memory killer sends SIGKILL like anybody; but its counters, of the control group and of the machine, have moved
stack     ``faulthandler`` of a rank that crashes writes it to a file in memory, which its neighbours have opened at the start
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if not __package__:  # imported by a file that was started
    sys.path.append(str(Path(__file__).resolve().parents[2]))
from lepton_mpi.control_groups import hierarchies, lines_of
from lepton_mpi.processes import look_at

if TYPE_CHECKING:
    from lepton_mpi.world.heartbeats import Heartbeat, Host

# Of ranks that a launcher ends, as nobody knows how they ended, or by its signals.
_BY_LAUNCHERS = (None, signal.SIGKILL, signal.SIGTERM)
_STANDARD_ERROR = 2
# ``struct pidfd_info`` in its first version: 64 bytes, the wanted parts first, and the exit status behind 14 numbers.
_PIDFD_GET_INFO, _PIDFD_INFO_EXIT, _INFO_BYTES = 0xC040FF0B, 8, 64
_STATUS_AT = 60

_OOM_KILL = "oom_kill"
# Of control groups of version 2 and 1: the file with the counter, that with the limit.
_UNIFIED = "memory.events", "memory.max"
_OLD = "memory.oom_control", "memory.limit_in_bytes"
# What version 1 has for no limit is more than any machine has.
_LIMIT_BYTES_MAX = 1 << 60


def wait_status(process_id: int, descriptor: int = -1) -> int | None:
    """Status, as ``os.wait`` gives it, of a process of this user that has ended; None if nothing tells it any more.

    ``descriptor`` is one of ``os.pidfd_open``, or -1.
    """
    found = look_at(process_id)
    if found and found.has_ended:
        return found.status
    if descriptor < 0:
        return None
    with suppress(OSError):
        info = bytearray(struct.pack("Q", _PIDFD_INFO_EXIT).ljust(_INFO_BYTES, b"\0"))
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, info)
        if struct.unpack_from("Q", info)[0] & _PIDFD_INFO_EXIT:
            return int(struct.unpack_from("i", info, _STATUS_AT)[0])
    return None


def cause(status: int | None) -> str:
    """A status for people; empty of one that nobody knows.

    >>> cause(9), cause(11), cause(3 << 8), cause(None)
    ('SIGKILL', 'SIGSEGV (Segmentation fault)', 'exit code 3', '')
    """
    if status is None:
        return ""
    if not os.WIFSIGNALED(status):
        return f"exit code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    meaning = signal.strsignal(number)
    return name if number == signal.SIGKILL or not meaning else f"{name} ({meaning})"


class MemoryKills:
    """Whether the out-of-memory killer has ended a process of this process's control group since this object was made.

    Linux counts a process in its own group, whichever limit it was that had been reached. Where no group counts, the machine does.

    Parameters
    ----------
    root : Path
        Where proc and sys are; another one is for tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._counter, self._limits = _counter_and_limits(root)
        self._before = _count(self._counter)

    def text(self) -> str:
        """What has happened, for people; empty if nothing has."""
        if _count(self._counter) <= self._before:
            return ""
        limits = [
            int(line) for path in self._limits for line in lines_of(path)[:1] if line.isdigit()
        ]
        limit = min(limits, default=_LIMIT_BYTES_MAX)
        if limit >= _LIMIT_BYTES_MAX:
            return "out of memory: the machine has none left"
        return f"out of memory: the job's control group may take {limit / 2**20:.0f} MiB"


def causes(status: int | None, memory_kills: MemoryKills) -> str:
    """What follows a report of a death: its cause, as far as it is known."""
    found = [cause(status)]
    if status in (None, signal.SIGKILL):
        found.append(memory_kills.text())
    return "".join(f", {text}" for text in found if text)


class Ended(NamedTuple):
    """A rank of the host that has ended before its time.

    Attributes
    ----------
    local_rank : int
    status : int or None
        See ``wait_status``.
    stack : str
        What ``faulthandler`` has written of it.
    """

    local_rank: int
    status: int | None
    stack: str


def first_of(ended: list[Ended]) -> list[Ended]:
    """Of ranks that were found dead together the one that has died by itself; all of them where nothing tells it.

    Launchers end the other ranks within milliseconds, and descriptors have no order.
    """
    for found in (
        [each for each in ended if each.stack],
        [each for each in ended if each.status not in _BY_LAUNCHERS],
    ):
        if found:
            return found[:1]
    return ended


def report(
    host: Host,
    beats: list[Heartbeat],
    ended: list[Ended],
    memory_kills: MemoryKills,
    place: str = "",
) -> list[str]:
    """Lines of ``Host.death_report`` on ranks that were found dead together; ``beats`` by local rank."""
    named = first_of(ended)
    statuses = [each.status for each in named if each.status is not None]
    why = causes(statuses[0] if statuses else None, memory_kills)
    local_ranks = [each.local_rank for each in named]
    return host.death_report(local_ranks, beats, why, named[0].stack, place)


def _counter_and_limits(root: Path) -> tuple[Path, list[Path]]:
    """The file with the counter of this process's own group, and those of the limits of all groups that it is in."""
    for is_unified, folders in hierarchies("memory", root):
        counter, limit = _UNIFIED if is_unified else _OLD
        groups = [group for group in folders if (group / counter).exists()]
        if groups:
            return groups[0] / counter, [group / limit for group in groups]
    return root / "proc/vmstat", []


def _count(path: Path) -> int:
    found = (line.split() for line in lines_of(path))
    return next((int(words[1]) for words in found if words[:1] == [_OOM_KILL]), 0)


class CrashStacks:
    """Where the ranks of a host leave their stacks when they crash, and what this rank reads there of another one.

    A rank alone leaves it on standard error, since nobody would read it. Does nothing where somebody else has enabled ``faulthandler``.
    Once enabled here it stays so, and writes to standard error after ``close``: to disable it would also take away a handler that
    came later for one of its signals, such as SIGBUS.

    Parameters
    ----------
    process_ids, files : list of int
        By local rank: of the processes, and of their descriptors of the files.
    local_rank : int
        This rank's.
    """

    _has_enabled: ClassVar[bool] = False

    def __init__(self, process_ids: list[int], files: list[int], local_rank: int) -> None:
        self._opened: list[int] = []
        if len(process_ids) > 1:
            for process_id, file in zip(process_ids, files, strict=True):
                opened = -1
                with suppress(OSError):  # no room for more descriptors: a report without a stack
                    opened = os.open(f"/proc/{process_id}/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
                self._opened.append(opened)
        self._is_ours = CrashStacks._has_enabled or not faulthandler.is_enabled()
        if self._is_ours:
            with suppress(OSError, ValueError, AttributeError, RuntimeError):  # closed, or no file
                if self._opened:
                    faulthandler.enable(file=files[local_rank], all_threads=False)
                else:
                    faulthandler.enable(all_threads=False)
                CrashStacks._has_enabled = True

    def of(self, local_rank: int) -> str:
        """What a rank has left; empty if it has not crashed."""
        with suppress(OSError, IndexError):
            file = self._opened[local_rank]
            return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")
        return ""

    def close(self) -> None:
        """Nothing is left any more."""
        if self._is_ours and faulthandler.is_enabled():
            # The file's descriptor may soon be another file's.
            faulthandler.enable(file=_STANDARD_ERROR, all_threads=False)
        for file in self._opened:
            if file >= 0:
                os.close(file)
        self._opened = []
