"""Messages over MPI, and MPI's own Allreduce as one more algorithm: the baseline and the fallback.

Importing this module starts no MPI: whoever has a communicator has done so, with the settings of ``world/mpi.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi.collectives.combining import by_order
from lepton_mpi.collectives.group import Group

if TYPE_CHECKING:
    from mpi4py import MPI

# Plans that wait for their end run one after the other, and MPI keeps the order between two ranks: one tag serves them all.
# Those of strategies that wait in each step are fixed as well, below the first free one.
# Others have tags of their own, up to what every MPI has.
_TAG, _FIRST_FREE_TAG, _TAG_MAX = 7, 16, 32767


def reserve_tags(group: Group, count: int, comm: str = "lane_comm") -> int:
    """First of ``count`` tags of that communicator of ``group`` for messages that stay on their way while others begin.

    Nobody else has them until some 32 000 more were asked for. Collective over the ranks of ``comm``, but does not wait.
    """
    next_tag = f"next tag of {comm}"
    first = group.remembered.get(next_tag, _FIRST_FREE_TAG)
    if first + count - 1 > _TAG_MAX:
        first = _FIRST_FREE_TAG
    group.remembered[next_tag] = first + count
    return first


class MpiTransport:
    """See ``messages.Transport``. ``comm`` must carry nothing else under ``tag``: give it a duplicate."""

    def __init__(self, comm: MPI.Comm, tag: int = _TAG) -> None:
        self.comm, self.rank, self.world_size, self._tag = comm, comm.rank, comm.size, tag

    def send_request(self, memory: np.ndarray, dest: int) -> MPI.Prequest:
        return _own(self.comm.Send_init(memory, dest, self._tag))

    def receive_request(self, memory: np.ndarray, source: int) -> MPI.Prequest:
        return _own(self.comm.Recv_init(memory, source, self._tag))


def _own(request: MPI.Prequest) -> MPI.Prequest:
    """``request``, given back with the last reference to it; mpi4py would keep it for ever, 800 bytes each."""
    return _own_kind()(request)


@cache
def _own_kind() -> type[MPI.Prequest]:
    from mpi4py import MPI

    class Own(MPI.Prequest):
        """A persistent request of a plan."""

        def __del__(self) -> None:
            if not MPI.Is_finalized():
                self.Free()

    return Own


class MpiAllreducePlan:
    """The contract of ``messages.MessagePlan``, by ``MPI_Allreduce`` in place, or its persistent form of MPI-4.

    A maximum or minimum of floats is taken of whole numbers of the same order, see ``combining_kernels.py``: MPI's own has
    zeros of different signs on different ranks, and may lose NaN.
    ``wait_seconds`` stays 0: waiting cannot be told from communication inside MPI's call.

    Attributes
    ----------
    run : callable
        Sums once; takes and returns nothing.
    """

    def __init__(
        self, buffer: np.ndarray, comm: MPI.Comm, operation: str = "sum", persistent: bool = False
    ) -> None:
        from mpi4py import MPI

        self.wait_seconds = 0.0
        op = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}[operation]
        steps = []
        if operation != "sum" and buffer.dtype.kind == "f":
            buffer, begin, end = by_order(buffer, operation)
            op, steps = MPI.MAX, [begin, end]
        if persistent:
            request = _own(comm.Allreduce_init(MPI.IN_PLACE, buffer, op))
            self.run = partial(_start_and_wait, request)
        else:
            self.run = partial(comm.Allreduce, MPI.IN_PLACE, buffer, op)
        if steps:
            self.run = partial(_in_turn, (steps[0], self.run, steps[1]))


def _in_turn(calls: tuple[Callable[[], None], ...]) -> None:
    for call in calls:
        call()


def _start_and_wait(request: MPI.Prequest) -> None:
    request.Start()
    request.Wait()


class MpiRanks:
    """See ``timing.Ranks``."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size

    def barrier(self) -> None:
        self.comm.Barrier()

    def maximum(self, values: np.ndarray) -> np.ndarray:
        from mpi4py import MPI

        result = np.empty_like(values)
        self.comm.Allreduce(values, result, MPI.MAX)
        return result
