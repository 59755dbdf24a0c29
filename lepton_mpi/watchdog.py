"""Which phase is this rank in, since when, and is that too long?

Every rank keeps one row (step, phase, seconds at its begin) in memory shared by its host. The same calls
that fill it add up the time of each phase. A thread of each rank looks at its own row; when the row is
older than the time limit, the rank reports all rows of its host and ends the job.

    rank 0: communication in step 12 for 60 s     waits for a peer: a victim
    rank 1: compute in step 12 for 61 s           does not: its Python stack is printed as well

A rank that holds the interpreter lock for ever cannot run the thread: ``faulthandler``'s timer, which
needs no lock, ends it a little later.
"""

import faulthandler
import sys
import threading
from collections.abc import Callable
from time import monotonic

import numpy as np

PHASES = ("start", "input", "compute", "communication", "waiting", "evaluation", "checkpoint", "end")
# In these a rank depends on its peers, so that its own stack would explain nothing.
_WAITING = {PHASES.index("communication"), PHASES.index("waiting")}

_BACKSTOP_SECONDS = 5.0


class PhaseClock:
    """Time spent in each phase by this rank; its row of the host's heartbeats.

    Parameters
    ----------
    rows : float64, shape (local_size, 3)
        Shared by the host's ranks: step, phase, CLOCK_MONOTONIC seconds at the phase's begin.
    local_rank : int
        The row that this rank writes.
    """

    def __init__(self, rows: np.ndarray | None = None, local_rank: int = 0) -> None:
        self.rows = np.zeros((1, 3)) if rows is None else rows
        self.local_rank = local_rank
        self._row = self.rows[local_rank]
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "start", monotonic()
        self.enter("start", 0)

    def enter(self, phase: str, step: int | None = None) -> None:
        """This rank now is in ``phase`` (one of PHASES), until the next call."""
        now = monotonic()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now
        if step is not None:
            self._row[0] = step
        self._row[1] = PHASES.index(phase)
        self._row[2] = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count ``seconds`` that were booked, or will be, under ``source`` as ``target``."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def state(self, local_rank: int) -> str:
        """One rank of this host in words."""
        step, phase, since = self.rows[local_rank]
        return f"{PHASES[int(phase)]} in step {int(step)} for {monotonic() - since:.1f} s"

    def waits_for_others(self) -> bool:
        """Whether this rank depends on its peers right now."""
        return int(self._row[1]) in _WAITING

    def age_seconds(self) -> float:
        """Seconds since this rank last entered a phase."""
        return monotonic() - self._row[2]


class Watchdog:
    """A thread that calls ``on_timeout()`` once this rank has made no progress for ``limit_seconds``."""

    def __init__(self, clock: PhaseClock, limit_seconds: float, on_timeout: Callable[[], None]) -> None:
        self._clock, self._limit, self._on_timeout = clock, limit_seconds, on_timeout
        self._stop = threading.Event()
        self._arm_backstop()
        threading.Thread(target=self._watch, name="lepton_mpi watchdog", daemon=True).start()

    def stop(self) -> None:
        """No limit any more."""
        self._stop.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        interval = min(1.0, self._limit / 4)
        while not self._stop.wait(interval):
            if self._clock.age_seconds() > self._limit:
                self._on_timeout()
                return
            # From this thread: if it runs, the lock is free; if it does not, the timer expires.
            self._arm_backstop()

    def _arm_backstop(self) -> None:
        faulthandler.dump_traceback_later(self._limit + _BACKSTOP_SECONDS, exit=True, file=sys.__stderr__)
