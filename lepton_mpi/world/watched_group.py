"""All ranks of a job, watched: what each of them makes when they meet, and what its watchdog's thread calls. ``World`` is one that can change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING
from weakref import WeakMethod

from lepton_mpi import report_word
from lepton_mpi.errors import RankError
from lepton_mpi.wording import WARNING
from lepton_mpi.world import deaths, leftovers, members, presence, witness
from lepton_mpi.world.deaths import CrashStacks, Ended, MemoryKills
from lepton_mpi.world.failure import Failure, end_child
from lepton_mpi.world.host_links import ENDED, FAILED, UNREACHABLE, HostLinks, News, lost_host
from lepton_mpi.world.loss_news import LossNews
from lepton_mpi.world.members import Member
from lepton_mpi.world.rank_group import RankGroup
from lepton_mpi.world.stopping import Stopping
from lepton_mpi.world.watchdog import PhaseClock, Watchdog

if TYPE_CHECKING:
    from mpi4py import MPI

    from lepton_mpi.world.losses import Losses

# Until a rank that is itself the cause has spoken, or its backstop has written where it is.
_CAUSE_FIRST_SECONDS = 2.0
# How long Open MPI waits before it ends the job for a connection that was closed: the dead rank's host reports meanwhile.
_MPI_ABORT_SECONDS = 3
# Until the ranks of a host have reported that their leader died.
_HOST_SPEAKS_SECONDS = 1.5
# A launcher that has lost a host does not end by itself.
_LOST_LAUNCHER_SECONDS = 2.0


class WatchedGroup(RankGroup):
    """The ranks of a communicator, each with what ends the job when one of them fails. See ``World``.

    Parameters
    ----------
    timeout_seconds, peer_timeout_seconds
        See ``World``.
    """

    stopping: Stopping

    def __init__(self, timeout_seconds: float, peer_timeout_seconds: float) -> None:
        """Of no ranks before ``_begin``."""
        self._process_id = os.getpid()
        self.timeout_seconds, self._peer_timeout_seconds = timeout_seconds, peer_timeout_seconds
        self._launcher, self._interrupts = os.getppid(), 0
        self._is_watched = False
        self._witness: subprocess.Popen[bytes] | None = None
        # By rank, of a job that can lose some.
        self._members: list[Member] = []

    def _begin(self, comm: MPI.Intracomm, losses: Losses | None) -> None:
        """Be the world of the ranks of ``comm``, and watch them; what a start that fails has begun is undone."""
        self._is_watched, self._witness = False, None
        self.comm = comm  # of which ``go_on`` makes the next one, whatever happens here
        with ExitStack() as undo:
            if losses:
                losses.revoke_with(comm)
                everybody = members.of(comm, losses.me)
                losses.watch(everybody)
            super().__init__(comm, PhaseClock(), losses=losses)
            if self.size == 1 and not losses:  # others would have to do it at the same time
                undo.callback(super().close)
            shown = presence.show(self, self.timeout_seconds, undo)
            self._host, self._file, self._place_at_end = shown.host, shown.file, ""
            self.clock = self._calls.clock = shown.clock
            self._guard(shown, undo)
            if self._links.unwatched and self.rank == 0:
                print(f"{WARNING}{self._links.unwatched_text}", file=sys.stderr)
            if self.local_rank == 0 and self.size > 1:
                leftovers.remove()
                if not losses:  # it would take a lost rank for the end of the job
                    self._witness = witness.start(self._host.to_json(0), self._file)
            if losses:
                losses.hear(LossNews(self, everybody, self._links), self.heard)
                self._members = everybody
            undo.pop_all()
        self._is_watched = True

    def _guard(self, shown: presence.Shown, undo: ExitStack) -> None:
        """See to it that all ranks end when one does, or stop when one is to."""
        from lepton_mpi.world.mpi import delay_abort

        self._links = HostLinks(self, self._peer_timeout_seconds)
        links, losses = self._links, self.losses
        undo.callback(lambda: losses.give_up(links) if losses else links.close())
        tell, place = self._links.tell_failure, self._place
        self._failure = Failure(self.rank, self.size, shown.file, shown.reported, tell, place)
        undo.callback(self._failure.close, hooks_stay=self.size > 1 or self.losses is not None)
        self._memory_kills = MemoryKills()
        self._crashes = CrashStacks(self._host.process_ids, self._host.stack_files, self.local_rank)
        undo.callback(self._crashes.close)
        self.can_agree_to_stop = not self._links.unwatched
        self.stopping = Stopping(self, self._links, self._host.process_ids[0])
        self._looks: list[WeakMethod[Callable[[], str]]] = []
        self.watchdog = Watchdog(
            *(self.clock, self.timeout_seconds, self._host.process_ids),
            *(self, shown.backstop, None if self.losses else self._links),
        )
        undo.callback(self.watchdog.stop)
        if self.size > 1:
            delay_abort(_MPI_ABORT_SECONDS)

    @property
    def is_child(self) -> bool:
        """Whether this process is not the rank, but one that the rank has forked: then nothing here is its own."""
        return os.getpid() != self._process_id

    def at_failure(self, last_words: Callable[[], None] | None) -> None:
        """See ``RankGroup``."""
        self._failure.last_words = last_words

    def watch(self, look: Callable[[], str]) -> None:
        """See ``Group``."""
        self._looks.append(WeakMethod(look))

    def fail(self, report: str, exit_code: int = 5) -> None:
        """Print ``report``, unless another rank of this host has failed before, and end the job."""
        if self.is_child:
            end_child(RankError(report))
        self._failure.fail(report, exit_code)

    def _stop_watching(self, hooks_stay: bool) -> bytes:
        """Returns the signals that the watchdog has not read."""
        self._place_at_end = self._place()
        self.clock.enter("over")
        report_word.set_address(0)
        if self._witness:
            self._witness.kill()
            self._witness.wait()
        self._crashes.close()
        unread = self.watchdog.stop()
        self._failure.close(hooks_stay)
        os.close(self._file)
        return unread

    # -- what the watchdog's thread calls ----------------------------------------------------------

    def died(self, ended: dict[int, int | None]) -> None:
        """See ``Alarms``."""
        if self.losses and self.losses.is_awaited:
            return  # its thread has seen it, too, and has the connections to other hosts
        found = [Ended(rank, status, self._crashes.of(rank)) for rank, status in ended.items()]
        beats, kills = self.clock.heartbeats(), self._memory_kills
        report = deaths.report(self._host, beats, found, kills, self._on_host)
        details = [*report, *(each.stack for each in found)]
        self._failure.fail("\n".join(report), details="\n".join(details))

    @property
    def _on_host(self) -> str:
        """In a job of several hosts where its processes are."""
        return f" on {self._links.names[self.host_index]}" if self.host_count > 1 else ""

    def _place(self) -> str:
        """Process, phase and step; of a world that is over, where it was before that."""
        return (
            self._place_at_end
            or f"process {os.getpid()}{self._on_host}, {self.clock.heartbeats()[self.local_rank]}"
        )

    def timed_out(self) -> None:
        """See ``Alarms``."""
        stack = ""
        if self.clock.waits_for_others():
            time.sleep(_CAUSE_FIRST_SECONDS)
        else:
            frame = sys._current_frames().get(threading.main_thread().ident or 0)
            stack = "".join(traceback.format_stack(frame))
        self.fail(self._host.hang_report(self.clock.heartbeats(), self.local_rank, stack))

    def looked(self) -> None:
        """See ``Alarms``."""
        if self._failure.has_begun:
            self.fail("")
        for reference in list(self._looks):
            look = reference()
            if look is None:
                self._looks.remove(reference)
            elif (text := look()) and not (self.losses and self.losses.is_told):
                self.fail(f"lepton_mpi: {text}")
        self.stopping.look()

    def signalled(self, number: int) -> None:
        """See ``Alarms``."""
        if self._failure.has_begun or os.getppid() != self._launcher:
            os._exit(128 + number)  # the launcher ends a job that has failed
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self.fail("lepton_mpi: interrupted twice: nothing was saved", 130)
        self.stopping.want(number)

    def heard(self, news: News) -> None:
        """See ``Alarms``."""
        if news.kind == FAILED:
            self.fail("")
        elif news.kind not in (UNREACHABLE, ENDED):
            self.stopping.heard(news)
        elif news.kind == UNREACHABLE:
            report = lost_host(self, self._links, news)
            self._failure.fail(report, launcher_seconds=_LOST_LAUNCHER_SECONDS)
        elif news.kind == ENDED:
            time.sleep(_HOST_SPEAKS_SECONDS)
            self._failure.fail(lost_host(self, self._links, news))
