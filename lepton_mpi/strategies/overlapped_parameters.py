"""Synchronous data parallelism over several hosts: gradients cross the wire while the rest of them is computed.

    backward          bucket by bucket, last layer first: as soon as all ranks of the host have filled a bucket, each
                      adds up its slice and exchanges it with the same slice of the other hosts, in the background
    step              when the ranks of the host have left their backward passes, which read the parameters, each
                      updates its slices of the one copy that the host has, bucket by bucket as their sums complete
    meet              everybody sees the new parameters

What a step costs is then max(backward, wire) and what neither can hide: the forward pass and the first bucket, before
anything can be sent, and the update of the last. Clipping by norm needs all sums before the first update.
Memory per host: (n + 2 + s) N bytes, s vectors of state, and what arrives, N (H-1)/H.
"""

import numpy as np

from lepton_mpi.collectives.host_memory import HostBarrier, HostVectors, Leaves
from lepton_mpi.collectives.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.tuning import Choice
from lepton_mpi.optimizers import Settings
from lepton_mpi.strategies.clipping import SharedNorm, clipped_scale
from lepton_mpi.strategies.host_state import host_state, host_vectors
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.vectors import Layout


class OverlappedParameters:
    """See the module. Parameters and attributes are those of ``SharedParameters``, and ``buckets``, a list of (start,
    stop), to be summed one after the other; making one and stepping are collective over the world. Iterate over ``micro_batches`` once before every ``step``.

    Attributes
    ----------
    exchange_seconds : (float, float)
        From the first message to the last of every step, and of that the time in which this rank could only wait.
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
        self.vectors = host_vectors(self.optimizer, vectors)
        self._gradient, self._clip_norm = vectors.result, clip_norm
        self._sum = OverlappedSum(vectors, buckets)
        nodes = leaves.nodes(world.place)
        self.micro_batches = NodeSums(layout, nodes, vectors.inputs, buckets, self._sum)
        self._meeting = HostBarrier(world)
        self._norm = SharedNorm(world, self._gradient) if clip_norm < float("inf") else None

    @property
    def exchange_seconds(self) -> tuple[float, float]:
        return self._sum.exchange_seconds, self._sum.exposed_seconds

    def step(self, step: int, row_count: int) -> None:
        """Sum, divide by ``row_count`` (the rows of all ranks), update. ``step`` counts from 1."""
        self._clock.enter("communication")
        scale = 1.0 / row_count
        self._sum.wait_for_host()
        if self._norm:
            for bucket in range(self.bucket_count):
                self._sum.wait(bucket)
            self._meeting.run()
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale)
        for bucket, (start, stop) in enumerate(self._sum.slices):
            self._sum.wait(bucket)
            self.optimizer.update(self.parameters, self._gradient, start, stop)
        self._meeting.run()
        self._clock.enter("compute")
