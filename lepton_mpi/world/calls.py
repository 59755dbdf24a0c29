"""What ranks tell each other when they meet in a call of ``RankGroup``: which one it is, and what is short enough to go with it.

    word   0 call number   1 operation   2 dtype   3 elements   4 root   5 a whole number   from 6 on up to 80 bytes more

Each call begins with one message of 128 bytes to all, so ranks that call different things, or the same of other lengths, all raise the same
error, before anything else is sent. Most calls need no other message: nobody has an error, or a sum is of ten numbers at most.

A call that one rank has skipped is noticed at the next one that differs in operation, dtype, length or root; where nothing differs, the rank that
comes to the end first waits for a call that never comes, and the watchdog names it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lepton_mpi.errors import RankError

if TYPE_CHECKING:
    from mpi4py import MPI

    from lepton_mpi.world.watchdog import PhaseClock

OPERATIONS = ("agree", "agree_on", "broadcast", "sum", "array_of", "least")
_WORDS, _MORE_AT = 16, 6
ROOM_BYTES = (_WORDS - _MORE_AT) * 8
_FOLDER = str(Path(__file__).parent)
_NO_ROOT = -1


class Call(NamedTuple):
    """One call; what is equal on all ranks. ``dtype`` is of numbers, "" for others; ``elements`` is -1 where lengths may differ."""

    operation: str
    dtype: str = ""
    elements: int = -1
    root: int = _NO_ROOT

    def __str__(self) -> str:
        words = [f"{self.elements} of {self.dtype}" if self.elements >= 0 else self.dtype]
        words += [f"root {self.root}"] if self.root != _NO_ROOT else []
        return f"{self.operation}({', '.join(filter(None, words))})"


class Calls:
    """The calls of one communicator. Collective.

    Parameters
    ----------
    comm : MPI.Intracomm
    clock : PhaseClock
        This rank's. It is told of each call: whoever waits in one is not what the others wait for.

    Attributes
    ----------
    is_job : bool
        Whether the ranks are all of the job.
    clock : PhaseClock
    """

    def __init__(self, comm: MPI.Intracomm, clock: PhaseClock, is_job: bool) -> None:
        self._comm, self._number, self.is_job = comm, 0, is_job
        self.clock = clock
        self._all = np.zeros((comm.size, _WORDS), np.int64)
        # A rank alone agrees with itself.
        self._is_alone = comm.size == 1
        self._mine = self._all[0] if self._is_alone else np.zeros(_WORDS, np.int64)

    def meet(self, call: Call, value: int = 0, more: np.ndarray | None = None) -> np.ndarray:
        """What all ranks have for ``value``, int64 (ranks,), until the next call; see ``more_of``. Raises RankError on all ranks.

        ``more`` are at most ``ROOM_BYTES`` that go with it.
        """
        mine = self._mine
        mine[_MORE_AT - 1] = value
        if more is not None and more.nbytes:
            mine[_MORE_AT:].view(np.uint8)[: more.nbytes] = more.reshape(-1).view(np.uint8)
        if self._is_alone:
            return self._all[:, _MORE_AT - 1]
        self._number += 1
        dtype = np.dtype(call.dtype).num if call.dtype else -1
        mine[: _MORE_AT - 1] = (
            *(self._number, OPERATIONS.index(call.operation), dtype, call.elements),
            call.root,
        )
        self.clock.begin_meeting()
        self._comm.Allgather(mine, self._all)
        self.clock.end_meeting()
        told = self._all[:, : _MORE_AT - 1]
        if (told != told[0]).any():
            self._raise(call)
        return self._all[:, _MORE_AT - 1]

    def more_of(self, like: np.ndarray) -> np.ndarray:
        """``more`` of all ranks, of the shape of ``like`` each."""
        content = self._all[:, _MORE_AT:].view(np.uint8)[:, : like.nbytes]
        return np.ascontiguousarray(content).view(like.dtype).reshape(len(content), *like.shape)

    def _raise(self, call: Call) -> None:
        said = self._comm.allgather((self._number, str(call), _place()))
        for rank, (number, text, place) in enumerate(said):
            if (number, text) != said[0][:2]:
                first = f"rank 0 calls {said[0][1]} at {said[0][2]}"
                error = RankError(
                    f"call {self._number} of the ranks differs: {first}, rank {rank} calls {text} at {place}; all ranks must make the same "
                    "calls in the same order"
                )
                error.agreed = self.is_job
                raise error


def _place() -> str:
    """File and line that called, outside of this folder."""
    frame = sys._getframe(1)
    while frame.f_back and (
        frame.f_code.co_filename.startswith(_FOLDER) or "contextlib" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
