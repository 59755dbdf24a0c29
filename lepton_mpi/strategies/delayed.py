"""``--strategy delayed``: the gradients of a step are summed while the next one is computed, and act one step later.

    step t     gradient g_t at w_t is computed;  sums of g_(t-1) come in meanwhile
               w_(t+1) = w_t - update(sum of all ranks' g_(t-1))

So the exchange is hidden behind a whole step's computation, and a rank may be a step ahead of another: what one rank loses
by chance in one step, and another in the next, is lost once. The gradient is one step old; where that matters (large
rates, the first steps), a smaller rate or ``--warmup-epochs`` helps. A rank that is always slower holds up all others as with ``sync``.

Every rank computes with a copy of the parameters; a host's ranks update their slices of one master copy, and each fetches it:

    gradient (own) -> row of the host's table -> sums, slice by slice, in the background -> master, by the slice's owner -> own copy

Nobody updates the master for step t before all ranks of the host have given their g_t, and so have fetched what came before.
After an epoch, and before a checkpoint, the last sums are waited for. The order of additions is canonical: same bits for any number of ranks.
With ``--compress`` the sums between hosts are of compressed gradients, as those of ``sync`` are (``overlapped_parameters.py``).
Source: Agarwal and Duchi, "Distributed delayed stochastic optimization", NeurIPS 2011; with one step of delay as in Li et al., "Pipe-SGD", NeurIPS 2018.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.compressing.compression import Compression
from lepton_mpi.collectives.sliced_sum import choose_for_gradients
from lepton_mpi.collectives.within_host.flag_kernels import flags_alike, flags_reached, raise_flag
from lepton_mpi.collectives.within_host.flags import HostFlags, HostMeeting
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.strategies.compression import Compressing, compression_of
from lepton_mpi.strategies.executor import Executor
from lepton_mpi.strategies.host_state import host_state, vector_counts
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.strategies.strategy import Copy, Setting, Share, Strategy


class _Exchange:
    """Rows for the gradients of some shares, and how far each rank of the host is with each bucket of their sums.

    Making one is collective over the group; so is a round, ``give`` and both waits.
    """

    def __init__(self, setting: Setting, leaves: Leaves, compression: Compression | None) -> None:
        group, count = setting.group, setting.layout.size
        buckets = list(setting.buckets)
        self.vectors = HostVectors(group, count, setting.dtype, "shared", leaves, "gradients")
        self.sum = OverlappedSum(
            self.vectors, buckets, compression=compression, purpose="gradients"
        )
        self.summed, self.updated = (HostFlags(group, len(buckets)) for _ in range(2))
        spans = setting.trained_spans
        self.norm = ReplicatedNorm(self.vectors.result, spans) if setting.clips else None
        self._buckets, self._round = list(range(len(buckets))), 0
        self._taken = np.zeros(2)

    def give(self, gradients: list[np.ndarray]) -> None:
        """Begin a round with these sums of this rank; they are copied."""
        for row, own in zip(self.vectors.inputs, gradients, strict=True):
            row[:] = own
        self._round += 1
        self.sum.begin()
        for bucket in self._buckets:
            self.sum.ready(bucket)

    def wait_for(self, flags: HostFlags, do: Callable[[int], object]) -> None:
        """Do what there is to do with each bucket, once this rank's slice is summed, until all ranks of the host have."""
        left = list(self._buckets)

        def all_have() -> bool:
            for bucket in [each for each in left if self.sum.is_complete(each)]:
                do(bucket)
                flags.raise_own(bucket, self._round)
                left.remove(bucket)
            return not left and all(flags.all_raised(each, self._round) for each in self._buckets)

        self.sum.until(all_have)

    def take_seconds(self) -> np.ndarray:
        """Of ``OverlappedSum``, exchange and exposed, since the last call; shape (2,)."""
        now = np.array([self.sum.exchange_seconds, self.sum.exposed_seconds])
        new, self._taken = now - self._taken, now
        return new


class _UnderWay(NamedTuple):
    """A step whose sums are on their way, and what its sum is divided by."""

    exchange: _Exchange
    step: int
    weight: int


