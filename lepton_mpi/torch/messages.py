"""Messages between two ranks of a process group, over MPI: both sides may go on while a message is under way.

MPI serves one thread at a time here, hence ``MPI_LOCK``. A message is cut into pieces of 1 GiB, since MPI counts in 32 bits.
Nobody is waited for by the call itself, so that ranks may send to each other before either receives; ``wait`` asks MPI, with shorter and shorter spells of the processor, until the
message is through or the timeout is over. Messages do not take turns with collectives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lepton_mpi.collectives.messages.mail import MPI_LOCK
from lepton_mpi.torch.work import CallWork

if TYPE_CHECKING:
    from mpi4py import MPI

_PIECE_BYTES = 1 << 30
# Below, the group's own messages have theirs; every MPI has tags up to 32767.
_TAG_MIN, TAG_MAX = 1000, 31000
_SPIN_SECONDS, _NAP_SECONDS = 0.001, 0.00005


class MessageWork(CallWork):
    """A message that is on its way.

    Parameters
    ----------
    tensors : list of Tensor
    requests : list of MPI.Request
    what : str
        For the error of a timeout.
    timeout_seconds : float
    give_back : callable
        Called once when all is through.
    """

    def __init__(
        self,
        tensors: list[Tensor],
        requests: list[MPI.Request],
        what: str,
        timeout_seconds: float,
        give_back: Callable[[], None],
    ) -> None:
        super().__init__(tensors)
        self._requests, self._what = requests, what
        self._timeout_seconds, self._give_back = timeout_seconds, give_back
        self._is_done = not requests

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Until the message is through; RuntimeError after ``timeout``, or else that of the group."""
        seconds = timeout.total_seconds() if timeout else 0.0
        seconds = seconds if seconds > 0 else self._timeout_seconds
        start = monotonic()
        while not self.is_completed():
            waited = monotonic() - start
            if waited > seconds:
                raise RuntimeError(f"{self._what} did not end in {seconds:g} s (timeout)")
            time.sleep(0 if waited < _SPIN_SECONDS else _NAP_SECONDS)
        return True

    def is_completed(self) -> bool:
        """Whether the message is through."""
        if not self._is_done:
            from lepton_mpi.world.mpi import MPI

            status = MPI.Status()
            with MPI_LOCK:
                while self._requests and self._requests[0].Test(status):
                    self._source = status.Get_source()
                    self._requests.pop(0)
            if not self._requests:
                self._is_done = True
                self._give_back()
        return self._is_done


def start_send(comm: MPI.Comm, array: np.ndarray, to: int, tag: int) -> list[Any]:
    """Requests of MPI, one a piece. ``array``: bytes, which must stay as they are until all are through."""
    with MPI_LOCK:
        return [comm.Isend(piece, to, _tag(tag)) for piece in _pieces(array)]


def start_receive(comm: MPI.Comm, array: np.ndarray, source: int | None, tag: int) -> list[Any]:
    """The same of a message that comes; ``source`` None for whichever rank's is first, for one piece alone."""
    from lepton_mpi.world.mpi import MPI

    pieces = _pieces(array)
    if source is None and len(pieces) > 1:
        raise ValueError(
            f"recv from any rank: expected at most {_PIECE_BYTES} bytes, got {array.size}; name the source"
        )
    origin = MPI.ANY_SOURCE if source is None else source
    with MPI_LOCK:
        return [comm.Irecv(piece, origin, _tag(tag)) for piece in pieces]


def _pieces(array: np.ndarray) -> list[np.ndarray]:
    return [
        array[start : start + _PIECE_BYTES] for start in range(0, max(1, array.size), _PIECE_BYTES)
    ]


def _tag(tag: int) -> int:
    if not 0 <= tag <= TAG_MAX:
        raise ValueError(f"tag: expected 0 to {TAG_MAX}, got {tag}")
    return tag + _TAG_MIN
