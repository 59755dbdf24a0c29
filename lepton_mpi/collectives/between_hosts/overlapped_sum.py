"""The sum of a vector bucket by bucket, in the background of whatever else a rank does: host memory and lanes.

    begin        receives of all buckets are started
    ready(b)     this rank's rows are complete in bucket b: a flag is raised
    poll         what can go on does: once all ranks of the host are ready, this rank adds up its slice of the bucket
                 and sends its parts to the hosts that own them; what has arrived from them is added
                 once all parts of all buckets have left, sums are sent, those of the last bucket first
    until        poll until something is so

Nothing runs between two calls but the transport: the kernel of the operating system goes on sending what was handed
to it. So calls must come more often than its buffers run empty, some megabytes, or tens of milliseconds at
1 Gbit/s. Polling between kernels needs no second thread, which would need a core, and an MPI that may be called by it.

Until its last part has left the wire is busy with parts, whatever else could be sent. Of the sums those come first that are
needed first: the last bucket to be ready is of the first layers, with which the next forward pass begins.

Slices are those of the lanes: rank l of every host has slice l of each bucket, and ranks on no lane have none.
Buckets are ready, and their messages are sent, in the order of their numbers on every rank; each has tags of its own,
since the sums of one bucket are sent when parts of the next are already on their way. Bits are those of TwoLevelPlan.
A peer that has died ends this process (``watchdog.py``), so waits have no limit of their own.

With a ``Compression`` the lanes are its own, and so are the slices of matrices of low rank; all else is the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.between_hosts.lanes import Lane, LaneExchange
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.messages.mpi import MpiTransport, reserve_tags
from lepton_mpi.collectives.within_host.flags import HostFlags, let_messages_go_on
from lepton_mpi.collectives.within_host.meeting_kernels import reduce_alone
from lepton_mpi.collectives.within_host.plan_words import (
    compiled,
    encode_plan,
    row_addresses,
    scratch_for,
)
from lepton_mpi.collectives.within_host.plans import groups_of
from lepton_mpi.collectives.within_host.vectors import HostVectors
from lepton_mpi.errors import RankError

if TYPE_CHECKING:
    from lepton_mpi.collectives.compressing.compression import Compression

# Buckets whose sums are on their way at once: some to keep the wire busy, few that those needed first stay first.
_SUMS_UNDER_WAY = 2


class OverlappedSum:
    """Making one is collective over the group, and so is a round of ``begin``, ``ready`` of all buckets and ``until`` all
    are complete.

    Parameters
    ----------
    vectors : HostVectors
        In mode "shared".
    buckets : list of (start, stop)
    operation : {"sum", "max", "min"}
    compression : Compression, optional
        Of the vector, for operation "sum" over several hosts; ``buckets`` are those that it has made.
    purpose : str
        What is summed in a step of a training, such as "gradients": then ranks of a host whose ``group.clock`` is in another step raise a
        RankError, before anything is summed. Else empty.
    slices : list of (start, stop), optional
        Of these buckets, where ``compression`` was asked for those of several sums at once.

    Attributes
    ----------
    slices : list of (start, stop)
        This rank's part of each bucket, which is summed in ``vectors.result``.
    exchange_seconds, exposed_seconds : float
        From the first message to the last of every round, as a call of ``poll`` sees it, and of that the time spent in
        ``until``.
    """

    def __init__(
        self,
        vectors: HostVectors,
        buckets: list[tuple[int, int]],
        operation: str = "sum",
        compression: Compression | None = None,
        slices: list[tuple[int, int]] | None = None,
        purpose: str = "",
    ) -> None:
        group = vectors.group
        self._purpose, self._row = purpose, group.clock.row
        self._ranks = group.ranks_of_hosts[group.host_index]
        # A rank is ready with a bucket, and has added up its slices of all of them.
        self._ready, self._added = HostFlags(group, len(buckets)), HostFlags(group, 1)
        self._go_on, self._check_losses = let_messages_go_on(group), group.check_losses
        if compression:
            self.slices = compression.slices(buckets) if slices is None else slices
            made = [compression.lane(vectors, *slice_) for slice_ in self.slices]
        else:
            self.slices = _slices(group, buckets)
            made = _lanes(vectors, self.slices, operation)
        self._parts = [
            _Part(vectors, slice_, operation, lane)
            for slice_, lane in zip(self.slices, made, strict=True)
        ]
        compiled(reduce_alone, vectors.dtype)
        self._round, self._started, self._done = 0, 0, 0
        self._is_complete = [True] * len(buckets)
        self._first_sent = self._last_done = 0.0
        self.exchange_seconds = self.exposed_seconds = 0.0

    def begin(self) -> None:
        """Start a round."""
        self._round += 1
        self._started = self._done = 0
        self._is_complete = [False] * len(self._parts)
        for part in self._parts:
            part.expect()

    def ready(self, bucket: int) -> None:
        """This rank's rows are complete in ``bucket``: call it for every bucket, in order."""
        self._ready.raise_own(bucket, self._round, int(self._row[0]) if self._purpose else 0)
        self.poll()

    def host_is_ready(self, bucket: int) -> bool:
        """Whether ``ready(bucket)`` was called on all ranks of this host in this round."""
        return self._ready.all_raised(bucket, self._round)

    def _may_start(self, bucket: int) -> bool:
        """Whether the host is ready. Raises RankError where its ranks are in different steps."""
        found = self._ready.all_alike(bucket, self._round)
        if found > 1:
            raise self._difference(bucket, found - 1)
        return found == 1

    def _difference(self, bucket: int, other: int) -> RankError:
        first, second = (
            f"rank {self._ranks[local_rank]} the {self._purpose} of step {self._ready.told(bucket, self._round, local_rank)}"
            for local_rank in (other, 0)
        )
        return RankError(
            f"the ranks sum different things, and nothing was summed: {first}, {second}, both in call {self._round}, bucket {bucket}; "
            "all ranks must make the same calls in the same steps"
        )

    def poll(self) -> None:
        """Go on as far as possible without waiting."""
        parts = self._parts
        while self._started < len(parts) and self._may_start(self._started):
            if self._started == 0:
                self._first_sent = perf_counter()
            parts[self._started].start()
            self._started += 1
            if self._started == len(parts):
                self._added.raise_own(0, self._round)
        # All that are on their way: the wire must not run empty while one of them waits.
        for part in parts[: self._started]:
            part.poll()
        if self._started < len(parts) or not all([part.has_left for part in parts]):
            return
        under_way = 0
        for number in range(len(parts) - 1, -1, -1):
            if self._is_complete[number] or not parts[number].is_summed:
                continue
            if parts[number].poll(sends_sums=True):
                self._is_complete[number] = True
                self._done += 1
                if self._done == len(parts):
                    self._last_done = perf_counter()
                    self.exchange_seconds += self._last_done - self._first_sent
                continue
            under_way += not parts[number].has_sent
            if under_way == _SUMS_UNDER_WAY:
                break

    def is_complete(self, bucket: int) -> bool:
        """Whether this rank's slice of ``bucket`` is summed."""
        return self._is_complete[bucket]

    def host_is_through(self) -> bool:
        """Whether all ranks of this host are ready with all buckets: none computes a gradient any more."""
        return not self._parts or self.host_is_ready(len(self._parts) - 1)

    def host_has_added(self) -> bool:
        """Whether no rank of this host reads the rows of another any more in this round."""
        return not self._parts or self._added.all_raised(0, self._round)

    def until(self, is_over: Callable[[], bool]) -> None:
        """Poll until ``is_over()``."""
        began = perf_counter()
        self.poll()
        while not is_over():
            self._check_losses()
            os.sched_yield()
            self._go_on()
            self.poll()
        if self._started:
            end = self._last_done if self._done == len(self._parts) else perf_counter()
            self.exposed_seconds += max(0.0, end - max(began, self._first_sent))


