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
that does not ask for its parameters (``Sync.need``) gets all of them before its forward pass. Clipping by norm needs all
sums before the first update. Memory per host: (n + 2 + s) N bytes, s vectors of state, and what arrives, N (H-1)/H.

With a ``Compression`` the exchange is of payloads, and a host holds its residuals, 1 or 2 vectors. They are state. Decoded
sums are the same on all hosts, so all else stays: clipping is by the norm of what was decoded.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.compressing.compression import Compression
from lepton_mpi.collectives.within_host.flag_kernels import flags_alike, flags_reached, raise_flag
from lepton_mpi.collectives.within_host.flags import HostFlags, HostMeeting
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.strategies.clipping import SharedNorm, clipped_scale
from lepton_mpi.strategies.compression import Compressing
from lepton_mpi.strategies.executor import Executor
from lepton_mpi.strategies.host_state import host_state, vector_counts
from lepton_mpi.strategies.micro_batches import NodeSums, buckets_of
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.strategies.strategy import Setting, Share


class OverlappedParameters(Compressing, Executor):
    """See the module. Making one, stepping and ``finish`` are collective over the group. Take all ``shares`` before every
    ``step``; ``setting.buckets`` are summed one after the other.

    Parameters
    ----------
    setting, choice
        As of the other executors.
    compression : Compression, optional
        Of the gradient; it serves this strategy alone.
    """

    is_shared, outlives_ranks = True, True

    def __init__(
        self, setting: Setting, choice: Choice, compression: Compression | None = None
    ) -> None:
        super().__init__(choice)
        self._setting, self._group = setting, setting.group
        self._use(compression, setting)
        self.can_share_out = compression is None  # which serves one sum
        # What was left out of a payload has the gradient in it.
        self.skips = "all" if compression is None else ""
        buckets = list(setting.buckets)
        self._buckets = compression.buckets(buckets) if compression else buckets
        self.bucket_count, self._clock = len(self._buckets), setting.group.clock
        self.parameters, self.optimizer = host_state(setting)
        self._clip_norm = setting.clip_norm
        self._meeting = HostMeeting(setting.group) if setting.clips else None
        self._buckets_of = buckets_of(setting.layout, self._buckets)
        self._exchanged = np.zeros(2)
        self._hand_out(Leaves.spread(setting.micro_batch_count, setting.group.size))
        self.kernels = [self.optimizer.kernel, raise_flag, flags_reached, flags_alike]
        self.kernels += [sum_of_squares] if setting.clips else []
        self.kernels += compression.codec.kernels if compression else []

    def share_out(self, bounds: Sequence[int]) -> None:
        """See ``Strategy``."""
        self.finish()
        self._exchanged += self._sum.exchange_seconds, self._sum.exposed_seconds
        self._hand_out(Leaves(self._setting.micro_batch_count, tuple(bounds)))

    def _hand_out(self, leaves: Leaves) -> None:
        """Memory for the gradients of these micro-batches, and what sums them, at the beginning of their first round."""
        setting, group, buckets = self._setting, self._group, self._buckets
        layout, clips = setting.layout, setting.clips
        vectors = HostVectors(group, layout.size, setting.dtype, "shared", leaves, "gradients")
        self._vector_counts = vector_counts(self.optimizer, vectors)
        self._gradient = vectors.result
        self._sum = OverlappedSum(
            vectors, buckets, compression=self._compression, purpose="gradients"
        )
        nodes = leaves.nodes(group.place)
        # A rank that computes nothing would never ask.
        self.awaits = setting.is_asked and bool(nodes) and not clips
        self._node_sums = NodeSums(layout, nodes, vectors.inputs, buckets, self)
        self.numbers = self._node_sums.numbers
        self._norm = SharedNorm(group, self._gradient, setting.trained_spans) if clips else None
        # In the rounds of ``_step``.
        self._updated = HostFlags(group, len(buckets))
        self._step = 0
        self._not_updated: list[int] = []
        self._not_seen: set[int] = set()
        self._has_begun = self._drops = False

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``."""
        if self._compression:
            self._compression.step = step
        return self._node_sums.shares()

    def memory(self) -> dict[str, int]:
        """Vectors that the host holds."""
        more = {"residuals": self._compression.vector_count} if self._compression else {}
        return self._vector_counts | more

    def own_vectors(self) -> int:
        """Sums of micro-batches on their way."""
        return self._node_sums.extra_count

    def figures(self) -> dict[str, float]:
        """``hidden_share``: of the time from the first message to the last of every step, the part behind compute.

        With a codec also what was sent.
        """
        now = self._exchanged + np.array([self._sum.exchange_seconds, self._sum.exposed_seconds])
        total, exposed = self._group.sum(now).tolist()
        uncompressed = 2 * (self._group.host_count - 1) * self.parameters.nbytes * self._step
        found = {"hidden_share": float(1 - exposed / total) if total else 0.0}
        return found | self._sent_figures(self._step, uncompressed)

    def __str__(self) -> str:
        return super().__str__() + self._codec_text()

    def need(self, name: str) -> None:
        """A parameter is about to be read (``micro_batches.Follower``)."""
        self._complete(self._buckets_of[name])

    def begin(self) -> None:
        """A step begins (``micro_batches.Follower``)."""
        if not self.awaits:
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

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``: sum, divide by ``weight``, update.

        Parameters are new after ``finish``, or in a model that asks for them.
        """
        self._clock.enter("communication")
        buckets, scale = range(self.bucket_count), 1.0 / weight
        if self._norm and self._meeting:
            self._sum.until(lambda: all(map(self._sum.is_complete, buckets)))
            self._meeting.run()
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale, 1.0 / weight)
        self._step += 1
        self._has_begun = False
        self._not_updated, self._not_seen = list(buckets), set(buckets)
        if self._norm:
            self.finish()
        self._sum.poll()
        self._clock.enter("compute")

    def skip(self, step: int) -> None:
        """See ``Strategy``: the sums come in, and nobody uses them."""
        self._step += 1
        self._has_begun, self._drops = False, True
        self._not_updated, self._not_seen = (
            list(range(self.bucket_count)),
            set(range(self.bucket_count)),
        )
        self.finish()
        self._drops = False

    def finish(self) -> None:
        """See ``Strategy``."""
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
            if not self._drops:
                slice_ = self._sum.slices[bucket]
                self.optimizer.update(self.parameters, self._gradient, *slice_)
            self._updated.raise_own(bucket, self._step)
        self._not_updated = [b for b in self._not_updated if not self._sum.is_complete(b)]
