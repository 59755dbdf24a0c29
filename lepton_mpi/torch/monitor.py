"""Who is late: the calls of each process group, counted in memory that a host's ranks share, and a thread that looks at them.

    row of a rank, float64    calls begun, the verb of the last one, CLOCK_MONOTONIC seconds at its begin (0: not in a call), left

A rank is overdue when it has been in one call longer than the group's timeout. A rank that has begun fewer calls than an overdue
one is the cause, and speaks first, since it can print where it is; the overdue ones speak two seconds later. Whoever speaks ends
the job. A rank that computes while nobody waits for it is never late. Ranks of other hosts are not seen: where every rank of
this host is in the call, the report says which ranks it cannot see.

A rank that leaves the program while others wait for it in a call is reported two seconds later, whatever the timeout is.
Dead ranks are the business of the world's watchdog.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from lepton_mpi.world.rank_group import RankGroup
from lepton_mpi.world.world import World

VERBS = (
    *("none", "all_reduce", "broadcast", "reduce", "all_gather", "gather", "scatter"),
    *("reduce_scatter", "all_to_all", "barrier"),
)
_NUMBER_OF = {verb: number for number, verb in enumerate(VERBS)}

# How often the thread looks: often enough for a timeout to be kept to a quarter, and no more often than that.
_INTERVAL_SECONDS, _INTERVAL_SECONDS_MIN = 1.0, 0.02
_CAUSE_FIRST_SECONDS = 2.0
_LEFT_SECONDS = 2.0

BEGUN, VERB, SINCE, LEFT = range(4)


@dataclass(frozen=True)
class Row:
    """What one rank shows of itself in one process group."""

    begun: int
    verb: str
    since: float
    left: bool

    def __str__(self) -> str:
        if self.left:
            return f"has left the program after call {self.begun}"
        if self.since:
            return f"{self.verb}, call {self.begun}, for {monotonic() - self.since:.1f} s"
        return f"in no call; has done {self.begun}" + (f", the last {self.verb}" * bool(self.begun))


class Calls:
    """The calls of one process group. Collective over the group.

    Parameters
    ----------
    group : RankGroup
    ranks : list of int
        Torch's ranks of the job, by rank in the group.
    name : str
        What reports call it.
    timeout_seconds : float
    """

    def __init__(
        self, group: RankGroup, ranks: list[int], name: str, timeout_seconds: float
    ) -> None:
        self.name, self.timeout_seconds = name, timeout_seconds
        self._rows = group.host_array((group.local_size, 4), np.float64, "other")
        # Its elements are faster to set than an array's.
        self._row: memoryview[float] = memoryview(self._rows[group.local_rank])
        self.local_rank = group.local_rank
        self.host_ranks = [ranks[rank] for rank in group.host_ranks]
        self.elsewhere = [rank for rank in ranks if rank not in self.host_ranks]
        self.limit_seconds = timeout_seconds

    def begin(self, verb: str, timeout_seconds: float) -> None:
        """This rank enters a call."""
        row = self._row
        self.limit_seconds = timeout_seconds
        row[VERB] = _NUMBER_OF[verb]
        row[BEGUN] += 1
        row[SINCE] = monotonic()

    def end(self) -> None:
        """This rank is out of it."""
        self._row[SINCE] = 0.0

    @property
    def count(self) -> int:
        """Calls that this rank has begun."""
        return int(self._row[BEGUN])

    @count.setter
    def count(self, value: int) -> None:
        self._row[BEGUN] = value

    def leave(self) -> None:
        """This rank will make no call any more."""
        self._row[LEFT] = 1.0

    def rows(self) -> list[Row]:
        """By local rank."""
        return [
            Row(int(begun), VERBS[int(verb)], since, left > 0)
            for begun, verb, since, left in self._rows.tolist()
        ]


@dataclass
class Late:
    """One call that takes too long, as this rank sees it."""

    calls: Calls
    rows: list[Row]
    missing: list[int] = field(default_factory=list)  # local ranks that have begun fewer calls

    @property
    def is_cause(self) -> bool:
        """Whether others wait for this rank."""
        return self.calls.local_rank in self.missing

    def report(self, size: int, seconds: float, stack: str) -> str:
        """Who did not come, what everybody does, and where this rank is if it is the cause."""
        calls = self.calls
        number = max(row.begun for row in self.rows)
        verb = next(row.verb for row in self.rows if row.begun == number)
        names = [calls.host_ranks[one] for one in self.missing] or calls.elsewhere
        what = f"{verb}, call {number} of process group {calls.name}"
        if self.missing or calls.elsewhere:
            ranks = f"rank{'s' * (len(names) > 1)} {', '.join(map(str, names))} of {size}"
            where = "" if self.missing else " (on other hosts: every rank of this one is there)"
            head = f"{ranks} did not come{where} to {what}, in {seconds:.3g} s (timeout)"
        else:
            head = f"{what} did not end in {seconds:.3g} s (timeout) although all {len(self.rows)} ranks are in it"
        if any(row.left for row in self.rows):
            head = head.replace(" (timeout)", ", and left the program")
        lines = [f"lepton_mpi: {head}; the ranks of this host:"]
        lines += [
            f"  rank {rank}: {row}" for rank, row in zip(calls.host_ranks, self.rows, strict=True)
        ]
        if stack:
            lines += [f"where rank {calls.host_ranks[calls.local_rank]} is:", stack.rstrip()]
        return "\n".join(lines)


def late_call(calls: Calls) -> Late | None:
    """The call that is overdue for a rank of this host, if this rank is in it or is the cause."""
    rows, now = calls.rows(), monotonic()
    mine = rows[calls.local_rank]
    begun = max(row.begun for row in rows)
    missing = [one for one, row in enumerate(rows) if row.begun < begun]
    waits = [row for row in rows if row.begun == begun and row.since]
    if not waits:
        return None
    age = now - max(row.since for row in waits)
    gone = any(rows[one].left for one in missing)
    limit = min(calls.limit_seconds, _LEFT_SECONDS) if gone else calls.limit_seconds
    if age <= limit or (mine.begun == begun and not mine.since):
        return None
    return Late(calls, rows, missing)


class Monitor:
    """The thread that ends waiting in calls of process groups.

    Parameters
    ----------
    world : World
        Whose ``fail`` it calls.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._watched: list[Calls] = []
        self._changed, self._is_over = threading.Event(), False
        self._thread = threading.Thread(target=self._watch, name="lepton_mpi torch", daemon=True)
        self._thread.start()

    def watch(self, calls: Calls) -> None:
        """From now on."""
        self._watched.append(calls)
        self._changed.set()

    def forget(self, calls: Calls) -> None:
        """No longer."""
        self._watched.remove(calls)

    def stop(self) -> None:
        """The thread ends."""
        self._is_over = True
        self._changed.set()
        self._thread.join()

    def leave(self) -> None:
        """The program ends, with process groups that nobody destroyed."""
        self.stop()
        for calls in self._watched:
            calls.leave()

    def _watch(self) -> None:
        while not self._is_over:
            watched = list(self._watched)
            shortest = min((calls.limit_seconds for calls in watched), default=_INTERVAL_SECONDS)
            self._changed.wait(max(_INTERVAL_SECONDS_MIN, min(_INTERVAL_SECONDS, shortest / 4)))
            self._changed.clear()
            for calls in watched:
                late = late_call(calls)
                if late and not self._is_over:
                    self._report(late)

    def _report(self, late: Late) -> None:
        stack, limit = "", late.calls.limit_seconds
        if late.is_cause:
            frame = sys._current_frames().get(threading.main_thread().ident or 0)
            stack = "".join(traceback.format_stack(frame))
        elif late.missing and not any(late.rows[one].left for one in late.missing):
            time.sleep(_CAUSE_FIRST_SECONDS)
            again = late_call(late.calls)
            if again is None:
                return
            late = again
        since = [row.since for row in late.rows if row.since]
        waited = monotonic() - min(since) if since else limit
        self._world.fail(late.report(self._world.size, waited, stack))
