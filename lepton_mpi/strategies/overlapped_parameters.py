"""Synchronous data parallelism over several hosts: gradients cross the wire while the rest of them is computed, and sums
while the next step begins.

    backward          bucket by bucket, last layer first: as soon as all ranks of the host have filled a bucket, each
                      adds up its slice and exchanges it with the same slice of the other hosts, in the background
    step              fixes the numbers of the update, and waits for nothing
    next forward      before a layer's parameters are read, they are completed: when the ranks of the host have left their
                      backward passes, which read them, each updates its slices of the one copy that the host has, bucket
                      by bucket as their sums complete, and says so

What a step costs is then max(backward, wire) and what neither can hide: the forward pass through the last layer and its
gradient, before which nothing can be sent, since sums of the first layers arrive first (``overlapped_sum.py``). A model
that does not ask for its parameters (``Views.need``) gets all of them before its forward pass. Clipping by norm needs all
sums before the first update. Memory per host: (n + 2 + s) N bytes, s vectors of state, and what arrives, N (H-1)/H.
"""

from collections.abc import Sequence

import numpy as np

from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.within_host.flags import HostFlags, HostMeeting
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.optimizers.optimizer import Settings
from lepton_mpi.strategies.clipping import SharedNorm, clipped_scale
from lepton_mpi.strategies.host_state import host_state, vector_counts
from lepton_mpi.strategies.micro_batches import NodeSums, buckets_of
from lepton_mpi.strategies.strategy import Strategy
from lepton_mpi.vectors import Layout, Views


class OverlappedParameters(Strategy):
    """See the module. Parameters and attributes are those of ``SharedParameters``, and ``buckets``, a list of (start,
    stop), to be summed one after the other; making one, stepping and ``finish`` are collective over the world. Iterate
    over ``micro_batches`` once before every ``step``.

    Attributes
    ----------
    exchange_seconds : (float, float)
        From the first message to the last of every step, and of that the time in which this rank waited for sums, or
        updated parameters.
    """

    is_shared = True

    def __init__(
        self,
        world,
        layout: Layout,
        dtype: np.dtype,
        leaf_count: int,
        settings: Settings,
        choice: Choice,
        clip_norm: float,
        buckets: list[tuple[int, int]],
    ) -> None:
        self.choice, self.bucket_count, self._clock = choice, len(buckets), world.clock
        self.parameters, self.optimizer = host_state(world, layout, dtype, settings)
        leaves = Leaves.spread(leaf_count, world.size)
        vectors = HostVectors(world, layout.size, dtype, "shared", leaves, "gradients")
        self.vector_counts = vector_counts(self.optimizer, vectors)
        self._gradient, self._clip_norm = vectors.result, clip_norm
        self._sum = OverlappedSum(vectors, buckets)
        nodes = leaves.nodes(world.place)
        self.micro_batches = NodeSums(layout, nodes, vectors.inputs, buckets, self)
        clips = clip_norm < float("inf")
        self._meeting = HostMeeting(world) if clips else None
        self._norm = SharedNorm(world, self._gradient) if clips else None
        self._buckets_of = buckets_of(layout, buckets)
        # In the rounds of ``_step``.
        self._updated = HostFlags(world, len(buckets))
        self._step, self._is_asked = 0, False
        self._not_updated: list[int] = []
        self._not_seen: set[int] = set()
        self._has_begun = False

    @property
    def exchange_seconds(self) -> tuple[float, float]:
        return self._sum.exchange_seconds, self._sum.exposed_seconds

    def serve(self, parameters: Views) -> None:
        # A rank that computes nothing would never ask.
        if self.micro_batches.numbers and self._norm is None:
            parameters.await_with(lambda name: self._complete(self._buckets_of[name]))
            self._is_asked = True

    def begin(self) -> None:
        """A step begins (``micro_batches.Follower``)."""
        if not self._is_asked:
            self.finish()
        elif not self._sum.host_has_added():
            self._clock.enter("communication")
            # Whoever computes writes over its gradient, perhaps before it asks for parameters.
            self._sum.until(self._sum.host_has_added)
            self._clock.enter("compute")
        self._has_begun = True
        if not self._not_seen:
            self._sum.begin()

    def ready(self, bucket: int) -> None:
        """Sums are complete in a bucket (``micro_batches.Follower``)."""
        self.finish()  # there may be parameters that the model does not read
        self._sum.ready(bucket)

    def step(self, step: int, row_count: int) -> None:
        """Sum, divide by ``row_count`` (the rows of all ranks), update. ``step`` counts from 1.

        Parameters are new after ``finish``, or in a model that asks for them.
        """
        self._clock.enter("communication")
        buckets, scale = range(self.bucket_count), 1.0 / row_count
        if self._norm:
            self._sum.until(lambda: all(map(self._sum.is_complete, buckets)))
            self._meeting.run()
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale)
        self._step += 1
        self._has_begun = False
        self._not_updated, self._not_seen = list(buckets), set(buckets)
        if self._norm:
            self.finish()
        self._sum.poll()
        self._clock.enter("compute")

    def finish(self) -> None:
        self._complete(range(self.bucket_count))

    def _complete(self, buckets: Sequence[int]) -> None:
        """Return once the parameters in these buckets are those after the last step."""
        if self._not_seen.isdisjoint(buckets):
            return

        def are_there() -> bool:
            self._update()
            return all(self._updated.all_raised(bucket, self._step) for bucket in buckets)

        self._clock.enter("communication")
        self._sum.until(are_there)
        self._not_seen -= set(buckets)
        if not self._not_seen and self._has_begun:
            self._sum.begin()
        self._clock.enter("compute")

    def _update(self) -> None:
        """Update this rank's slices of buckets whose sums are complete, once nobody reads the old parameters any more."""
        if not self._not_updated or not self._sum.host_is_through():
            return
        for bucket in filter(self._sum.is_complete, self._not_updated):
            slice_ = self._sum.slices[bucket]
            self.optimizer.update(self.parameters, self._gradient, *slice_)
            self._updated.raise_own(bucket, self._step)
        self._not_updated = [b for b in self._not_updated if not self._sum.is_complete(b)]
