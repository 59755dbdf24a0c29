"""How long a cache line takes from one core to another: everything that ranks do together in memory takes that long.

Cores that share a last-level cache take about 50 ns, those of two sockets several times as much. Measured from the first
core to a few others; the least of several rounds, so that other work disturbs little.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lepton_mpi.doctor.finding import Finding, note, numbers_text, ok

_ANSWERS, _ROUNDS_MAX, _CORES_MAX = 200, 40, 8
_SECONDS_PER_PAIR = 0.1
# About 30 ms; a round of two cores that are free takes 0.02 to 0.2 ms.
_POLLS_MAX = 20_000_000
_FAR_NANOSECONDS = 300.0


@dataclass(frozen=True)
class Facts:
    """Of one host: nanoseconds from ``first`` to other cores; empty if there is one core, or none was free long enough."""

    first: int = 0
    nanoseconds: Mapping[int, float] = field(default_factory=dict)


def gather(cores: list[int]) -> Facts:
    """Among ``cores``, on which this process may or may not be bound; its binding is put back."""
    import numpy as np

    from lepton_mpi.doctor import core_latency_kernels as kernels

    if len(cores) < 2:
        return Facts(cores[0] if cores else 0)
    words = np.zeros(kernels.WORDS, np.int64)
    kernels.answer(words, 0, 0, 0)  # compiled, or loaded, before the clock runs
    others = cores[1:]
    if len(others) > _CORES_MAX:
        others = [others[(len(others) - 1) * n // (_CORES_MAX - 1)] for n in range(_CORES_MAX)]
    found = {}
    before = os.sched_getaffinity(0)
    try:
        for other in others:
            rounds: list[float | None] = []
            end = time.monotonic() + _SECONDS_PER_PAIR
            while time.monotonic() < end and len(rounds) < _ROUNDS_MAX:
                rounds.append(_round(words, cores[0], other))
            best = min(filter(None, rounds), default=None)
            if best is not None:
                found[other] = best
    finally:
        os.sched_setaffinity(0, before)
    return Facts(cores[0], found)


def _round(words, first: int, other: int) -> float | None:  # type: ignore[no-untyped-def]
    """Nanoseconds of one way; None if one thread has waited too long for its core."""
    from lepton_mpi.doctor import core_latency_kernels as kernels

    words[:] = 0

    def opposite() -> None:
        os.sched_setaffinity(0, {other})
        kernels.answer(words, 1, _ANSWERS, _POLLS_MAX)

    os.sched_setaffinity(0, {first})
    thread = threading.Thread(target=opposite)
    thread.start()
    kernels.answer(words, 0, _ANSWERS, _POLLS_MAX)
    took = words[kernels.TOOK]
    thread.join()
    return None if words[kernels.GAVE_UP] else took / (2 * (_ANSWERS - 1))


def findings(facts: Facts) -> Iterator[Finding]:
    """One."""
    found = facts.nanoseconds
    if not found:
        yield ok("core latency", "not measured: one core, or none was free")
        return
    least, most = min(found.values()), max(found.values())
    span = f"{least:.0f} ns" if len(found) == 1 else f"{least:.0f} to {most:.0f} ns"
    cores = f"from core {facts.first} to {numbers_text(sorted(found))}"
    if most > _FAR_NANOSECONDS:
        far = numbers_text(sorted(core for core, time in found.items() if time > _FAR_NANOSECONDS))
        yield note(
            "core latency",
            f"{span} {cores}: {far} share no cache with it, or other work runs there",
            "mpirun --map-by l3cache --bind-to core COMMAND",
        )
    else:
        yield ok("core latency", f"{span} {cores}")
