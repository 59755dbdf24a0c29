"""Messages over MPI, and MPI's own Allreduce as one more algorithm: the baseline and the fallback."""

import numpy as np
from mpi4py import MPI

# Plans that wait for their end run one after the other, and MPI keeps the order between two ranks: one tag serves them all.
# Others have tags of their own, up to what every MPI has.
_TAG, _TAG_MAX = 7, 32767
_NEXT_TAG = "next tag of lane_comm"


def reserve_tags(world, count: int) -> int:
    """First of ``count`` tags of ``world.lane_comm`` for messages that stay on their way while others begin.

    Nobody else has them until some 32 000 more were asked for. Collective over the world, but does not wait.
    """
    first = world.remembered.get(_NEXT_TAG, _TAG + 1)
    if first + count - 1 > _TAG_MAX:
        first = _TAG + 1
    world.remembered[_NEXT_TAG] = first + count
    return first


class MpiTransport:
    """See ``messages.Transport``. ``comm`` must carry nothing else under ``tag``: give it a duplicate."""

    def __init__(self, comm: MPI.Comm, tag: int = _TAG) -> None:
        self.comm, self.rank, self.world_size, self._tag = comm, comm.rank, comm.size, tag

    def send_request(self, memory: np.ndarray, dest: int) -> MPI.Prequest:
        return self.comm.Send_init(memory, dest, self._tag)

    def receive_request(self, memory: np.ndarray, source: int) -> MPI.Prequest:
        return self.comm.Recv_init(memory, source, self._tag)


_OPERATIONS = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}


class MpiAllreducePlan:
    """The contract of ``messages.MessagePlan``, by ``MPI_Allreduce`` in place, or its persistent form of MPI-4.

    ``wait_seconds`` stays 0: waiting cannot be told from communication inside MPI's call.
    """

    def __init__(
        self, buffer: np.ndarray, comm: MPI.Comm, operation: str = "sum", persistent: bool = False
    ) -> None:
        self._arguments = MPI.IN_PLACE, buffer, _OPERATIONS[operation]
        self._comm = comm
        self.wait_seconds = 0.0
        if persistent:
            self._request = comm.Allreduce_init(*self._arguments)
            self.run = self._run_persistent

    def run(self) -> None:
        """Sum once."""
        self._comm.Allreduce(*self._arguments)

    def _run_persistent(self) -> None:
        self._request.Start()
        self._request.Wait()


class MpiRanks:
    """See ``timing.Ranks``."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size

    def barrier(self) -> None:
        self.comm.Barrier()

    def maximum(self, values: np.ndarray) -> np.ndarray:
        result = np.empty_like(values)
        self.comm.Allreduce(values, result, MPI.MAX)
        return result
