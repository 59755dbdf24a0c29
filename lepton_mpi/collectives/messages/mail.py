"""Messages between two ranks, of any memory, by MPI; and the lock under which a communicator calls MPI.

MPI is asked for one thread at a time (MPI_THREAD_SERIALIZED). So whoever may be in another thread holds ``MPI_LOCK`` in every call
of MPI, and waits by testing, without the lock in between: a thread that waits for a message holds up no other.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.errors import ConfigurationError, RankError

if TYPE_CHECKING:
    from mpi4py import MPI

MPI_LOCK = threading.Lock()

# What every MPI has; and the longest message, since many count bytes by 32 bits.
TAG_MAX = 32767
_PIECE_BYTES = 1 << 30


def memory_at(address: int, byte_count: int) -> Any:
    """The bytes there, which must outlive the result."""
    if byte_count == 0:
        return np.empty(0, np.uint8)
    return (ctypes.c_ubyte * byte_count).from_address(address)


def wait_for_one(request: MPI.Request) -> None:
    """Return once it is complete."""
    while True:
        with MPI_LOCK:
            if request.Test():
                return
        os.sched_yield()


def wait_for(requests: Sequence[MPI.Request]) -> None:
    """Return once all requests are complete."""
    waiting = list(requests)
    while waiting:
        with MPI_LOCK:
            waiting = [request for request in waiting if not request.Test()]
        if waiting:
            os.sched_yield()


class Mail:
    """Messages of the ranks of ``comm``. Making one is collective over them.

    Parameters
    ----------
    comm : MPI.Comm
        Its duplicate is used.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        with MPI_LOCK:
            self._comm: MPI.Comm | None = comm.Dup()

    def send(self, block: tuple[int, int], to: int, tag: int) -> None:
        """Send ``block``, address and bytes; returns when it may be overwritten."""
        for piece in _pieces(block):
            with MPI_LOCK:
                request = self._open.Isend(piece, to, _checked(tag))
            wait_for_one(request)

    def receive(self, block: tuple[int, int], source: int, tag: int) -> None:
        """Fill ``block``. RankError, on this rank alone, for a message of another length."""
        from mpi4py import MPI

        status = MPI.Status()
        for piece in _pieces(block):
            message = None
            while message is None:
                with MPI_LOCK:
                    message = self._open.Improbe(source, _checked(tag), status)
                if message is None:
                    os.sched_yield()
            found = status.Get_count()
            fits = found == len(piece)
            with MPI_LOCK:
                request = message.Irecv(piece if fits else np.empty(found, np.uint8))
            wait_for_one(request)
            if not fits:
                raise RankError(
                    f"receive from rank {source}, tag {tag}: expected {len(piece)} bytes, {found} came"
                )

    @property
    def _open(self) -> MPI.Comm:
        if self._comm is None:
            raise ConfigurationError("this communicator is closed")
        return self._comm

    def close(self) -> None:
        """Give back the communicator. Collective; does nothing the second time."""
        if self._comm is not None:
            with MPI_LOCK:
                self._comm.Free()
            self._comm = None


def _pieces(block: tuple[int, int]) -> list[Any]:
    address, byte_count = block
    if byte_count <= _PIECE_BYTES:
        return [memory_at(address, byte_count)]
    starts = range(0, byte_count, _PIECE_BYTES)
    return [memory_at(address + start, min(_PIECE_BYTES, byte_count - start)) for start in starts]


def _checked(tag: int) -> int:
    if not 0 <= tag <= TAG_MAX:
        raise ConfigurationError(f"tag: expected 0 to {TAG_MAX}, got {tag!r}")
    return tag
