"""The last phases of each rank of a host, in memory that all of them share: what a rank has written survives it, however it ends.

    a row per local rank, of CAPACITY entries of two float64:
    seconds     CLOCK_MONOTONIC, which the ranks of a host have in common; 0 of an entry that was never written
    code        of a phase that begins     16 step + number of the phase, from 0
                of a wait within a phase   -(256 nanoseconds + 16 phase + waiting), below 0

A rank writes one entry after the other and begins anew behind the last. Where it stands is not written: the next entry is the oldest. An entry
costs two stores; nothing is written, and nothing asked, where no ring was given to ``PhaseClock.record``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.world.heartbeats import PHASES

Ring = NDArray[np.float64]
_PHASES, _CODES = 16, 256


class Phase(NamedTuple):
    """A stay of a rank in a phase.

    Attributes
    ----------
    name, step : str, int
        One of ``PHASES``; the step in which it began.
    start, stop : float
        Seconds; ``stop`` is None of the last one.
    waited : float
        Seconds within it that count as waiting.
    """

    name: str
    step: int
    start: float
    stop: float | None
    waited: float = 0.0


class Recorder:
    """Writes one row, for which there is one recorder; ``PhaseClock`` calls it while it is told to."""

    def __init__(self, row: Ring) -> None:
        # Its elements are faster to set than an array's.
        words: Any = row.reshape(-1)
        self._words: memoryview[float] = memoryview(words)
        self._at, self._stop = 0, row.size

    def begin(self, now: float, step: float, phase: int) -> None:
        """A phase begins."""
        at, words = self._at, self._words
        # Last, what makes it the newest: a rank may end between the two.
        words[at + 1] = _PHASES * step + phase
        words[at] = now
        self._at = at + 2 if at + 2 < self._stop else 0

    def wait(self, now: float, phase: int, waiting: int, seconds: float) -> None:
        """Of the phase that began last, ``seconds`` were waiting."""
        nanoseconds = int(max(0.0, seconds) * 1e9)
        at, words = self._at, self._words
        words[at + 1] = -float(_CODES * nanoseconds + _PHASES * phase + waiting)
        words[at] = now
        self._at = at + 2 if at + 2 < self._stop else 0


def phases_of(row: Ring) -> list[Phase]:
    """What a row holds, the oldest first, at any moment: of an entry that is being written, the one that was there."""
    entries = np.array(row)
    entries = entries[entries[:, 0] > 0]
    if not len(entries):
        return []
    newest = int(entries[:, 0].argmax())
    # Of entries at one moment the last counts.
    while newest + 1 < len(entries) and entries[newest + 1, 0] == entries[newest, 0]:
        newest += 1
    found: list[Phase] = []
    for seconds, code in np.roll(entries, -newest - 1, axis=0).tolist():
        if code < 0:
            _wait(found, int(-code))
            continue
        if found:
            found[-1] = found[-1]._replace(stop=seconds)
        step, phase = divmod(int(code), _PHASES)
        found.append(Phase(PHASES[phase], step, seconds, None))
    return found


def _wait(found: list[Phase], code: int) -> None:
    nanoseconds, rest = divmod(code, _CODES)
    source = PHASES[rest // _PHASES]
    # It may have ended already: the last of its kind.
    for place in range(len(found) - 1, max(-1, len(found) - 3), -1):
        if found[place].name == source:
            found[place] = found[place]._replace(waited=found[place].waited + nanoseconds / 1e9)
            return
