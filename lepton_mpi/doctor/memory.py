"""Memory that is free, the room of ``/dev/shm``, and what dead jobs have left there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.doctor import launching
from lepton_mpi.doctor.finding import Finding, fault, note, ok, plural
from lepton_mpi.wording import size_text
from lepton_mpi.world import leftovers, memory

# Python, NumPy, Numba and MPI of one rank, before any data.
_RANK_BYTES = 200 << 20
# What Open MPI makes in /dev/shm for a rank; MPICH and Intel MPI take less.
_SHARED_BYTES_PER_RANK = 16 << 20


@dataclass(frozen=True)
class Facts:
    """Of one host, in bytes.

    Attributes
    ----------
    ranks : int
    free, total : int
        Memory that this job may still use, and that of the machine.
    shared_free, shared_total : int
        Of ``/dev/shm``; 0 if there is none.
    left : list of str
        Files of MPI in ``/dev/shm``, of this user, that no process maps.
    left_bytes : int
        What they hold.
    removed : int
        How many there were before, if they have been removed.
    """

    ranks: int
    free: int
    total: int
    shared_free: int
    shared_total: int
    left: list[str]
    left_bytes: int = 0
    removed: int = 0


def gather(
    ranks: int,
    remove: bool = False,
    root: Path = Path("/"),
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
) -> Facts:
    """``remove``: remove what dead jobs have left. ``root`` is where proc and dev are, ``statvfs`` says how full a file system is; others are for tests."""
    folder = root / "dev/shm"
    try:
        found = statvfs(str(folder))
        room = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    except OSError:
        room = 0, 0
    total = re.search(r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    left, removed, held = leftovers.shared_files(root), 0, 0
    if remove:
        for path in left:
            with suppress(OSError):
                path.unlink()
        left, removed = [path for path in left if path.exists()], len(left)
    for path in left:
        with suppress(OSError):
            held += path.stat().st_blocks * 512
    return Facts(
        ranks,
        memory.available_bytes(root),
        1024 * int(total[1]) if total else 0,
        *room,
        [str(path) for path in left],
        held,
        removed,
    )


def findings(facts: Facts, launcher: str) -> Iterator[Finding]:
    """Memory, shared memory, leftovers."""
    free = f"{size_text(facts.free)} of {size_text(facts.total)} are free for this job"
    if facts.free < facts.ranks * _RANK_BYTES:
        fewer = max(1, facts.free // _RANK_BYTES)
        yield fault(
            "memory",
            f"{free}, too little for {plural(facts.ranks, 'rank')} of {size_text(_RANK_BYTES)} and their data",
            launching.command(launcher, fewer),
            f"srun --mem={max(1, 2 * facts.ranks * _RANK_BYTES >> 30)}G",
        )
    else:
        yield ok("memory", free)
    yield _shared(facts)
    if facts.left:
        yield note(
            "leftovers",
            f"{plural(len(facts.left), 'file')} of dead MPI jobs in /dev/shm, {size_text(facts.left_bytes)}",
            "python -m lepton_mpi doctor --remove-leftovers",
        )
    else:
        removed = f", {plural(facts.removed, 'file')} removed" if facts.removed else ""
        yield ok("leftovers", f"no files of dead MPI jobs in /dev/shm{removed}")


def _shared(facts: Facts) -> Finding:
    needed = max(64 << 20, facts.ranks * _SHARED_BYTES_PER_RANK)
    amount = -(-2 * needed >> 30) if needed > 512 << 20 else 1
    remedies = (
        f"docker run --shm-size={amount}g …",
        f"sudo mount -o remount,size={amount}G /dev/shm",
    )
    if facts.shared_total == 0:
        return fault("/dev/shm", "there is no /dev/shm, which MPI libraries need", remedies[0])
    room = f"{size_text(facts.shared_free)} of {size_text(facts.shared_total)} are free"
    if facts.shared_free < needed:
        return fault(
            "/dev/shm",
            f"{room}: MPI libraries need about {size_text(needed)} for {plural(facts.ranks, 'rank')}",
            *(["ls -lS /dev/shm"] if facts.shared_total >= needed else []),
            *remedies,
        )
    return ok("/dev/shm", room)
