"""What Linux tells of a process: its state, its parent, when it began, its words. Of any process of the host, without rights to it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

# Fields 22 and 52 of ``proc(5)``, counted behind the name, which is field 2.
_BEGAN, _STATUS = 19, 49


class Process(NamedTuple):
    """A process that has a number.

    Attributes
    ----------
    state : str
        The letter of ``proc(5)``: R runs, S sleeps, T is stopped, Z has ended and waits for its parent to take notice.
    parent : int
        Its parent's number.
    began : int
        Clock ticks from the boot to its begin: with the number it says which process it is, since numbers are given anew.
    status : int
        Once it has ended, as ``os.wait`` gives it; 0 for a process of another user.
    """

    state: str
    parent: int
    began: int
    status: int

    @property
    def has_ended(self) -> bool:
        """Whether nothing but its number is left."""
        return self.state in "ZX"


def look_at(process_id: int | str, processes: Path = Path("/proc")) -> Process | None:
    """The process of a number, or ``self``; None if there is none, or where Linux does not say it. ``processes`` is another place for tests."""
    try:
        # The name in brackets may have any bytes, brackets and spaces among them.
        text = (processes / f"{process_id}/stat").read_bytes().rpartition(b")")[2]
    except OSError:
        return None
    words = text.decode("ascii", "replace").split()
    if len(words) <= _STATUS:
        return None
    return Process(words[0], int(words[1]), int(words[_BEGAN]), int(words[_STATUS]))


def is_there(process_id: int, began: int) -> bool:
    """Whether the process of that number is still the one that began then."""
    found = look_at(process_id)
    return found is not None and not found.has_ended and found.began == began


def seconds_since(ticks: int) -> float:
    """From a process's ``began``, or any time in ticks since the boot, until now."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def words_of(process_id: int | None) -> list[str]:
    """With which a process was started, the last one empty; none if it is gone."""
    try:
        content = Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return []
    return content.decode(errors="replace").split("\0")


def start_of_machine() -> str:
    """Another one each time that this machine starts; empty where Linux does not say it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def number_space() -> str:
    """In which process numbers mean what they do here: a container has its own. Empty where Linux does not say it."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def loaded_library(name: str) -> str | None:
    """Path of the file of a shared library, ``libmpi`` say, that this process has loaded; None if it has not. Raises OSError."""
    found = re.search(rf"/\S*{name}\.so\S*", Path("/proc/self/maps").read_text())
    return found[0] if found else None
