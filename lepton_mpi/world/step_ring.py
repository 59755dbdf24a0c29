"""The last steps of each rank of a host, in memory that all of them share: when each ended, and what its phases had come to by then.

    a row per local rank, of ROWS entries of WORDS float64: seconds of CLOCK_MONOTONIC, the step, and the clock's sums of input, compute,
    communication and waiting. The step is below 0 where its phases are in the rank's ``phase_ring.py`` one by one.

One entry a step costs so little that short steps may be recorded, of which every phase would cost too much. In a step all input comes
before all computation here, and the exchange behind it, as the sums have it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lepton_mpi.world.phase_ring import Phase, Ring

if TYPE_CHECKING:
    from lepton_mpi.world.watchdog import PhaseClock

WORDS = 6
_ENTRY = struct.Struct(f"{WORDS}d")


class StepRecorder:
    """Writes one row.

    Parameters
    ----------
    row : float64, shape (ROWS, WORDS)
    clock : PhaseClock
        The rank's, which is in phase compute where a step ends.

    Attributes
    ----------
    now : float
        When the last entry was written.
    """

    def __init__(self, row: Ring, clock: PhaseClock) -> None:
        memory: Any = row.reshape(-1).view(np.uint8)
        self._memory, self._clock, self._seconds = memoryview(memory), clock, clock.seconds
        self._at, self._stop, self.now = 0, len(self._memory), 0.0

    def end(self, step: int) -> float:
        """A step ends, or what comes before one; returns the seconds since the entry before."""
        seconds, before = self._seconds, self.now
        self.now = now = monotonic()
        at = self._at
        _ENTRY.pack_into(
            *(self._memory, at, now, step, seconds["input"]),
            # The present stay is not in it yet.
            *(seconds["compute"] + now - self._clock.since, seconds["communication"]),
            seconds["waiting"],
        )
        at += _ENTRY.size
        self._at = at if at < self._stop else 0
        return now - before


class _Entry(NamedTuple):
    """See the module."""

    at: float
    step: int
    input: float
    compute: float
    communication: float
    waiting: float


def merged(row: Ring, singly: Sequence[Phase], present: Phase) -> list[Phase]:
    """All phases that are known of a rank, in their order.

    Parameters
    ----------
    row : float64, shape (ROWS, WORDS)
    singly : sequence of Phase
        Of its ``phase_ring.py``.
    present : Phase
        Where it is now.
    """
    entries = [_Entry(*each) for each in np.array(row).tolist() if each[0] > 0]
    entries.sort(key=lambda entry: entry.at)
    of_sums: list[Phase] = []
    spans: list[tuple[float, float]] = []
    for before, entry in pairwise(entries):
        if entry.step > 0 and entry.step == abs(before.step) + 1:
            of_sums += _phases(before, entry)
            spans.append((before.at, entry.at))
    rest = [phase for phase in singly if not _is_within(phase, spans)]
    found = sorted([*of_sums, *rest], key=lambda phase: phase.start)
    if not found or present.start > found[-1].start:
        found.append(present)
    return [
        # A phase of the one kind goes on into the other.
        phase._replace(stop=min(after.start, after.start if phase.stop is None else phase.stop))
        for phase, after in pairwise(found)
    ] + found[-1:]


def _phases(before: _Entry, entry: _Entry) -> list[Phase]:
    """Of one step, by its sums; what is in none of them, such as a checkpoint, came first."""
    waiting = entry.waiting - before.waiting
    parts = (
        ("input", entry.input - before.input, 0.0),
        ("compute", entry.compute - before.compute, 0.0),
        ("communication", entry.communication - before.communication + waiting, waiting),
    )
    found, start = [], max(before.at, entry.at - sum(part[1] for part in parts))
    for name, seconds, waited in parts:
        stop = min(entry.at, start + max(0.0, seconds))
        if stop > start:
            found.append(Phase(name, int(entry.step), start, stop, waited))
        start = stop
    return found


def _is_within(phase: Phase, spans: Sequence[tuple[float, float]]) -> bool:
    return any(start <= phase.start < stop for start, stop in spans)
