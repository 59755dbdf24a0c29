"""What a rank shows the others of its host from its first moment on: the file of ``heartbeats.py``, mapped, and who it is."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi import report_word
from lepton_mpi.world import heartbeats, pages, shared_memory
from lepton_mpi.world.backstop import Backstop
from lepton_mpi.world.watchdog import PhaseClock

if TYPE_CHECKING:
    from lepton_mpi.world.rank_group import RankGroup


@dataclass(frozen=True)
class Shown:
    """The file, and what is made of it.

    Attributes
    ----------
    file : int
        Its descriptor.
    reported : int64, shape (1,)
        Its word 0, which ``report_word`` has the address of.
    clock : PhaseClock
        This rank's row.
    host : Host
        Who the ranks are.
    backstop : Backstop
        Not armed yet.
    """

    file: int
    reported: np.ndarray
    clock: PhaseClock
    host: heartbeats.Host
    backstop: Backstop


def show(group: RankGroup, timeout_seconds: float, undo: ExitStack) -> Shown:
    """Collective over the job; ``undo`` has from now on what gives all of it back."""
    length = heartbeats.file_bytes(group.local_size)
    with group.agreeing():
        file = shared_memory.open_host_file(group.host_comm, length, "heartbeats")
    undo.callback(os.close, file)
    words = pages.map_file(file, length)
    rows = words[heartbeats.ROWS_AT :].view(np.float64).reshape(group.local_size, 3)
    label = words[heartbeats.LABEL_AT : heartbeats.ROWS_AT]
    reported = words[:8].view(np.int64)
    report_word.set_address(reported.ctypes.data)
    undo.callback(report_word.set_address, 0)
    backstop = Backstop()
    undo.callback(backstop.close)
    host = _host(group, timeout_seconds, backstop.stack_file, file)
    backstop.report_by(host, group.local_rank)
    clock = PhaseClock(rows, group.local_rank, label)
    return Shown(file, reported, clock, host, backstop)


def _host(
    group: RankGroup, timeout_seconds: float, stack_file: int, heartbeat_file: int
) -> heartbeats.Host:
    mine = os.getpid(), stack_file, heartbeat_file
    process_ids, stack_files, files = zip(*group.host_comm.allgather(mine), strict=True)
    return heartbeats.Host(
        *(group.size, group.host_ranks, list(process_ids), list(stack_files), list(files)),
        timeout_seconds,
    )