class Delayed(Compressing, Executor):
    """See the module. Making one, stepping and ``finish`` are collective over the group."""

    is_shared = False

    def __init__(
        self, setting: Setting, choice: Choice, compression: Compression | None = None
    ) -> None:
        super().__init__(choice)
        self._use(compression, setting)
        self.can_share_out = compression is None  # which serves one sum
        if compression:
            setting = replace(setting, buckets=compression.buckets(setting.buckets))
        self._setting, self._group, self._step_count = setting, setting.group, 0
        self.bucket_count, self._clock = len(setting.buckets), setting.group.clock
        self._master, self.optimizer = host_state(setting)
        self.parameters = np.zeros(setting.layout.size, setting.dtype)
        self._meeting, self._clip_norm = HostMeeting(setting.group), setting.clip_norm
        self._seconds, self._begun = np.zeros(2), False
        self._under_way: _UnderWay | None = None
        self._hand_out(Leaves.spread(setting.micro_batch_count, setting.group.size))
        self.kernels = [self.optimizer.kernel, raise_flag, flags_reached, flags_alike]
        self.kernels += [sum_of_squares] if setting.clips else []
        self.kernels += compression.codec.kernels if compression else []

    def share_out(self, bounds: Sequence[int]) -> None:
        """See ``Strategy``. What is under way stays so, and acts when it would have."""
        self._hand_out(Leaves(self._setting.micro_batch_count, tuple(bounds)))

    def _hand_out(self, leaves: Leaves) -> None:
        """Memory for the gradients of these micro-batches, and what sums them."""
        setting, group = self._setting, self._group
        self._exchange = exchange = _Exchange(setting, leaves, self._compression)
        self._vector_counts = vector_counts(self.optimizer, exchange.vectors)
        nodes = leaves.nodes(group.place)
        self._own = [np.zeros(setting.layout.size, setting.dtype) for _ in nodes]
        self._node_sums = NodeSums(setting.layout, nodes, self._own)
        self.numbers = self._node_sums.numbers

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``; what can go on with the last step's sums does, after each micro-batch."""
        if not self._begun:
            self._begin()
        return self._going_on() if self._under_way else self._node_sums.shares()

    def _going_on(self) -> Iterator[Share]:
        for share in self._node_sums.shares():
            yield share
            if self._under_way:
                self._under_way.exchange.sum.poll()

    def _begin(self) -> None:
        """The master is what every rank holds."""
        self._begun = True
        if self._group.local_rank == 0:
            self._master[:] = self.parameters
        self._meeting.run()

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``: update with the sum of the step before, and give away this step's gradient."""
        self._clock.enter("communication", step)
        self._apply()
        if self._undelivered is not None:
            if self.numbers[:1] == [0]:
                self._own[0] += self._undelivered
            self._undelivered = None
        if self._compression:
            self._compression.step = step
        self._exchange.give(self._own)
        self._step_count += 1
        self._under_way = _UnderWay(self._exchange, step, weight)
        self._clock.enter("compute")

    def skip(self, step: int) -> None:
        """See ``Strategy``: the step before is made."""
        self.finish()

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        super().restore(parameters, state)
        self._begun = False

    def finish(self) -> None:
        """See ``Strategy``: nothing is under way then."""
        self.late_updates += self._under_way is not None
        self._clock.enter("communication")
        self._apply()
        self._clock.enter("compute")

    def _apply(self) -> None:
        """The update that is under way."""
        if not self._under_way:
            return
        exchange, step, weight = self._under_way
        exchange.wait_for(exchange.summed, lambda bucket: None)
        scale = 1.0 / weight
        if exchange.norm:
            scale = clipped_scale(scale, exchange.norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale, 1.0 / weight)
        result, slices = exchange.vectors.result, exchange.sum.slices
        exchange.wait_for(
            exchange.updated,
            lambda bucket: self.optimizer.update(self._master, result, *slices[bucket]),
        )
        self.parameters[:] = self._master
        self._seconds += exchange.take_seconds()
        self._under_way = None

    def copies(self) -> list[Copy]:
        """See ``Strategy``: the master and its state, and what each rank computes with. What is under way stays so."""
        state = {"parameters": self._master, **self.optimizer.named_state}
        of_host = [Copy(name, vector, True) for name, vector in state.items()]
        return [Copy("a rank's parameters", self.parameters, False), *of_host]

    def copies_at_end(self) -> list[Copy]:
        """The same."""
        return self.copies()

    def memory(self) -> dict[str, int]:
        """Vectors that the host holds; each rank has a copy of parameters and gradients besides."""
        more = {"residuals": self._compression.vector_count} if self._compression else {}
        return self._vector_counts | more

    def own_vectors(self) -> int:
        """A copy of the parameters, gradients before they are handed over, and sums on their way."""
        return 1 + len(self._own) + self._node_sums.extra_count

    def figures(self) -> dict[str, float]:
        """``hidden_share``: of the time from the first message to the last of every step, the part behind compute.

        With a codec also what was sent; on one host none.
        """
        if self._group.host_count == 1:
            return {}
        total, exposed = self._group.sum(self._seconds)
        uncompressed = 2 * (self._group.host_count - 1) * self.parameters.nbytes * self._step_count
        found = {"hidden_share": float(1 - exposed / total) if total else 0.0}
        return found | self._sent_figures(self._step_count, uncompressed)

    def __str__(self) -> str:
        many = "s" * (self.bucket_count > 1)
        how = f"delayed, gradients act one step later, {self.bucket_count} bucket{many}"
        return how + self._codec_text()


def make(setting: Setting) -> Strategy:
    """Collective over the group. Raises ConfigurationError."""
    group = setting.group
    if setting.allreduce not in ("auto", "host", "two_level"):
        raise ConfigurationError(
            f"--strategy delayed: expected --allreduce auto, got {setting.allreduce}: its sums are made in memory and by "
            "lanes between hosts"
        ).on_all_ranks()
    setting = replace(setting, allreduce="host" if group.host_count == 1 else "two_level")
    choice = choose_for_gradients(group, setting.allreduce, list(setting.buckets), setting.dtype)
    return Delayed(setting, choice, compression_of(setting))
