"""The two-level allreduce with a codec between hosts: as ``between_hosts/two_level_plan.py``, with compressed lanes.

1. every host adds up its own leaves in its memory, as they are     (within_host/plans.py)
2. every lane completes its slice of the sum over all hosts        (exchange.py, low_rank_lane.py)
3. the ranks of a host meet, and all of them see the result
"""

from collections.abc import Sequence

from lepton_mpi.collectives.between_hosts.lanes import Lane
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
    buckets : list of (start, stop), optional
        That cover the vector and are encoded and sent one after the other; default one.
    parts : list of (start, stop), optional
        Of whole parameters, each of which may be summed by itself; default one, of all.
    purpose : str
        See ``HostPlan``.

    Attributes
    ----------
    slices : list of lists of slice
        Of each part what this rank's lane completes.

    Every host ends with the same bits: the sum of what the hosts have sent, which with what they keep as residuals is the sum
    of what they had.
    """

    def __init__(
        self,
        vectors: HostVectors,
        compression: Compression,
        buckets: Sequence[tuple[int, int]] = (),
        parts: Sequence[tuple[int, int]] = (),
        purpose: str = "",
    ) -> None:
        whole = [(0, vectors.count)]
        self.result, self.compression = vectors.result, compression
        self._meeting = HostMeeting(vectors.group)
        cut = buckets_of_parts(compression.buckets(buckets or whole), parts or whole)
        left = iter(compression.slices([bucket for of_part in cut for bucket in of_part]))
        self.slices: list[list[slice]] = []
        self._parts: list[tuple[HostPlan, list[Lane]]] = []
        for (start, stop), of_part in zip(parts or whole, cut, strict=True):
            bounds = [next(left) for _ in of_part]
            lanes = [compression.lane(vectors, *each) for each in bounds]
            plan = HostPlan(vectors, start, stop, purpose=purpose)
            self._parts.append((plan, [lane for lane in lanes if lane is not None]))
            self.slices.append([slice(*each) for each in bounds])

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others of its host, over all calls."""
        return self._meeting.wait_seconds + sum(plan.wait_seconds for plan, _ in self._parts)

    def run(self) -> None:
        """Sum once, with random numbers of the next step."""
        self.compression.step += 1
        for number in range(len(self._parts)):
            self.run_part(number)

    def run_part(self, number: int) -> None:
        """Sum one of ``parts``, with the random numbers of ``compression.step``, which the caller sets."""
        plan, lanes = self._parts[number]
        plan.run()
        exchange.run(lanes)
        self._meeting.run()


def buckets_of_parts(
    buckets: Sequence[tuple[int, int]], parts: Sequence[tuple[int, int]]
) -> list[list[tuple[int, int]]]:
    """What is in each of ``parts`` of each of ``buckets``: for each part, in the order of the buckets.

    >>> buckets_of_parts([(4, 9), (0, 4)], [(0, 6), (6, 9)])
    [[(4, 6), (0, 4)], [(6, 9)]]
    """
    cut = [[(max(a, start), min(b, stop)) for a, b in buckets] for start, stop in parts]
    return [[(start, stop) for start, stop in of_part if start < stop] for of_part in cut]
