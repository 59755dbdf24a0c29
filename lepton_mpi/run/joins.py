"""Ranks that join an ``--elastic`` run, as the run sees it: behind an epoch it takes a request, starts the ranks, and goes on with them.

    rank 0      looks in the folder of checkpoints behind each epoch (``announcement.py``)
    all         take a copy, as all along, and start the ranks (``world/joining.py``); if that fails they train on as if nothing was
    all         leave the run by ``RanksJoin``, and go on from the copy with the new ones as behind a loss, ``elastic.train``

The asker has its answer when the ranks have made their first step together.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from lepton_mpi.run import announcement, memory_forecast, snapshot
from lepton_mpi.run.announcement import Answer, Request
from lepton_mpi.wording import one_line, size_text
from lepton_mpi.world import joining

if TYPE_CHECKING:
    from mpi4py import MPI

    from lepton_mpi.run.run import Run


class RanksJoin(Exception):
    """The run goes on with more ranks: those of ``comm``."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        super().__init__()
        self.comm = comm


class _Coming(NamedTuple):
    """Ranks that have been asked for, to how many they come, and since when."""

    request: Request
    before: int
    began: float


class Joins:
    """Requests of a job, through all its runs.

    Attributes
    ----------
    started : int
        Processes that have been a rank of the job.
    """

    def __init__(self) -> None:
        self.started = 0
        self._folder: Path | None = None
        self._coming: _Coming | None = None

    def attach(self, run: Run) -> None:
        """A run begins: say that ranks may join it, if it has a folder where they can be asked for.

        They join in the first world of their program, so not if this is another one.
        """
        self.started = max(self.started, run.world.size)
        self._folder = run.folder.path if run.folder else None
        if self._folder and run.world.is_first:
            with suppress(OSError):
                announcement.invite(self._folder, run.world.size, rank_bytes(run))

    def look(self, run: Run) -> bool:
        """Whether ranks are to join behind this epoch. Collective. Refuses what cannot be."""
        if not run.config.checkpoint:
            return False
        found: _Coming | None = run.world.broadcast(self._taken(run))
        self._coming = found
        return found is not None

    def start(self, run: Run) -> None:
        """Start them. Collective; raises RanksJoin, or returns if they have not come."""
        assert self._coming
        run.world.clock.enter("start")
        number, self.started = self.started, self.started + self._coming.request.ranks
        try:
            comm = joining.start(run.world, self._coming.request.ranks, number)
        except joining.NotStartedError as error:
            self._refuse(f"no ranks joined: {error}", run)
            return
        raise RanksJoin(comm)

    def say(self, run: Run) -> None:
        """The ranks that were asked for have made a step with the others."""
        coming, self._coming = self._coming, None
        if coming is None:
            return
        size, epoch = run.world.size, run.start.epoch
        if size < coming.before + coming.request.ranks:
            self._coming = coming
            self._refuse(f"ranks died while they joined: {size} go on from epoch {epoch}", run)
            return
        seconds = monotonic() - coming.began
        ranks = list(range(coming.before, size))
        names = " and ".join(filter(None, [", ".join(map(str, ranks[:-1])), str(ranks[-1])]))
        text = f"rank{'s' * (len(ranks) > 1)} {names} of {size} joined: {size} ranks go on from epoch {epoch}"
        run.report.say("elastic", text)
        run.report.record(
            "elastic", joined=ranks, ranks=size, epoch=epoch, step=run.start.step, seconds=seconds
        )
        plural = "s" * (coming.request.ranks > 1)
        text = f"{coming.request.ranks} rank{plural} joined from epoch {epoch} on: {size} ranks"
        self._answer(coming.request, Answer(True, text))

    def close(self) -> None:
        """The last run has ended."""
        if self._folder:
            if self._coming:
                self._answer(self._coming.request, Answer(False, "the run has ended"))
            announcement.end_invitation(self._folder)

    def _taken(self, run: Run) -> _Coming | None:
        if self._folder is None or not (request := announcement.waiting(self._folder)):
            return None
        if not announcement.take(self._folder, request):
            return None
        if reason := _refused(run, request.ranks):
            self._answer(request, Answer(False, reason))
            return None
        return _Coming(request, run.world.size, monotonic())

    def _refuse(self, text: str, run: Run) -> None:
        coming, self._coming = self._coming, None
        run.report.say("elastic", text)
        if coming:
            self._answer(coming.request, Answer(False, text))

    def _answer(self, request: Request, said: Answer) -> None:
        if self._folder:
            with suppress(OSError):
                announcement.answer(self._folder, request, said)


def rank_bytes(run: Run) -> int:
    """Of memory that a further rank takes of the host: Python with its libraries, what the forecast says of a rank alone, and a gradient."""
    own = sum(memory_forecast.forecast(run).own.values())
    return _private_bytes() + own + run.strategy.parameters.nbytes


def memory_text(count: int, needed: int, free: int) -> str:
    """Why so many cannot join; empty if they can."""
    if needed <= free:
        return ""
    return f"expected {size_text(needed)} of memory for {count} more rank{'s' * (count > 1)}, got a host with {size_text(free)} free"


def _refused(run: Run, count: int) -> str:
    """Why the run cannot take so many; empty if it can."""
    config = run.config
    if run.world.host_count > 1:
        return f"expected a run on one host, got {run.world.host_count} hosts"
    if config.strategy != "sync" or config.allreduce not in ("auto", "host"):
        return f"expected a run of --strategy sync with --allreduce auto or host, got {config.strategy} with {config.allreduce}"
    # The copies are made anew, since new ranks cannot see the memory of the old ones.
    needed = count * rank_bytes(run) + 2 * snapshot.memory_bytes(run)
    return memory_text(count, needed, run.world.memory_available())


def _private_bytes() -> int:
    """What Linux counts of this process that no file or other process has."""
    values: dict[str, Any] = {}
    with suppress(OSError):
        for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            values[name] = one_line(value).split()
    found = values.get("RssAnon", ["0"])
    return 1024 * int(found[0])