def _slices(group: Group, buckets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """This rank's part of each bucket: that of its lane or, on one host, of its number there."""
    lanes = group.lane_count if group.host_count > 1 else group.local_size
    slices = []
    for start, stop in buckets:
        bounds = chunk_bounds(stop - start, lanes)
        own = bounds[group.local_rank : group.local_rank + 2] if group.local_rank < lanes else ()
        slices.append((start + own[0], start + own[1]) if own else (start, start))
    return slices


def _lanes(
    vectors: HostVectors, slices: list[tuple[int, int]], operation: str
) -> list[Lane | None]:
    """The exchange of each slice, with two tags of its own; None on a rank of no lane. Collective over the group."""
    comm = vectors.group.lane_comm
    tag = reserve_tags(vectors.group, 2 * len(slices))
    if comm is None:
        return [None] * len(slices)
    node_starts = [[first for first, _ in nodes] for nodes in vectors.nodes_of_hosts]
    rows = vectors.node_sums, vectors.result, node_starts
    return [
        LaneExchange(
            MpiTransport(comm, tag + 2 * number),
            *(*rows, *slice_, operation),
            sum_transport=MpiTransport(comm, tag + 2 * number + 1),
        )
        for number, slice_ in enumerate(slices)
    ]


class _Part:
    """This rank's slice of one bucket."""

    def __init__(
        self, vectors: HostVectors, slice_: tuple[int, int], operation: str, lane: Lane | None
    ) -> None:
        groups = groups_of(vectors)
        self._lane = lane
        scratch, rows = scratch_for(groups, vectors.dtype), row_addresses(vectors.table)
        plan = encode_plan(vectors.group, None, rows, scratch, *slice_, operation, groups)
        # A plan has addresses only: the memory must live as long.
        self._plan, self._memory = plan.view(vectors.dtype), (vectors.table, scratch)

    def expect(self) -> None:
        if self._lane:
            self._lane.start_receiving()

    def start(self) -> None:
        reduce_alone(self._plan)
        if self._lane:
            self._lane.start_sending()

    @property
    def has_left(self) -> bool:
        return not self._lane or self._lane.has_left

    @property
    def is_summed(self) -> bool:
        return not self._lane or self._lane.is_summed

    @property
    def has_sent(self) -> bool:
        return not self._lane or self._lane.has_sent

    def poll(self, sends_sums: bool = False) -> bool:
        return self._lane.poll(sends_sums) if self._lane else True
