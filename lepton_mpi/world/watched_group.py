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

import numpy as np

from lepton_mpi import report_word
from lepton_mpi.errors import RankError
from lepton_mpi.world import deaths, heartbeats, leftovers, pages, shared_memory, witness
from lepton_mpi.world.backstop import Backstop
from lepton_mpi.world.deaths import CrashStacks, MemoryKills
from lepton_mpi.world.failure import Failure, end_child
from lepton_mpi.world.host_links import ENDED, FAILED, UNREACHABLE, HostLinks, News, lost_host
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
        self._is_watched, self._undo = False, ExitStack()
        # Numbers of ranks by their processes.
        self._ranks: dict[int, int] = {}

    def _begin(self, comm: MPI.Intracomm, losses: Losses | None) -> None:
        """Be the world of the ranks of ``comm``, and watch them."""
        from lepton_mpi.world.mpi import delay_abort

        self._is_watched, self._undo = False, ExitStack()
        self.comm = comm  # of which ``go_on`` makes the next one, whatever happens here
        if losses:
            losses.revoke_with(comm)
            losses.watch(comm.allgather(os.getpid()))
        RankGroup.__init__(self, comm, PhaseClock(), losses=losses)
        if losses:
            losses.tell_by(self.host_array((1,), np.int64, "lost"))
        length = heartbeats.file_bytes(self.local_size)
        with self.agreeing():
            self._file = shared_memory.open_host_file(self.host_comm, length, "heartbeats")
        self._undo.callback(os.close, self._file)
        words = pages.map_file(self._file, length)
        rows = words[heartbeats.ROWS_AT :].view(np.float64).reshape(self.local_size, 3)
        label = words[heartbeats.LABEL_AT : heartbeats.ROWS_AT]
        self.clock = self._calls.clock = PhaseClock(rows, self.local_rank, label)
        self._links = HostLinks(self, self._peer_timeout_seconds)
        self._undo.callback(self._links.close)
        reported = words[:8].view(np.int64)
        report_word.set_address(reported.ctypes.data)
        tell = self._links.tell_failure
        backstop = Backstop()
        self._undo.callback(backstop.close)
        self._host = self._describe_host(backstop.stack_file)
        self._place_at_end = ""
        self._failure = Failure(self.rank, self.size, self._file, reported, tell, self._place)
        self._undo.callback(self._failure.close, hooks_stay=True)
        self._memory_kills = MemoryKills()
        self._crashes = CrashStacks(self._host.process_ids, self._host.stack_files, self.local_rank)
        self._undo.callback(self._crashes.close)
        backstop.report_by(self._host, self.local_rank)
        self.can_agree_to_stop = not self._links.unwatched
        self.stopping = Stopping(self, self._links, self._host.process_ids[0])
        self._ranks = dict(zip(self._host.process_ids, self.host_ranks, strict=True))
        self._looks: list[WeakMethod[Callable[[], str]]] = []
        self.watchdog = Watchdog(
            *(self.clock, self.timeout_seconds, self._host.process_ids),
            *(self, backstop, self._links),
        )
        self._is_watched, self._undo = True, ExitStack()
        if self.size > 1:
            delay_abort(_MPI_ABORT_SECONDS)
        self._witness: subprocess.Popen[bytes] | None = None
        if self.local_rank == 0 and self.size > 1:
            leftovers.remove()
            if not losses:  # it would take a lost rank for the end of the job
                self._witness = witness.start(self._host.to_json(0), self._file)
        if self._links.unwatched and self.rank == 0:
            print(
                f"lepton_mpi: no TCP connection to {', '.join(self._links.unwatched)}: if a host is lost, only --timeout "
                "ends the job",
                file=sys.stderr,
            )

    def _describe_host(self, stack_file: int) -> heartbeats.Host:
        mine = os.getpid(), stack_file, self._file
        process_ids, stack_files, files = zip(*self.host_comm.allgather(mine), strict=True)
        return heartbeats.Host(
            *(self.size, self.host_ranks, list(process_ids), list(stack_files), list(files)),
            self.timeout_seconds,
        )

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

    def _stop_watching(self, hooks_stay: bool) -> None:
        self._place_at_end = self._place()
        self.clock.enter("over")
        report_word.set_address(0)
        if self._witness:
            self._witness.kill()
            self._witness.wait()
        self._crashes.close()
        self.watchdog.stop()
        self._failure.close(hooks_stay)
        os.close(self._file)

    # -- what the watchdog's thread calls ----------------------------------------------------------

    def died(self, local_rank: int, status: int | None) -> None:
        """See ``Alarms``."""
        if self.losses and self.losses.is_awaited:
            return  # its thread has seen it, too
        beat, stack = self.clock.heartbeats()[local_rank], self._crashes.of(local_rank)
        causes = deaths.causes(status, self._memory_kills)
        report = self._host.death_report(local_rank, beat, causes, stack, self._on_host)
        self._failure.fail("\n".join(report), details="\n".join([*report, stack]))

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
