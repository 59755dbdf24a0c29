"""Ranks that are lost, and how the others leave whatever they wait in: what ``--elastic`` stands on, with Open MPI's ULFM.

    a process ends -> a thread of every other rank     1. says so in memory of the host
                                                       2. revokes this rank's communicators: its MPI calls raise
                                                       3. fills the words that ranks wait for in memory: all waits are over

It sees the processes of its own host. Of other hosts the leader hears, by its connections, and tells its host (``loss_news.py``).

No rank that waits tells the others to stop waiting, so it does not matter who waits for whom. A wait in memory that ends so has
no result, and what is computed after it is worthless; ``check`` raises before anything is made of it. Nothing that must survive is
written without a meeting by MPI, which such a rank cannot pass.

The words are filled again and again: a rank that had come to a meeting before another died may write its number over them.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.world import members, pmix
from lepton_mpi.world.host_links import ENDED, LOST, UNREACHABLE, HostLinks, News
from lepton_mpi.world.loss_news import LossNews
from lepton_mpi.world.members import Member

if TYPE_CHECKING:
    from mpi4py import MPI

# Above the number of any call, and far enough from the end of int64 for what is added to it.
_OVER = 1 << 61
_AGAIN_SECONDS = 0.002
# From a loss until MPI is told where the launcher has not done so; it takes milliseconds, and Open MPI may crash if it hears of a loss while it makes
# a communicator.
_TELL_SECONDS = 0.25
# From an error until Linux says that a process is gone; it may have said so before.
_BELIEF_SECONDS = 0.2


class RankLostError(Exception):
    """Some rank has ended; those that are left can go on by ``World.go_on``."""


class Losses:
    """What this rank has to end when a rank is lost, and the thread that does. Made before the ranks share anything.

    Attributes
    ----------
    me : Member
    dead : set of int
        Numbers of members that are lost.
    noticed : float
        When the last one was lost, by ``time.monotonic``.
    is_awaited : bool
        Whether somebody goes on by ``World.go_on``: before that a death ends the job.
    """

    def __init__(self) -> None:
        self.me = members.own()
        self.dead, self.noticed, self.is_awaited = set[int](), 0.0, False
        self._lock = threading.Lock()
        self._comms: list[MPI.Comm] = []
        self._words: list[tuple[np.ndarray, int]] = []
        self._flag = _flag(np.zeros(1, np.int64))
        self._has_lost = threading.Event()
        self._poll = select.poll()
        self._members: dict[int, Member] = {}
        # Descriptors that are polled: of processes, with their members' numbers; of leaders' connections.
        self._processes: dict[int, int] = {}
        self._linked: dict[int, LossNews] = {}
        self._news: LossNews | None = None
        self._outdated: list[LossNews] = []
        self._heard: Callable[[News], None] = lambda news: None
        # Whether the news are still those of the world before, in which ranks may be lost of which this one is not told by a bell.
        self._is_between = False
        # Of those that are lost, which MPI may not know yet, and when it is to be told.
        self._untold, self._tell_at = set[int](), 0.0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.POLLIN)
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="lepton_mpi losses", daemon=True)
        self._thread.start()

    # -- what belongs to the ranks that there are ---------------------------------------------------

    def watch(self, everybody: list[Member]) -> None:
        """The ranks; those of this host that are gone already count as lost now, and those of other hosts that are known to be."""
        self._members = {member.number: member for member in everybody}
        watched = set(self._processes.values())
        for member in everybody:
            if member.host != self.me.host or member.number in watched | {self.me.number}:
                continue
            try:
                descriptor = os.pidfd_open(member.process_id)
            except ProcessLookupError:
                self._lose({member.number})
                continue
            self._processes[descriptor] = member.number
            self._poll.register(descriptor, select.POLLIN)
        if self._lost:  # MPI has not noticed yet
            self._has_lost.set()
        self._wake_up()  # poll again, with these

    def hear(self, news: LossNews, heard: Callable[[News], None]) -> None:
        """What this world's hosts tell each other, in place of that of the world before; ``heard`` gets what is no loss, in the thread."""
        with self._lock:
            if self._news:
                self._outdated.append(self._news)
            self._news, self._heard, self._is_between = news, heard, False
            self._flag = _flag(news.flag)
            self._flag[0] = self._flag[0] or int(self._has_lost.is_set())
            if news.bell >= 0:
                self._poll.register(news.bell, select.POLLIN)
            for descriptor in news.links.descriptors():
                self._linked[descriptor] = news
                self._poll.register(descriptor, select.POLLIN)
            # Lost since the ranks met: whoever listens to these news already has heard nothing of it.
            if self._lost:
                news.tell(self._lost)
        self._wake_up()

    def give_up(self, links: HostLinks) -> None:
        """Close ``links`` of a world that could not begin. Other leaders may listen to nothing else by now: they are told who is lost."""
        self._has_lost.wait(_BELIEF_SECONDS)
        for number in self._lost:
            links.send(LOST, number)
        links.close()

    def revoke_with(self, comm: MPI.Comm) -> None:
        """``comm`` is this rank's, and is revoked when a rank is lost; at once if one is."""
        with self._lock:
            self._comms.append(comm)
            if self._has_lost.is_set():
                comm.Revoke()

    def fill_with(self, words: np.ndarray, first: int) -> None:
        """Ranks wait for words of ``words``, int64 in memory of the host, to become large enough; those before ``first`` stay."""
        with self._lock:
            self._words.append((words.reshape(-1), first))

    def begin_anew(self, kept: MPI.Comm | None = None) -> None:
        """What was there belongs to ranks that are gone, or to a world that is. The communicators are revoked, in any case, but for ``kept``.

        The news of other hosts stay until ``hear``.
        """
        with self._lock:
            for comm in self._comms:
                with suppress(Exception):
                    if comm is not kept:
                        comm.Revoke()
            self._comms, self._words = [], []
            self._flag = _flag(np.zeros(1, np.int64))
            self._is_between = bool(self._news and self._news.bell >= 0)
            self._has_lost.clear()
        self._wake_up()

    @property
    def _lost(self) -> set[int]:
        """Of the ranks that there are."""
        return self.dead & self._members.keys()

    # -- what the rank's own thread asks -------------------------------------------------------------

    def check(self) -> None:
        """Raises RankLostError if a rank is lost. Costs a load."""
        if self._flag[0]:
            raise RankLostError

    @property
    def is_told(self) -> bool:
        """Whether a rank is known to be lost: then words that ranks wait for mean nothing."""
        return bool(self._flag[0])

    def left_of(self, everybody: list[Member]) -> list[Member]:
        """Those that are not known to be lost."""
        return [member for member in everybody if member.number not in self.dead]

    def explain(self, error: BaseException) -> bool:
        """Whether ``error`` comes of a lost rank: then what was computed is worthless.

        Waits for Linux's word: another rank may have had it before and revoked what this one was in, which MPI reports as any error, or as
        a result that cannot be unpickled.
        """
        if isinstance(error, RankLostError):
            return True
        is_known = self._has_lost.wait(_BELIEF_SECONDS)
        return is_known or self.is_told or _is_of_loss(error)

    def close(self) -> None:
        """End the thread, and leave the other hosts. The others may go."""
        self._is_over = True
        self._wake_up()
        self._thread.join()
        for news in (*self._outdated, *([self._news] if self._news else [])):
            news.close()
        for descriptor in (*self._processes, self._wake):
            os.close(descriptor)

    # -- the thread ----------------------------------------------------------------------------------

    def _wake_up(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _work(self) -> None:
        while not self._is_over:
            looks_again = self._has_lost.is_set() or self._is_between or bool(self._untold)
            ready = [
                which
                for which, _ in self._poll.poll(1000 * _AGAIN_SECONDS if looks_again else None)
            ]
            for descriptor in ready:
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                elif descriptor in self._processes:
                    self._poll.unregister(descriptor)
                    os.close(descriptor)
                    self._lose({self._processes.pop(descriptor)})
                elif descriptor in self._linked:
                    self._read(descriptor)
                else:  # a bell rings once
                    self._poll.unregister(descriptor)
            if self._news and (self._is_between or self._has_lost.is_set() or ready):
                self._lose(self._news.said())
            if self._has_lost.is_set():
                self._end_waits()
            if self._untold and monotonic() > self._tell_at:
                self._tell_mpi()
            self._close_outdated()

    def _read(self, descriptor: int) -> None:
        """What another host's leader says."""
        news = self._linked[descriptor]
        said = news.links.read(descriptor)
        if descriptor not in news.links.descriptors():
            self._poll.unregister(descriptor)
            del self._linked[descriptor]
        for each in said:
            if each.kind == LOST:
                self._lose({each.value})
            elif each.kind == ENDED and self.is_awaited:
                self._lose(news.leader_of(each.host))
            elif each.kind == UNREACHABLE and self.is_awaited and news.is_centre:
                self._lose(news.of_host(each.host))
            elif news is self._news or each.kind == UNREACHABLE:
                self._heard(each)

    def _close_outdated(self) -> None:
        with self._lock:
            outdated, self._outdated = self._outdated, []
            for news in outdated:
                for descriptor in [one for one, whose in self._linked.items() if whose is news]:
                    self._poll.unregister(descriptor)
                    del self._linked[descriptor]
                with suppress(KeyError, ValueError):  # it has rung, or there is none
                    self._poll.unregister(news.bell)
                news.close()

    def _lose(self, numbers: set[int]) -> None:
        """These members, of which some may have been lost before, or left behind already."""
        numbers = (numbers - self.dead - {self.me.number}) & self._members.keys()
        if not numbers:
            return
        self.dead |= numbers
        self.noticed = monotonic()
        self._has_lost.set()
        with self._lock:
            self._untold, self._tell_at = self._untold | numbers, self.noticed + _TELL_SECONDS
            self._flag[0] = 1
            for comm in self._comms:
                with suppress(Exception):
                    comm.Revoke()
            if self._news:
                self._news.tell(numbers)

    def _tell_mpi(self) -> None:
        """MPI may still wait for those that are lost: where nobody has left them behind by now, its launcher has not said so."""
        with self._lock:
            numbers, self._untold = self._untold & self._members.keys(), set()
        for number in numbers:
            pmix.tell_own_mpi(self._members[number].name)

    def _end_waits(self) -> None:
        with self._lock:
            if self._has_lost.is_set():
                self._flag[0] = 1
                for words, first in self._words:
                    words[first:] = _OVER


def _flag(word: Any) -> memoryview[int]:
    """Faster to look at than an array's."""
    return memoryview(word)


def _is_of_loss(error: BaseException) -> bool:
    """Whether it is one of MPI's that a lost rank, or a communicator that was revoked for it, gives."""
    if type(error).__module__ != "mpi4py.MPI":
        return False
    from lepton_mpi.world.mpi import MPI

    kinds = MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED
    return isinstance(error, MPI.Exception) and error.Get_error_class() in kinds


def check_possible() -> None:
    """Raises ConfigurationError where the MPI or its launcher cannot go on without a rank."""
    from lepton_mpi import launcher
    from lepton_mpi.world.mpi import MPI, mpi_library

    name, version = MPI.get_vendor()
    if name != "Open MPI" or version < (5, 0, 4):
        raise ConfigurationError(
            f"--elastic: expected Open MPI 5.0.4 or newer, whose ULFM lets ranks go on without others, got {mpi_library()}; with others "
            "--checkpoint and --resume go on in a new job"
        )
    if not launcher.tolerates_losses() or MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise ConfigurationError(
            "--elastic: expected a launcher that does not end the job with a rank, as in mpirun --with-ft ulfm -n 8 "
            "python -m lepton_mpi.train --elastic, got another"
        )
