"""The sum of a vector bucket by bucket, in the background of whatever else a rank does: host memory and lanes.

    begin        receives of all buckets are started
    ready(b)     this rank's rows are complete in bucket b: a flag is raised
    poll         what can go on does: once all ranks of the host are ready, this rank adds up its slice of the bucket
                 and sends it to the other hosts; what has arrived from them is added and sent on
    wait(b)      poll until this rank's slice of bucket b is the sum over all hosts

Nothing runs between two calls but the transport: the kernel of the operating system goes on sending what was handed
to it. So calls must come more often than its buffers run empty, some megabytes, or tens of milliseconds at
1 Gbit/s. Polling between kernels needs no second thread, which would need a core, and an MPI that may be called by it.

Slices are those of the lanes: rank l of every host has slice l of each bucket, and ranks on no lane have none.
Buckets are ready, and their messages are sent, in the order of their numbers on every rank; each has tags of its own,
since the sums of one bucket are sent when parts of the next are already on their way. Bits are those of TwoLevelPlan.
A peer that has died ends this process (``watchdog.py``), so waits have no limit of their own.
"""

import os
from time import perf_counter

import numpy as np

from lepton_mpi.collectives.atomics import LINE_WORDS
from lepton_mpi.collectives.chunks import chunk_bounds
from lepton_mpi.collectives.flag_kernels import flags_reached, raise_flag
from lepton_mpi.collectives.host_kernels import reduce_alone
from lepton_mpi.collectives.host_memory import (
    HostVectors,
    compiled,
    encode_plan,
    groups_of,
    row_addresses,
    scratch_for,
)
from lepton_mpi.collectives.lanes import LaneExchange
from lepton_mpi.collectives.mpi import MpiTransport

_KERNEL = "void(i8[::1], T[:,::1])"


class OverlappedSum:
    """Making one is collective over the world, and so is a round of ``begin``, ``ready`` of all buckets and ``wait``.

    Parameters
    ----------
    vectors : HostVectors
        In mode "shared".
    buckets : list of (start, stop)

    Attributes
    ----------
    slices : list of (start, stop)
        This rank's part of each bucket, which ``wait`` completes in ``vectors.result``.
    exchange_seconds, exposed_seconds : float
        From the first message to the last of every round, and of that the time spent in ``wait``.
    """

    def __init__(self, vectors: HostVectors, buckets: list[tuple[int, int]]) -> None:
        world = vectors.world
        lanes = world.lane_count if world.host_count > 1 else world.local_size
        self._ranks, self._own_rank = world.local_size, world.local_rank
        self._flags = world.host_array((max(1, len(buckets) * self._ranks * LINE_WORDS),), np.int64)
        self.slices = []
        for start, stop in buckets:
            bounds = chunk_bounds(stop - start, lanes)
            own = (
                bounds[world.local_rank : world.local_rank + 2] if world.local_rank < lanes else ()
            )
            self.slices.append((start + own[0], start + own[1]) if own else (start, start))
        self._parts = [_Part(vectors, number, *slice_) for number, slice_ in enumerate(self.slices)]
        compiled(world, reduce_alone, vectors.dtype, _KERNEL)
        self._round, self._started, self._done = 0, 0, 0
        self._first_sent = self._last_done = 0.0
        self.exchange_seconds = self.exposed_seconds = 0.0

    def begin(self) -> None:
        """Start a round."""
        self._round += 1
        self._started = self._done = 0
        for part in self._parts:
            part.expect()

    def ready(self, bucket: int) -> None:
        """This rank's rows are complete in ``bucket``: call it for every bucket, in order."""
        raise_flag(self._flags, bucket * self._ranks + self._own_rank, self._round)
        self.poll()

    def host_is_ready(self, bucket: int) -> bool:
        """Whether ``ready(bucket)`` was called on all ranks of this host in this round."""
        first = bucket * self._ranks
        return flags_reached(self._flags, first, first + self._ranks, self._round)

    def poll(self) -> None:
        """Go on as far as possible without waiting."""
        while self._started < len(self._parts) and self.host_is_ready(self._started):
            if self._started == 0:
                self._first_sent = perf_counter()
            self._parts[self._started].start()
            self._started += 1
        # All that are on their way: the wire must not run empty while the first of them waits.
        for number in range(self._done, self._started):
            is_complete = self._parts[number].poll()
            if is_complete and number == self._done:
                self._done += 1
                if self._done == len(self._parts):
                    self._last_done = perf_counter()
                    self.exchange_seconds += self._last_done - self._first_sent

    def wait(self, bucket: int) -> None:
        """Return once this rank's slice of ``bucket`` is summed."""
        self._until(lambda: self._done > bucket)

    def wait_for_host(self) -> None:
        """Return once all ranks of this host are ready with all buckets."""
        if self._parts:
            self._until(lambda: self.host_is_ready(len(self._parts) - 1))

    def _until(self, is_over) -> None:
        began = perf_counter()
        self.poll()
        while not is_over():
            os.sched_yield()
            self.poll()
        if self._started:
            end = self._last_done if self._done == len(self._parts) else perf_counter()
            self.exposed_seconds += max(0.0, end - max(began, self._first_sent))


class _Part:
    """This rank's slice of one bucket."""

    def __init__(self, vectors: HostVectors, number: int, start: int, stop: int) -> None:
        world, first_row = vectors.world, vectors.first_result_row
        groups = groups_of(vectors)
        self._lane = None
        scratch, rows = scratch_for(groups, vectors.dtype), row_addresses(vectors.table)
        plan = encode_plan(world, None, rows, scratch, start, stop, "sum", False, groups)
        # A plan has addresses only: the table must live as long.
        self._arguments, self._table = (plan, scratch), vectors.table
        if world.lane_comm is not None:
            node_starts = [[first for first, _ in nodes] for nodes in vectors.nodes_of_hosts]
            rows = vectors.table[first_row:, : vectors.count]
            self._lane = LaneExchange(
                MpiTransport(world.lane_comm, 2 * number),
                *(rows[: len(vectors.host_nodes)], rows[0], node_starts, start, stop),
                sum_transport=MpiTransport(world.lane_comm, 2 * number + 1),
            )

    def expect(self) -> None:
        if self._lane:
            self._lane.start_receiving()

    def start(self) -> None:
        reduce_alone(*self._arguments)
        if self._lane:
            self._lane.start_sending()

    def poll(self) -> bool:
        return self._lane.poll() if self._lane else True
