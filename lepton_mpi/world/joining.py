"""Ranks that join a job which is running: it starts them itself, by MPI's Spawn, on its own host.

    ranks that are there   1. start a process: to the launcher each is a job of its own, which ends all of its ranks when one dies
                           2. merge with it; these and it together start the next one
                           3. agree, by ULFM, that all have come; else they kill those that have, and are as before
    a new rank             runs the same program, with variables that say what it is (``launcher.Joining``), and merges

Spawn waits for ever for a process that died before it came to MPI. So a thread calls it, on a communicator of its own, and both are left
behind if it does not return. Behind 3 all are ranks of one communicator, and who dies is lost like any other rank: ``World.grow``.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from lepton_mpi import launcher
from lepton_mpi.processes import look_at
from lepton_mpi.wording import one_line
from lepton_mpi.world import exits
from lepton_mpi.world.timers import Timer

if TYPE_CHECKING:
    from mpi4py import MPI

    from lepton_mpi.world.losses import Losses
    from lepton_mpi.world.rank_group import RankGroup

# For all new ranks: a start takes 1 s, and 20 s on a busy machine with a slow disk.
START_SECONDS = 60.0
# Behind that, a new rank that nobody waits for ends itself.
_LEFT_ALONE_SECONDS = 15.0
_LOOK_SECONDS = 0.2
# A process that nobody has seen so long behind its start has ended at once.
_NEVER_SEEN_SECONDS = 5.0


class NotStartedError(Exception):
    """The new ranks have not come; the others are as before."""


def start(group: RankGroup, count: int, number: int) -> MPI.Intracomm:
    """``count`` new ranks, behind those of ``group``: the communicator of all of them. Collective over those that are there.

    Parameters
    ----------
    group : RankGroup
        All ranks of the job, with ``losses``.
    number : int
        Of the first new process, as ``launcher.launched_rank`` will tell it.

    Raises
    ------
    NotStartedError
        On all ranks.
    """
    losses = group.losses
    assert losses is not None
    token = group.comm.bcast(secrets.token_hex(8))
    began = launcher.program_began()
    ranks = [
        launcher.Joining(number + i, number + count, count - 1 - i, token, began)
        for i in range(count)
    ]
    spawning = _Spawning(group.comm.Dup(), ranks)
    reason = _wait(spawning, token, losses)
    have_come = False
    try:
        have_come = bool(group.comm.Agree(int(not reason)))
    finally:
        if not have_come:
            spawning.is_given_up = True
            _end_all(token)
            with suppress(Exception):  # the thread, where it waits for other ranks
                spawning.comm.Revoke()
    reasons = group.comm.allgather(reason)
    if not have_come:
        exits.has_lost = True  # MPI's end would wait for the thread
        raise NotStartedError(next(filter(None, reasons)))
    assert spawning.merged is not None
    return spawning.merged


def limited_start() -> Timer:
    """For a new rank, before MPI begins, which hangs where the others have given up: ends the process unless the timer is closed."""
    limit = Timer.calling("_exit", 1)
    limit.set(START_SECONDS + _LEFT_ALONE_SECONDS)
    return limit


def merged_with_job(me: launcher.Joining) -> MPI.Intracomm:
    """For a new rank: the communicator of all, once those that come behind it are there, too."""
    from lepton_mpi.world.mpi import MPI

    try:
        comm = MPI.Comm.Get_parent().Merge(high=True)
        for _ in range(me.further):
            comm = comm.Spawn("", maxprocs=1).Merge(high=False)
    except Exception:  # the others have died, or given up and say so
        os._exit(1)
    return comm


class _Spawning:
    """A thread that starts ranks one after the other.

    Attributes
    ----------
    is_over : threading.Event
    merged : MPI.Intracomm or None
        All ranks, if they have come; else ``error`` may say why not.
    merged_count : int
        Those that have come.
    is_given_up : bool
        Set by whoever waits no longer: no more are started.
    """

    def __init__(self, comm: MPI.Intracomm, ranks: list[launcher.Joining]) -> None:
        self.comm, self._ranks = comm, ranks
        self.is_over, self.error, self.merged_count = threading.Event(), "", 0
        self.merged: MPI.Intracomm | None = None
        self.is_given_up = False
        threading.Thread(target=self._work, name="lepton_mpi spawning", daemon=True).start()

    def _work(self) -> None:
        comm = self.comm
        try:
            for each in self._ranks:
                if self.is_given_up:
                    break
                words = sys.orig_argv[1:]
                new = comm.Spawn(sys.executable, words, maxprocs=1, info=_info(each))
                comm = new.Merge(high=False)
                self.merged_count += 1
            else:
                self.merged = comm
        except Exception as error:
            self.error = one_line(error)
        self.is_over.set()


def _info(rank: launcher.Joining) -> MPI.Info:
    """How a rank is started: beside others on their cores, since the user has asked for it."""
    from lepton_mpi.world.mpi import MPI

    info = MPI.Info.Create()
    info.Set("wdir", os.getcwd())
    info.Set("PMIX_ENVAR", "\n".join(f"{name}={value}" for name, value in rank.variables().items()))
    info.Set("PMIX_MAPBY", "slot:oversubscribe")
    info.Set("PMIX_BINDTO", "none")
    return info


def _wait(spawning: _Spawning, token: str, losses: Losses) -> str:
    """Until the ranks have come, or cannot any more: the reason, or nothing."""
    deadline, seen, complete_at = monotonic() + START_SECONDS, set[int](), monotonic()
    while not spawning.is_over.wait(_LOOK_SECONDS):
        there, now = _started(token), monotonic()
        if len(there) > spawning.merged_count:
            complete_at = now
        if seen - there or now > complete_at + _NEVER_SEEN_SECONDS:
            return "a new rank ended before it had joined"
        seen |= there
        if losses.is_told:
            return "a rank was lost meanwhile"
        if now > deadline:
            return f"no answer of the new ranks in {START_SECONDS:g} s"
    return "" if spawning.merged is not None else f"MPI cannot start them: {spawning.error}"


def _started(token: str) -> set[int]:
    """Processes that were started for this, and that live; not those that they have started themselves."""
    mark, parents = f"{launcher.JOINS}TOKEN={token}".encode(), dict[int, int]()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if mark in file.read().split(b"\0") and (process := look_at(name)):
                parents[int(name)] = process.parent
    return {process_id for process_id, parent in parents.items() if parent not in parents}


def _end_all(token: str) -> None:
    for process_id in _started(token):
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)
