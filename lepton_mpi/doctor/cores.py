"""Which cores the ranks of a host may run on: binding, oversubscription, hyperthreads, quotas, other work."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.control_groups import hierarchies
from lepton_mpi.doctor import launching
from lepton_mpi.doctor.finding import Finding, fault, note, numbers_text, ok, plural

# Other work that takes less than this part of the cores is no news.
_LOAD_SHARE = 0.5


@dataclass(frozen=True)
class Facts:
    """Of one host.

    Attributes
    ----------
    ranks : dict of int to list of int
        The cores of each rank.
    available : list of int
        Cores that a job on this host could have: those that are on, or those of its cpuset.
    siblings : dict of int to list of int
        For each core, the hyperthreads of the same physical core.
    quota : int or None
        Whole cores of processor time that control groups leave; None without a limit.
    load : float
        Mean number of processes that ran or waited for a core in the last minute, before this job.
    """

    ranks: dict[int, list[int]]
    available: list[int]
    siblings: dict[int, list[int]] = field(default_factory=dict)
    quota: int | None = None
    load: float = 0.0


def gather(ranks: dict[int, list[int]], root: Path = Path("/")) -> Facts:
    """``root`` is where proc and sys are; another one is for tests."""
    cpus = root / "sys/devices/system/cpu"
    available = _list(cpus / "online") or sorted({core for own in ranks.values() for core in own})
    allowed = _cpuset(root)
    if allowed:
        available = [core for core in available if core in allowed]
    siblings = {
        core: found
        for core in available
        if (found := _list(cpus / f"cpu{core}/topology/thread_siblings_list"))
    }
    return Facts(ranks, available, siblings, launcher.core_quota(root), _load(root))


def _cpuset(root: Path) -> list[int]:
    for _, groups in hierarchies("cpuset", root):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus"):
            for group in groups:
                if found := _list(group / name):
                    return found
    return []


def _load(root: Path) -> float:
    words = _text(root / "proc/loadavg").split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        return 0.0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _list(path: Path) -> list[int]:
    """Numbers of a file such as ``0-3,8``."""
    found: list[int] = []
    for part in _text(path).strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += range(int(first), int(last or first) + 1)
    return found


def usable(facts: Facts) -> int:
    """Cores that the ranks of the host can keep busy."""
    union = {core for cores in facts.ranks.values() for core in cores}
    return min(len(union), facts.quota or len(union))


def findings(facts: Facts, launcher: str) -> Iterator[Finding]:
    """All about cores."""
    yield from _binding(facts, launcher)
    yield from _hyperthreads(facts, launcher)
    yield _quota(facts, launcher)
    share = facts.load / max(1, len(facts.available))
    if share > _LOAD_SHARE:
        yield note(
            "other work",
            f"{facts.load:.1f} processes on average wanted a core in the last minute, before this job, of "
            f"{plural(len(facts.available), 'core')}: measured times are longer than they would be",
            "top -o %CPU",
        )
    else:
        yield ok("other work", f"load of {facts.load:.1f} in the last minute")


def _binding(facts: Facts, launcher: str) -> Iterator[Finding]:
    count, room = len(facts.ranks), len(facts.available)
    crowd = _crowd({rank: tuple(cores) for rank, cores in facts.ranks.items()})
    if crowd and (len(crowd[0]) < room):
        few, ranks = crowd
        names = f"core{'s' * (len(few) > 1)} {numbers_text(list(few))}"
        yield fault(
            "binding",
            f"{len(ranks)} of {plural(count, 'rank')} of the host may run on {names} only, of {plural(room, 'core')}",
            launching.command(launcher, min(count, room), "none"),
            launching.command(launcher, min(count, room), "core"),
        )
    elif count == 1 and len(next(iter(facts.ranks.values()))) < room:
        (cores,) = facts.ranks.values()
        yield note(
            "binding",
            f"the process may run on {plural(len(cores), 'core')} only ({numbers_text(cores)}), of {room}",
            f"taskset -c {facts.available[0]}-{facts.available[-1]} COMMAND",
        )
    else:
        sizes = sorted({len(cores) for cores in facts.ranks.values()})
        each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        is_free = sizes[0] == room
        yield ok(
            "binding",
            f"{plural(count, 'rank')} on {plural(room, 'core')}, "
            + ("none bound" if is_free else f"each bound to {each}"),
        )
    if count > room:
        yield fault(
            "oversubscribed",
            f"{plural(count, 'rank')} take turns on {plural(room, 'core')}: as many ranks as cores are fastest",
            launching.command(launcher, room),
        )
    else:
        yield ok("oversubscribed", f"no: {plural(count, 'rank')}, {plural(room, 'core')}")


def _crowd(places: dict[int, tuple[int, ...]]) -> tuple[tuple[int, ...], list[int]] | None:
    """Most crowded set of cores on which more ranks than cores must run, and these ranks."""
    found = []
    for cores in Counter(places.values()):
        within = [rank for rank, own in places.items() if set(own) <= set(cores)]
        if len(within) > len(cores):
            found.append((len(within) / len(cores), cores, within))
    if not found:
        return None
    _, cores, within = max(found)
    return cores, within


def _hyperthreads(facts: Facts, launcher: str) -> Iterator[Finding]:
    physical = {core: min(facts.siblings.get(core) or [core]) for core in facts.available}
    whole, count, room = set(physical.values()), len(facts.ranks), len(facts.available)
    if len(whole) == room:
        yield ok("hyperthreads", f"none: {plural(room, 'core')}")
        return
    crowd = _crowd(
        {
            rank: tuple(sorted({physical.get(core, core) for core in cores}))
            for rank, cores in facts.ranks.items()
        }
    )
    logical = _crowd({rank: tuple(cores) for rank, cores in facts.ranks.items()})
    if crowd and not logical and len(crowd[0]) < len(whole) and count <= len(whole):
        yield fault(
            "hyperthreads",
            f"{len(crowd[1])} ranks share the hyperthreads of {plural(len(crowd[0]), 'physical core')}, of {len(whole)}",
            launching.command(launcher, count, "core"),
        )
    elif len(whole) < count <= room:
        yield note(
            "hyperthreads",
            f"{count} ranks on {len(whole)} physical cores of {room} hyperthreads: two that share a core compute "
            "little faster than one",
            launching.command(launcher, len(whole), "core"),
        )
    else:
        yield ok("hyperthreads", f"{len(whole)} physical cores of {room} hyperthreads")


def _quota(facts: Facts, launcher: str) -> Finding:
    count, room = len(facts.ranks), len(facts.available)
    if facts.quota is None or facts.quota >= room:
        return ok("quota", "no control group limits processor time")
    text = f"a control group (cpu.max) leaves {plural(facts.quota, 'core')} of processor time"
    if facts.quota >= count:
        return note(
            "quota", f"{text}, of {plural(room, 'core')}", f"docker update --cpus {room} ID"
        )
    return fault(
        "quota",
        f"{text} to {plural(count, 'rank')}, which stand still when it is used up",
        launching.command(launcher, facts.quota),
        f"docker update --cpus {count} ID",
    )


def own_cores() -> list[int]:
    """Cores that this process may run on."""
    return sorted(launcher.core_numbers())


def host_name() -> str:
    """Name of this machine."""
    return os.uname().nodename
