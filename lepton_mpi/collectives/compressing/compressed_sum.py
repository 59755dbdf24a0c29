"""The two-level allreduce with a codec between hosts: as ``between_hosts/two_level_plan.py``, with compressed lanes.

1. every host adds up its own leaves in its memory, as they are     (within_host/plans.py)
2. every lane completes its slice of the sum over all hosts        (exchange.py, low_rank_lane.py)
3. the ranks of a host meet, and all of them see the result
"""

from lepton_mpi.collectives.compressing import exchange
from lepton_mpi.collectives.compressing.compression import Compression
from lepton_mpi.collectives.within_host.flags import HostMeeting
from lepton_mpi.collectives.within_host.plans import HostPlan
from lepton_mpi.collectives.within_host.vectors import HostVectors


class CompressedSum:
    """Sum all rows of all hosts into the shared result of every host. Making one and running it are collective over the group.

    Parameters
    ----------
    vectors : HostVectors
        In mode "shared".
    compression : Compression
        Of this vector; it serves one sum.

    Every host ends with the same bits: the sum of what the hosts have sent, which with what they keep as residuals is the sum
    of what they had.
    """

    def __init__(self, vectors: HostVectors, compression: Compression) -> None:
        self.result = vectors.result
        self.compression = compression
        self._host, self._meeting = HostPlan(vectors), HostMeeting(vectors.group)
        slices = compression.slices(compression.buckets([(0, vectors.count)]))
        lanes = [compression.lane(vectors, *slice_) for slice_ in slices]
        self._lanes = [lane for lane in lanes if lane is not None]

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others of its host, over all calls."""
        return self._host.wait_seconds + self._meeting.wait_seconds

    def run(self) -> None:
        """Sum once, with random numbers of the next step."""
        self.compression.step += 1
        self._host.run()
        exchange.run(self._lanes)
        self._meeting.run()
