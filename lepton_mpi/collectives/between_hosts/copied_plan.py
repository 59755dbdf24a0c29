"""Between hosts, a sum that every rank has for itself: copied into memory that its host shares, summed there, copied back.

    rank 0   in 0 | in 1 | in 2 | …                        | out 2 | out 1 | out 0
    wire               parts 0 | parts 1 | parts 2 | sums 2 | sums 1 | sums 0

A long vector is cut into buckets, so that one is on the wire while others are copied; the sums come back last bucket first
(``overlapped_sum.py``). A short one is copied as a whole: then nothing is gained by telling of parts of it.
"""

from time import perf_counter

import numpy as np

from lepton_mpi.chunks import segments
from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.between_hosts.two_level_plan import TwoLevelPlan
from lepton_mpi.collectives.within_host.flags import HostFlags
from lepton_mpi.collectives.within_host.vectors import HostVectors

# 3 emulated hosts with 2 ranks each at 1 Gbit/s, 16 MiB: 204 ms with buckets of 1 MiB, 209 of 2, 216 of 4, 214 as a whole;
# 4 MiB: 52 in buckets, 50.5 as a whole.
BUCKET_BYTES, OVERLAP_BYTES = 1 << 20, 8 << 20
# Every bucket has messages of its own, with two tags.
_BUCKETS_MAX = 256


def make_copied_plan(
    own: np.ndarray, vectors: HostVectors, operation: str
) -> "_CopiedPlan | _OverlappedCopiedPlan":
    """The executor that sums ``own``, shape (vectors.count,), in place. Collective over the group.

    ``vectors`` is in mode "shared", not in place, with one input a rank; ``own`` may be this rank's input.
    """
    assert vectors.keeps_inputs, "the sum would overwrite what ranks still copy"
    long = own.nbytes >= OVERLAP_BYTES
    return (_OverlappedCopiedPlan if long else _CopiedPlan)(own, vectors, operation)


class _CopiedPlan:
    def __init__(self, own: np.ndarray, vectors: HostVectors, operation: str) -> None:
        self._own, (self._row,), self._sum = own, vectors.inputs, vectors.result
        self._executor = TwoLevelPlan(vectors, operation=operation)

    @property
    def wait_seconds(self) -> float:
        return self._executor.wait_seconds

    def run(self) -> None:
        if self._own is not self._row:
            self._row[:] = self._own
        self._executor.run()
        self._own[:] = self._sum


class _OverlappedCopiedPlan:
    """``wait_seconds`` is time in which other ranks of the host had not copied in all buckets yet."""

    def __init__(self, own: np.ndarray, vectors: HostVectors, operation: str) -> None:
        self._own, (self._row,), self._result = own, vectors.inputs, vectors.result
        elements = max(BUCKET_BYTES // own.itemsize, -(-own.size // _BUCKETS_MAX))
        self._buckets = segments(0, vectors.count, elements)
        self._sum = OverlappedSum(vectors, self._buckets, operation)
        # This rank's slice of a bucket is summed.
        self._summed, self._round = HostFlags(vectors.group, len(self._buckets)), 0
        self._not_summed: set[int] = set()
        self._not_copied: list[int] = []
        self.wait_seconds = 0.0

    def run(self) -> None:
        self._round += 1
        self._not_copied = list(range(len(self._buckets)))
        self._not_summed = set(self._not_copied)
        self._sum.begin()
        for number, (start, stop) in enumerate(self._buckets):
            if self._own is not self._row:
                self._row[start:stop] = self._own[start:stop]
            self._sum.ready(number)
        began = perf_counter()
        self._sum.until(self._sum.host_is_through)
        self.wait_seconds += perf_counter() - began
        self._sum.until(self._copy_out)

    def _copy_out(self) -> bool:
        """Copy one bucket that is summed on all ranks of the host; whether it was the last."""
        for number in [bucket for bucket in self._not_summed if self._sum.is_complete(bucket)]:
            self._summed.raise_own(number, self._round)
            self._not_summed.remove(number)
        if self._not_copied and self._summed.all_raised(self._not_copied[-1], self._round):
            start, stop = self._buckets[self._not_copied.pop()]
            self._own[start:stop] = self._result[start:stop]
        return not self._not_copied
