"""Where Linux keeps the limits and counters of the control groups that this process is in, of version 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Hierarchy(NamedTuple):
    """Control groups in one another.

    Attributes
    ----------
    is_unified : bool
        Whether it is that of version 2, which has other names for its files.
    folders : list of Path
        This process's group first, then those that it is in, since each limits it. Not all exist: in a container the path may be one of the
        machine's, of which the last folder is all that can be seen.
    """

    is_unified: bool
    folders: list[Path]


def hierarchies(controller: str, root: Path = Path("/")) -> Iterator[Hierarchy]:
    """Those that may limit ``controller``, such as memory; ``root`` is where proc and sys are, another one is for tests."""
    for line in lines_of(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        own = base / path.strip("/")
        folders = dict.fromkeys((own, *own.parents, base))
        yield Hierarchy(not controllers, [each for each in folders if each.is_relative_to(base)])


def lines_of(path: Path) -> list[str]:
    """Of a file of Linux; none where it is not there."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
