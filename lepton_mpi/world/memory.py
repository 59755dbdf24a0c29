"""How much memory a run takes, as Linux counts it: what the ranks of a host share, by purpose, and what each has alone.

Memory that several processes map is counted in parts (Pss of /proc/PID/smaps): a page that n ranks have touched counts
1/n for each, so the sum over the ranks of a host is what the host gives.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_mpi.control_groups import hierarchies, lines_of

if TYPE_CHECKING:
    from lepton_mpi.world.rank_group import RankGroup

_HEAD = re.compile(r"^[0-9a-f]+-[0-9a-f]+ .* /memfd:lepton_mpi:(\w+) ")
_ANY_HEAD = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ")

# Of control groups of version 2 and 1: the limit, what is used, and what of that is given up when asked for.
_UNIFIED = "memory.max", "memory.current", "inactive_file"
_OLD = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


def shared_bytes() -> dict[str, int]:
    """This process's part of the memory that the ranks of its host share, by the name given to ``host_array``."""
    return shared_bytes_of(Path("/proc/self/smaps").read_text())


def shared_bytes_of(smaps: str) -> dict[str, int]:
    """The same from the text of a file ``smaps``.

    >>> shared_bytes_of('''7f00-7f40 rw-s 0 00:01 1 /memfd:lepton_mpi:state (deleted)
    ... Rss:    8 kB
    ... Pss:    4 kB
    ... 7f40-7f50 rw-p 0 00:00 0
    ... Pss:  100 kB
    ... ''')
    {'state': 4096}
    """
    found: Counter[str] = Counter()
    name = None
    for line in smaps.splitlines():
        if match := _HEAD.match(line):
            name = match[1]
        elif _ANY_HEAD.match(line):
            name = None
        elif name and line.startswith("Pss:"):
            found[name] += 1024 * int(line.split()[1])
    return dict(found)


def own_bytes() -> int:
    """Memory that no other process maps, in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process could still use: what Linux counts as available, and what its control groups leave.

    ``root`` is where proc and sys are; another one is for tests.
    """
    lines = (root / "proc/meminfo").read_text().splitlines()
    amounts = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for is_unified, groups in hierarchies("memory", root):
        names = _UNIFIED if is_unified else _OLD
        for group in groups:
            amounts += _left_in_group(group, *names)
    return max(0, min(amounts, default=0))


def _left_in_group(group: Path, limit: str, used: str, idle: str) -> list[int]:
    """What a control group leaves; nothing where it has no limit. Idle pages of files are given up when asked for."""
    numbers = [line for name in (limit, used) for line in lines_of(group / name)[:1]]
    if len(numbers) < 2 or not all(number.isdigit() for number in numbers):
        return []
    idle_bytes = [
        int(line.split()[1])
        for line in lines_of(group / "memory.stat")
        if line.startswith(f"{idle} ")
    ]
    return [int(numbers[0]) - int(numbers[1]) + sum(idle_bytes)]


def report(world: RankGroup, vectors: dict[str, int], vector_bytes: int) -> list[str]:
    """Lines for people. Collective over the host.

    vectors : how many vectors of the length of the parameters this host should hold for each purpose, none where every
        rank has its own; vector_bytes : bytes of one.
    """
    parts = world.host_comm.allgather((shared_bytes(), own_bytes()))
    measured = sum((Counter(shared) for shared, _ in parts), Counter())
    words = [
        f"{name} {measured.pop(name, 0) / 2**20:.1f} MiB ({count} N)"
        for name, count in vectors.items()
    ]
    words += [f"{name} {size / 2**20:.1f} MiB" for name, size in sorted(measured.items())]
    lines = [f"shared by this host's ranks: {', '.join(words)}"]
    if vectors:
        count = sum(vectors.values())
        size = f"{count * vector_bytes / 2**20:.1f} MiB"
        lines.append(f"by the formula: {count} N = {size}, N = {vector_bytes} bytes")
    own = max(own for _, own in parts)
    return [*lines, f"of a rank alone: {own / 2**20:.0f} MiB at most"]
