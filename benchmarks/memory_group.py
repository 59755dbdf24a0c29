"""A group of processes that may take only so much memory: a cgroup of Linux, version 1 or 2, where one can be made.

    memory           counts towards the limit            what is left when it is reached
    of the program   yes: heap, stacks, memory shared    nothing: a process is killed
    page cache       yes: of the files that it reads     the system forgets pages of it

A program that reads a file larger than the limit therefore always comes to touch the limit, which is no fault. What it
needs itself is the first line alone, and is looked at 50 times a second.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Launch

_ROOT = Path("/sys/fs/cgroup")
_LOOK_SECONDS = 0.02
_REMOVE_TRIES = 100


@dataclass
class MemoryGroup:
    """One group and what was seen of it.

    Attributes
    ----------
    program_peak : int
        Most bytes that the processes had without page cache, as far as was looked at.
    peak : int
        The same with page cache, as the system counted it.
    failed_charges : int
        How often the limit was reached.
    kills : int
        Processes that were killed for it.
    """

    folder: Path
    version: int
    program_peak: int = 0
    peak: int = 0
    failed_charges: int = 0
    kills: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def inside(self, launch: Launch) -> Launch:
        """The launch with all its processes in the group."""
        enter = 'echo $$ > "$0" && exec "$@"'
        command = ("sh", "-c", enter, str(self.folder / "cgroup.procs"), *launch.command)
        return Launch(launch.label, command, launch.environment, launch.limit_seconds)

    def program_bytes(self) -> int:
        """Memory of the processes now, without page cache."""
        return program_bytes_of((self.folder / "memory.stat").read_text(), self.version)

    def watch(self) -> None:
        """Note the peak until ``end_watch``."""
        while not self._over.wait(_LOOK_SECONDS):
            self.program_peak = max(self.program_peak, self.program_bytes())

    def end_watch(self) -> None:
        """Look no more."""
        self._over.set()

    def close(self) -> None:
        """Read what the system has counted, and remove the group. No process may be left in it."""
        if self.version == 1:
            self.peak = self._number("memory.max_usage_in_bytes")
            self.failed_charges = self._number("memory.failcnt")
            self.kills = _value((self.folder / "memory.oom_control").read_text(), "oom_kill")
        else:
            events = (self.folder / "memory.events").read_text()
            if (self.folder / "memory.peak").exists():  # since Linux 5.19
                self.peak = self._number("memory.peak")
            self.failed_charges, self.kills = _value(events, "max"), _value(events, "oom_kill")
        self._remove()

    def _remove(self) -> None:
        """Remove the folder, which waits for processes that are just ending."""
        for _ in range(_REMOVE_TRIES - 1):
            try:
                return self.folder.rmdir()
            except OSError:
                time.sleep(_LOOK_SECONDS)
        return self.folder.rmdir()

    def _number(self, name: str) -> int:
        return int((self.folder / name).read_text())


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup | None]:
    """A new group with this limit; None, after a line that says why, where none can be made."""
    try:
        group = _make(limit_bytes)
    except OSError as error:
        print(f"no memory limit: {error}; memory is only measured", flush=True)
        yield None
        return
    watcher = threading.Thread(target=group.watch, daemon=True)
    watcher.start()
    try:
        yield group
    finally:
        group.end_watch()
        watcher.join()
        group.close()


def program_bytes_of(stat: str, version: int) -> int:
    """Memory without page cache from the text of ``memory.stat``.

    >>> program_bytes_of("cache 900\\nrss 70\\nshmem 5\\ntotal_rss 80\\ntotal_shmem 10\\n", 1)
    90
    >>> program_bytes_of("anon 40\\nfile 900\\nkernel_stack 2\\nshmem 10\\n", 2)
    50
    """
    names = ("total_rss", "total_shmem") if version == 1 else ("anon", "shmem")
    return sum(_value(stat, name) for name in names)


def _value(text: str, name: str) -> int:
    found = (line.split() for line in text.splitlines())
    return next((int(words[1]) for words in found if words and words[0] == name), 0)


def _make(limit_bytes: int) -> MemoryGroup:
    version = 2 if (_ROOT / "cgroup.controllers").exists() else 1
    parent, limit = (
        (_ROOT, "memory.max") if version == 2 else (_ROOT / "memory", "memory.limit_in_bytes")
    )
    folder = parent / f"lepton-loader-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / limit).write_text(str(limit_bytes))
    except OSError:
        folder.rmdir()
        raise
    return MemoryGroup(folder, version)
