"""Whether the ranks of a host may read each other's memory (process_vm_readv of Linux), which containers may forbid."""

import os

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host.cross_memory_kernels import read_memory


def can_read(group: Group, processes: np.ndarray, addresses: np.ndarray) -> bool:
    """Whether every rank could read the next one's. Collective over the host; the same on all its ranks.

    Parameters
    ----------
    group : Group
        ``local_rank`` and ``local_size`` are taken.
    processes : int64, shape (ranks,)
        Of the host; filled with the process numbers.
    addresses : int64, shape (ranks, ranks)
        Of the host; used.
    """
    own, ranks = group.local_rank, group.local_size
    told, found = np.full(1, 1 + own, np.int64), np.zeros(5, np.int64)
    other = (own + 1) % ranks
    processes[own] = os.getpid()
    addresses[own, 0] = told.ctypes.data
    group.host_barrier()
    at, source = found.ctypes.data, int(addresses[other, 0])
    read_memory(int(processes[other]), source, at, 8, at + 8)
    group.host_barrier()
    addresses[own, 0] = found[0] == 1 + other
    group.host_barrier()
    can_all = bool(addresses[:, 0].all())
    group.host_barrier()
    return can_all
