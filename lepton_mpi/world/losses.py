"""Ranks that are lost, and how the others leave whatever they wait in: what ``--elastic`` stands on, with Open MPI's ULFM on one host.

    a process ends -> a thread of every other rank     1. says so in memory of the host
                                                       2. revokes this rank's communicators: its MPI calls raise
                                                       3. fills the words that ranks wait for in memory: all waits are over

No rank that waits tells the others to stop waiting, so it does not matter who waits for whom. A wait in memory that ends so has
no result, and what is computed after it is worthless; ``check`` raises before anything is made of it. Nothing that must survive is
written without a meeting by MPI, which such a rank cannot pass.

The words are filled again and again: a rank that had come to a meeting before another died may write its number over them.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.errors import ConfigurationError

if TYPE_CHECKING:
    from mpi4py import MPI

# Above the number of any call, and far enough from the end of int64 for what is added to it.
_OVER = 1 << 61
_AGAIN_SECONDS = 0.002
# From an error until Linux says that a process is gone; it may have said so before.
_BELIEF_SECONDS = 0.2


class RankLostError(Exception):
    """Some rank has ended; those that are left can go on by ``World.go_on``."""


class Losses:
    """What this rank has to end when a rank is lost, and the thread that does. Made before the ranks share anything.

    Attributes
    ----------
    dead : set of int
        Numbers of processes that have ended.
    noticed : float
        When the last one did, by ``time.monotonic``.
    is_awaited : bool
        Whether somebody goes on by ``World.go_on``: before that a death ends the job.
    """

    def __init__(self) -> None:
        self.dead, self.noticed, self.is_awaited = set[int](), 0.0, False
        self._lock = threading.Lock()
        self._comms: list[MPI.Comm] = []
        self._words: list[tuple[np.ndarray, int]] = []
        self._flag = _flag(np.zeros(1, np.int64))
        self._has_lost = threading.Event()
        self._poll = select.poll()
        self._processes: dict[int, int] = {}
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.POLLIN)
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="lepton_mpi losses", daemon=True)
        self._thread.start()

    # -- what belongs to the ranks that there are ---------------------------------------------------

    def watch(self, process_ids: list[int]) -> None:
        """Processes of the other ranks; those that are gone already count as lost now."""
        for process_id in set(process_ids) - {os.getpid()} - set(self._processes.values()):
            try:
                descriptor = os.pidfd_open(process_id)
            except ProcessLookupError:
                self._lose(process_id)
                continue
            self._processes[descriptor] = process_id
            self._poll.register(descriptor, select.POLLIN)
        if self.dead & set(process_ids):  # MPI has not noticed yet
            self._has_lost.set()
        os.eventfd_write(self._wake, 1)  # poll again, with these

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

    def tell_by(self, flag: np.ndarray) -> None:
        """A word of the host's memory that says to all of its ranks that one is lost."""
        with self._lock:
            self._flag = _flag(flag)
            self._flag[0] = self._flag[0] or int(self._has_lost.is_set())

    def begin_anew(self, kept: MPI.Comm | None = None) -> None:
        """What was there belongs to ranks that are gone, or to a world that is. The communicators are revoked, in any case, but for ``kept``."""
        with self._lock:
            for comm in self._comms:
                with suppress(Exception):
                    if comm is not kept:
                        comm.Revoke()
            self._comms, self._words = [], []
            self._flag = _flag(np.zeros(1, np.int64))
            self._has_lost.clear()

    # -- what the rank's own thread asks -------------------------------------------------------------

    def check(self) -> None:
        """Raises RankLostError if a rank is lost. Costs a load."""
        if self._flag[0]:
            raise RankLostError

    @property
    def is_told(self) -> bool:
        """Whether a rank of this host is known to be lost: then words that ranks wait for mean nothing."""
        return bool(self._flag[0])

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
        """End the thread. The others may go."""
        self._is_over = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for descriptor in (*self._processes, self._wake):
            os.close(descriptor)

    # -- the thread ----------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._is_over:
            has_lost = self._has_lost.is_set()
            for descriptor, _ in self._poll.poll(1000 * _AGAIN_SECONDS if has_lost else None):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                    continue
                self._poll.unregister(descriptor)
                os.close(descriptor)
                self._lose(self._processes.pop(descriptor))
            if self._has_lost.is_set():
                self._end_waits()

    def _lose(self, process_id: int) -> None:
        self.dead.add(process_id)
        self.noticed = monotonic()
        self._has_lost.set()
        with self._lock:
            self._flag[0] = 1
            for comm in self._comms:
                with suppress(Exception):
                    comm.Revoke()

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
