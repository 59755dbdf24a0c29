"""The two-level allreduce carried out: host memory inside each host, lanes between them.

    1. every host adds up its own leaves, to one or a few nodes of the tree    (within_host/plans.py)
    2. every lane completes its slice of the sum over all hosts                (lanes.py)
    3. the ranks of a host meet, and all of them see the result

Hosts may have different numbers of ranks: there are as many lanes as the smallest host has ranks, and
the other ranks of larger hosts wait in step 3.
"""

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.between_hosts.lanes import LaneExchange
from lepton_mpi.collectives.messages.mpi import MpiTransport
from lepton_mpi.collectives.within_host.flags import HostMeeting
from lepton_mpi.collectives.within_host.plans import HostPlan
from lepton_mpi.collectives.within_host.vectors import HostVectors


class TwoLevelPlan:
    """Sum [start, stop) of all rows of all hosts into the shared result of every host. Collective over the group.

    Parameters as for ``HostPlan``; ``vectors`` in mode "shared". It is no part of a training's step: calls are compared, not steps.
    """

    def __init__(
        self, vectors: HostVectors, start: int = 0, stop: int | None = None, operation: str = "sum"
    ) -> None:
        group = vectors.group
        stop = vectors.count if stop is None else stop
        self.result = vectors.result[start:stop]
        self._host = HostPlan(vectors, start, stop, operation)
        self._meeting = HostMeeting(group)
        self._lane = None
        if group.lane_comm is not None:
            node_starts = [[first for first, _ in nodes] for nodes in vectors.nodes_of_hosts]
            bounds = chunk_bounds(stop - start, group.lane_count)
            first, last = (
                start + bound for bound in bounds[group.local_rank : group.local_rank + 2]
            )
            transport = MpiTransport(group.lane_comm)
            sums = vectors.node_sums, vectors.result
            self._lane = LaneExchange(transport, *sums, node_starts, first, last, operation)

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others of its host, over all calls."""
        return self._host.wait_seconds + self._meeting.wait_seconds

    def run(self) -> None:
        """Sum once."""
        self._host.run()
        if self._lane:
            self._lane.run()
        self._meeting.run()
