"""Arrays of the ranks of a host in memory that can be shared, reduced where they lie; ``Communicator.allreduce`` stages its arrays.

    first call of a slot    each rank tells by which file its memory is to be had; the others map it
    next calls              each rank tells whether its array still is where it was: one short call, then the sum in place
    an array has moved      on any rank: all tell and map anew
    a file cannot be mapped by any rank, for any reason: the arrays of the slot are staged from then on, on all ranks

A file has no name in a folder, and is opened by way of ``/proc/<process>/fd``; so nothing is left behind by a rank that dies. Whoever
opens it compares its number with the one that was told: in another container the process of that number is another one. What a rank
has mapped stays usable for it, whatever the owner does with its memory.
"""

from __future__ import annotations

import mmap
import os
from ctypes import addressof, c_char
from typing import NamedTuple

import numpy as np

from lepton_mpi.collectives.communicator import Communicator

_WORD = (1 << 63) - 1


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
        self._verdict = np.zeros(1, np.int64)

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
        return self._all(found is None or found.own == _identity(array, where))

    def _all(self, is_so: bool) -> bool:
        """Whether it is so on all ranks."""
        self._verdict[0] = is_so
        self._communicator.allreduce(self._verdict, "min")
        return bool(self._verdict[0])

    def _map(self, array: np.ndarray, where: Whereabouts | None) -> _Slot | None:
        """The arrays of all ranks; None if one rank cannot share its array, or map another's."""
        one = self._communicator
        slot = _Slot(array, where)
        mine = np.array([os.getpid(), *(where or (-1, 0)), array.nbytes, *slot.file], np.int64)
        told = np.empty((one.size, mine.size), np.int64)
        one.allgather(told, mine)
        fits = bool((told[:, 1] >= 0).all() and (told[:, 3] == array.nbytes).all() and array.nbytes)
        if fits:
            fits = all(
                slot.add_own() if rank == one.rank else slot.add(*row)
                for rank, row in enumerate(told.tolist())
            )
        # Also the end of the files' being open: no rank goes on before all have mapped.
        return slot if self._all(fits) else None


class _Slot:
    """Where this rank has the arrays of all."""

    def __init__(self, array: np.ndarray, where: Whereabouts | None) -> None:
        self.own = _identity(array, where)
        self.addresses: list[int] = []
        self._files: list[mmap.mmap] = []

    @property
    def file(self) -> tuple[int, int]:
        """Numbers of this rank's file and of its device; 0 without one."""
        return self.own[2], self.own[3]

    def add_own(self) -> bool:
        """The next rank is this one."""
        self.addresses.append(self.own[0])
        return True

    def add(
        self, process: int, descriptor: int, offset: int, byte_count: int, *file_number: int
    ) -> bool:
        """The array of the next rank, by what that has told; whether it could be mapped."""
        try:
            opened = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
            try:
                if _file_number(opened) != file_number:
                    return False
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
    file_number = (0, 0) if where is None else _file_number(where.descriptor)
    return array.ctypes.data, array.nbytes, *file_number


def _file_number(descriptor: int) -> tuple[int, int]:
    """As two words of 64 bits with a sign."""
    found = os.fstat(descriptor)
    return found.st_dev & _WORD, found.st_ino & _WORD
