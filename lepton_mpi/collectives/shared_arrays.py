"""Arrays of the ranks of a host in memory that can be shared, reduced where they lie; ``Communicator.allreduce`` stages its arrays.

    first call of a slot    each rank tells by which file its memory is to be had; the others map it
    next calls              each rank tells whether its array still is where it was: one short call, then the sum in place
    an array has moved      on any rank: all tell and map anew
    a file cannot be mapped by any rank, for any reason: the arrays of the slot are staged from then on, on all ranks

A file has no name in a folder, and is opened by way of ``/proc/<process>/fd``; so nothing is left behind by a rank that dies. What a
rank has mapped stays usable for it, whatever the owner does with its memory.
"""

from __future__ import annotations

import mmap
import os
from ctypes import addressof, c_char
from typing import NamedTuple

import numpy as np

from lepton_mpi.collectives.communicator import Communicator


class Whereabouts(NamedTuple):
    """Memory of this process that others can map.

    Attributes
    ----------
    descriptor : int
        Of the open file.
    offset : int
        Bytes from its beginning to the array.
    """

    descriptor: int
    offset: int


class SharedArrays:
    """Arrays by slots, small numbers that mean the same on all ranks. Calls are collective over the communicator's ranks.

    Parameters
    ----------
    communicator : Communicator
        Of ranks of one host; calls go through it.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self._mapped: dict[int, _Slot | None] = {}

    def allreduce(
        self,
        slot: int,
        array: np.ndarray,
        where: Whereabouts | None,
        op: str = "sum",
        kind: str | None = None,
    ) -> bool:
        """Combine the arrays of all ranks in place of each; returns whether it was without copies.

        Parameters
        ----------
        where : Whereabouts or None
            Of ``array``; None if it cannot be shared.
        op, kind
            See ``Communicator.allreduce``.
        """
        found = self._mapped.get(slot)
        if slot not in self._mapped or not self._is_as_before(found, array, where):
            found = self._mapped[slot] = self._map(array, where)
        if found is None:
            self._communicator.allreduce(array, op, kind)
            return False
        self._communicator.allreduce_mapped(array, found.addresses, op, kind)
        return True

    def _is_as_before(
        self, found: _Slot | None, array: np.ndarray, where: Whereabouts | None
    ) -> bool:
        """Whether on all ranks."""
        is_so = found is None or found.own == _identity(array, where)
        told = np.array([is_so], np.int64)
        self._communicator.allreduce(told, "min")
        return bool(told[0])

    def _map(self, array: np.ndarray, where: Whereabouts | None) -> _Slot | None:
        """The arrays of all ranks; None if one rank cannot share its array, or map another's."""
        one = self._communicator
        mine = np.array([os.getpid(), *(where or (-1, 0)), array.nbytes], np.int64)
        told = np.empty((one.size, mine.size), np.int64)
        one.allgather(told, mine)
        slot = _Slot(array, where)
        fits = bool((told[:, 1] >= 0).all() and (told[:, 3] == array.nbytes).all() and array.nbytes)
        if fits:
            fits = all(
                slot.add(*map(int, row), is_own=rank == one.rank) for rank, row in enumerate(told)
            )
        outcome = np.array([fits], np.int64)
        # Also the end of the files' being open: no rank goes on before all have mapped.
        one.allreduce(outcome, "min")
        return slot if outcome[0] else None


class _Slot:
    """Where this rank has the arrays of all."""

    def __init__(self, array: np.ndarray, where: Whereabouts | None) -> None:
        self.own = _identity(array, where)
        self.addresses: list[int] = []
        self._files: list[mmap.mmap] = []

    def add(
        self, process: int, descriptor: int, offset: int, byte_count: int, is_own: bool
    ) -> bool:
        """The array of the next rank; whether it could be mapped."""
        if is_own:
            self.addresses.append(self.own[0])
            return True
        try:
            opened = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
            try:
                file = mmap.mmap(opened, offset + byte_count)
            finally:
                os.close(opened)
        except (OSError, ValueError):
            return False
        self._files.append(file)
        self.addresses.append(addressof(c_char.from_buffer(file)) + offset)
        return True


def _identity(array: np.ndarray, where: Whereabouts | None) -> tuple[int, ...]:
    """Address, bytes, and the file, whose number no other has as long as a rank has it mapped: an address may come again."""
    if where is None:
        return array.ctypes.data, array.nbytes
    found = os.fstat(where.descriptor)
    return array.ctypes.data, array.nbytes, found.st_dev, found.st_ino
