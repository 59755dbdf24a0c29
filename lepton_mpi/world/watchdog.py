"""Which phase is this rank in, since when, is that too long, and are its neighbours alive?

Every rank keeps one row (step, phase, seconds at its begin) in memory shared by its host. The same calls
that fill it add up the time of each phase. A thread of each rank looks at its own row; when the row is
older than the time limit, the rank reports all rows of its host and ends the job.

    rank 0: communication in step 12 of gossip for 60 s     waits for a peer: a victim
    rank 1: compute in step 12 of gossip for 61 s           does not: its Python stack is printed as well

The same thread sleeps on the process descriptors of the host's other ranks and, on a leader, on the connections to other
hosts (``host_links.py``), so that a rank that dies is noticed at once, in whatever call its peers wait.

A rank that holds the interpreter lock for ever cannot run the thread: that is what ``backstop.py`` is for.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

import numpy as np

from lepton_mpi.processes import look_at
from lepton_mpi.world import deaths
from lepton_mpi.world.backstop import Backstop
from lepton_mpi.world.heartbeats import (
    LABEL_AT,
    MEETING,
    PATIENCE_SECONDS,
    PHASES,
    ROWS_AT,
    WAITING,
    Heartbeat,
    label_bytes,
    read_label,
)
from lepton_mpi.world.host_links import HostLinks, News
from lepton_mpi.world.phase_ring import Recorder

_NUMBER_OF = {phase: number for number, phase in enumerate(PHASES)}
_WAITING_NUMBERS = {_NUMBER_OF[phase] for phase in WAITING}

# The thread looks as often, four times within a shorter limit, and no more often than that.
_INTERVAL_SECONDS, _INTERVAL_SECONDS_MIN = 1.0, 0.01
# Of those that come at once, to be read together.
_SIGNALS_MAX = 64


class PhaseClock:
    """Time spent in each phase by this rank; its row of the host's heartbeats.

    Parameters
    ----------
    rows : float64, shape (local_size, 3)
        Shared by the host's ranks: step, phase, CLOCK_MONOTONIC seconds at the phase's begin.
    local_rank : int
        The row that this rank writes.
    label : uint8, shape (ROWS_AT - LABEL_AT,)
        Shared by the host's ranks: what their steps are of.

    Attributes
    ----------
    seconds : dict of str to float
        Time spent in each phase, but for the present stay, which began at ``since`` by ``time.monotonic``.
    on_new_limit : callable
        Called when a phase begins that may last longer, or shorter, than the one before.
    is_free : bool
        Whether "compute" is code of a program of the user's own, which may take any time while nobody waits for it.
    """

    def __init__(
        self,
        rows: np.ndarray | None = None,
        local_rank: int = 0,
        label: np.ndarray | None = None,
    ) -> None:
        self.rows = np.zeros((1, 3)) if rows is None else rows
        self._label = np.zeros(ROWS_AT - LABEL_AT, np.uint8) if label is None else label
        self.local_rank = local_rank
        # Its elements are faster to set than an array's.
        self._row: memoryview[float] = memoryview(self.rows[local_rank])
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.on_new_limit: Callable[[], None] = _nothing
        self.is_free = False
        self._recorder: Recorder | None = None
        # Whether a phase of the usual kind has more to do, too: one that was patient, or is recorded.
        self._is_patient = self._minds = False
        self._phase, self.since = "start", monotonic()
        self.enter("start", 0)

    def enter(self, phase: str, step: int | None = None) -> None:
        """This rank now is in ``phase`` (one of PHASES), until the next call."""
        now, row = monotonic(), self._row
        self.seconds[self._phase] += now - self.since
        # Before the phase: the watchdog must not take the age of one for that of another with a shorter limit.
        row[2] = now
        self._phase, self.since = phase, now
        if step is not None:
            row[0] = step
        row[1] = _NUMBER_OF[phase]
        if self._minds or phase in PATIENCE_SECONDS:
            self._mind(phase, now)

    def begin_meeting(self) -> None:
        """This rank waits for all others, in whatever phase it is; until ``end_meeting``, or the next phase."""
        self._row[1] = _NUMBER_OF[self._phase] + MEETING

    def end_meeting(self) -> None:
        """This rank goes on."""
        self._row[1] = _NUMBER_OF[self._phase]

    def _mind(self, phase: str, now: float) -> None:
        """What is to be done seldom, or in a run that is recorded alone."""
        recorder, patient = self._recorder, phase in PATIENCE_SECONDS
        if recorder:
            recorder.begin(now, self._row[0], _NUMBER_OF[phase])
        if patient or self._is_patient:
            self._is_patient, self._minds = patient, patient or recorder is not None
            self.on_new_limit()

    @property
    def row(self) -> np.ndarray:
        """This rank's row, which ``enter`` fills: float64, shape (3,)."""
        return self.rows[self.local_rank]

    def number_of(self, phase: str) -> int:
        """As it stands in the row."""
        return _NUMBER_OF[phase]

    def record(self, recorder: Recorder | None, at: float = 0.0) -> None:
        """Tell every phase to ``recorder`` from now on, or ``at`` a moment of the present one; None: no more, or not for now."""
        self._recorder = recorder
        self._minds = self._is_patient or recorder is not None
        if self._recorder:
            self._recorder.begin(at or monotonic(), self._row[0], _NUMBER_OF[self._phase])

    def name_steps(self, label: str) -> None:
        """Have reports say that steps are of ``label``, such as the strategy; all ranks of the host say the same."""
        self._label[:] = np.frombuffer(label_bytes(label), np.uint8)

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count ``seconds`` that were booked, or will be, under ``source`` as ``target``."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds
        if self._recorder:
            self._recorder.wait(monotonic(), _NUMBER_OF[source], _NUMBER_OF[target], seconds)

    def phase_of(self, local_rank: int) -> str:
        """Phase of one rank of this host."""
        return PHASES[int(self.rows[local_rank, 1])]

    def heartbeats(self) -> list[Heartbeat]:
        """All ranks of this host."""
        label = read_label(self._label.tobytes())
        return [Heartbeat(step, phase, since, label) for step, phase, since in self.rows.tolist()]

    def waits_for_others(self) -> bool:
        """Whether this rank depends on its peers right now."""
        number = self._row[1]
        return int(number) in _WAITING_NUMBERS or number % 1 == MEETING

    def is_overdue(self, limit_seconds: float) -> bool:
        """Whether this rank has been in its phase for too long or, if it is free, others of the host have waited for too long."""
        if not self.age_seconds() > self.phase_limit_seconds(limit_seconds):
            return False
        if not self.is_free or self._phase != "compute":
            return True
        return any(beat.waits and beat.is_overdue(limit_seconds) for beat in self.heartbeats())

    def phase_limit_seconds(self, limit_seconds: float) -> float:
        """Longest time that this rank may stay in its present phase."""
        return max(limit_seconds, PATIENCE_SECONDS.get(self._phase, 0.0))

    def age_seconds(self) -> float:
        """Seconds since this rank last entered a phase."""
        return monotonic() - self._row[2]


