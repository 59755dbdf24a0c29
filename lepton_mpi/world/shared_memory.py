"""Memory that the ranks of a host share: files without a name in any file system, mapped by each of them.

Nothing of them outlives the ranks, however they end. A file is opened by way of ``/proc/PID/fd`` of the rank that made it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi.errors import LauncherError, RankError
from lepton_mpi.world import pages

if TYPE_CHECKING:
    from mpi4py import MPI
    from numpy.typing import DTypeLike


def host_array(
    host_comm: MPI.Comm, shape: tuple[int, ...], dtype: DTypeLike, name: str
) -> np.ndarray:
    """Array of zeros that all ranks of ``host_comm`` read and write in place. Collective over them.

    ``name`` is what ``memory.py`` counts it under. The memory is given back with the last view of it.
    """
    dtype = np.dtype(dtype)
    byte_count = prod(shape) * dtype.itemsize
    length = pages.file_length(max(1, byte_count))
    file = open_host_file(host_comm, length, name)
    memory = pages.map_file(file, length)
    os.close(file)
    _take_large_pages(host_comm, memory)
    return memory[:byte_count].view(dtype).reshape(shape)


def open_host_file(host_comm: MPI.Comm, length: int, name: str) -> int:
    """Descriptor of one unnamed file, opened by each rank of ``host_comm`` on its own. Collective over them.

    Raises LauncherError on all of them where one cannot open it, RankError where they ask for different lengths: who has the longer one
    would touch what is not there.
    """
    with ExitStack() as makers, ExitStack() as own:
        told = None
        if host_comm.rank == 0:
            made = os.memfd_create(f"lepton_mpi:{name}")
            makers.callback(os.close, made)
            os.ftruncate(made, length)
            told = f"/proc/{os.getpid()}/fd/{made}", _identity(made)
        file, reason = _opened(*host_comm.bcast(told))
        if file is not None:
            own.callback(os.close, file)
        found = host_comm.allgather((reason, length))
        reasons = [one for one, _ in found if one]
        if file is None or reasons:
            raise LauncherError(
                f"the ranks of a host cannot open memory of each other, {reasons[0]}: in containers they must share process numbers, "
                "as by one container a host, or without --pid of apptainer, with --pid=host of docker"
            )
        for rank, (_, other) in enumerate(found):
            if other != found[0][1]:
                raise RankError(
                    f"the ranks of a host differ in what they share as {name}: rank {rank} of the host has {other} bytes, rank 0 {found[0][1]}; all ranks "
                    "must make the same calls with the same sizes"
                )
        own.pop_all()
    return file


def _opened(path: str, identity: tuple[int, int]) -> tuple[int | None, str]:
    """Descriptor of the file of this identity, or else why it is none: with other process numbers, a path is another's."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return None, f"{path}: {error.strerror}"
    if _identity(file) == identity:
        return file, ""
    os.close(file)
    return None, f"{path} is another file"


def _identity(file: int) -> tuple[int, int]:
    found = os.fstat(file)
    return found.st_dev, found.st_ino


def _take_large_pages(host_comm: MPI.Comm, memory: np.ndarray) -> None:
    """Each rank makes its part of the pages, which are placed near its core; then all map them as they are."""
    page, ranks = pages.LARGE_PAGE_BYTES, host_comm.size
    count = memory.size // page
    if count == 0:
        return
    bounds = [count * rank // ranks * page for rank in range(ranks + 1)]
    pages.collapse(memory[bounds[host_comm.rank] : bounds[host_comm.rank + 1]])
    host_comm.Barrier()
    pages.collapse(memory)