class Alarms(Protocol):
    """What the watchdog's thread calls; each may end the job."""

    def timed_out(self) -> None:
        """This rank has been in its phase for too long. Nothing is called after it."""

    def died(self, ended: dict[int, int | None]) -> None:
        """Other ranks of the host have ended before their end, with these statuses of ``os.wait`` if known, by local rank.

        Nothing is called after it.
        """

    def heard(self, news: News) -> None:
        """Another host has said something, or has gone."""

    def signalled(self, number: int) -> None:
        """This process got a signal while ``stopping.caught_signals`` writes them to ``Watchdog.signal_file``."""

    def looked(self) -> None:
        """About once a second, while all is well here."""


class Watchdog:
    """A thread that sees to it that waiting ends.

    Parameters
    ----------
    clock : PhaseClock
        A rank in phase ``over`` may go.
    limit_seconds : float
        Time in one phase after which ``alarms.timed_out()`` is called; longer for start and checkpoint.
    process_ids : list of int
        Processes of the host's ranks, by local_rank.
    alarms : Alarms
    backstop : Backstop
        Belongs to the watchdog from now on.
    links : HostLinks, optional
        This rank's connections to other hosts.
    """

    def __init__(
        self,
        clock: PhaseClock,
        limit_seconds: float,
        process_ids: list[int],
        alarms: Alarms,
        backstop: Backstop,
        links: HostLinks | None = None,
    ) -> None:
        self._clock, self._limit, self._backstop = clock, limit_seconds, backstop
        self._alarms: Alarms | None = alarms
        self._links, self._process_ids = links, process_ids
        self._poll = select.poll()
        self._stop = os.eventfd(0)
        self._poll.register(self._stop, select.POLLIN)
        self._ranks: dict[int, int] = {}
        self._looked_at: dict[int, int] = {}
        for local_rank, process_id in enumerate(process_ids):
            if process_id == os.getpid():
                continue
            try:
                descriptor = os.pidfd_open(process_id)  # becomes readable when the process ends
            except (AttributeError, OSError):  # before Linux 5.3: look at it now and then
                self._looked_at[process_id] = local_rank
                continue
            self._ranks[descriptor] = local_rank
            self._poll.register(descriptor, select.POLLIN)
        self._signals, self.signal_file = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._signals, select.POLLIN)
        self._linked = set(links.descriptors() if links else ())
        for descriptor in self._linked:
            self._poll.register(descriptor, select.POLLIN)
        self._arm_backstop()
        clock.on_new_limit = self._arm_backstop
        self._thread = threading.Thread(target=self._watch, name="lepton_mpi watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> bytes:
        """No limit any more; returns the signals that the thread has not read. Does nothing the second time."""
        if self._stop < 0:
            return b""
        self._clock.on_new_limit = _nothing
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._backstop.close()
        unread = b""
        with suppress(BlockingIOError):
            unread = os.read(self._signals, _SIGNALS_MAX)
        for descriptor in (self._stop, self._signals, self.signal_file, *self._ranks):
            os.close(descriptor)
        self._stop = self.signal_file = -1
        self._alarms, self._links = None, None  # they hold the world
        return unread

    def _watch(self) -> None:
        alarms = self._alarms
        assert alarms is not None
        interval = max(_INTERVAL_SECONDS_MIN, min(_INTERVAL_SECONDS, self._limit / 4))
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll(1000 * interval)}
            if self._stop in ready:
                return
            ended = [rank for rank in self._ended(ready) if self._clock.phase_of(rank) != "over"]
            if ended:
                alarms.died({rank: self._status_of(rank) for rank in ended})
                return
            for number in os.read(self._signals, _SIGNALS_MAX) if self._signals in ready else b"":
                alarms.signalled(number)
            for news in self._news(ready):
                alarms.heard(news)
            if self._clock.is_overdue(self._limit):
                alarms.timed_out()
                return
            alarms.looked()
            # From this thread: if it runs, the lock is free; if it does not, the backstop is not moved.
            self._arm_backstop()

    def _ended(self, ready: set[int]) -> list[int]:
        """Local ranks whose processes have ended since the last time."""
        found = [self._ranks[descriptor] for descriptor in ready & self._ranks.keys()]
        for descriptor in ready & self._ranks.keys():
            self._poll.unregister(descriptor)
        return found + [rank for process, rank in self._looked_at.items() if _has_ended(process)]

    def _status_of(self, local_rank: int) -> int | None:
        found = [descriptor for descriptor, rank in self._ranks.items() if rank == local_rank]
        return deaths.wait_status(self._process_ids[local_rank], *found)

    def _news(self, ready: set[int]) -> list[News]:
        """Of other hosts."""
        found: list[News] = []
        for descriptor in ready & self._linked:
            assert self._links is not None
            found += self._links.read(descriptor)
            if descriptor not in self._links.descriptors():
                self._poll.unregister(descriptor)
                self._linked.remove(descriptor)
        return found

    def _arm_backstop(self) -> None:
        limit, age = self._clock.phase_limit_seconds(self._limit), self._clock.age_seconds()
        self._backstop.arm(limit, 0.0 if self._clock.is_free else age)


def _nothing(*_: object) -> None:
    pass


def _has_ended(process_id: int) -> bool:
    """Whether a process is gone, or only waits for its parent to take notice of its end."""
    found = look_at(process_id)
    return found is None or found.has_ended
