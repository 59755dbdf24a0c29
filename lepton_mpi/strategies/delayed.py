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
Source: Agarwal and Duchi, "Distributed delayed stochastic optimization", NeurIPS 2011; with one step of delay as in Li et al., "Pipe-SGD", NeurIPS 2018.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.sliced_sum import choose_for_gradients
from lepton_mpi.collectives.within_host.flag_kernels import flags_reached, raise_flag
from lepton_mpi.collectives.within_host.flags import HostFlags, HostMeeting
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.strategies.executor import Executor
from lepton_mpi.strategies.host_state import host_state, vector_counts
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.strategies.strategy import Setting, Share, Strategy


class Delayed(Executor):
    """See the module. Making one, stepping and ``finish`` are collective over the group."""

    is_shared = False

    def __init__(self, setting: Setting, choice: Choice) -> None:
        super().__init__(choice)
        group, layout, buckets = setting.group, setting.layout, list(setting.buckets)
        self.bucket_count, self._group, self._clock = len(buckets), group, group.clock
        self._master, self.optimizer = host_state(setting)
        self.parameters = np.zeros(layout.size, setting.dtype)
        leaves = Leaves.spread(setting.micro_batch_count, group.size)
        vectors = HostVectors(group, layout.size, setting.dtype, "shared", leaves, "gradients")
        self._vector_counts = vector_counts(self.optimizer, vectors)
        self._rows, self._result = vectors.inputs, vectors.result
        self._sum, self._meeting = OverlappedSum(vectors, buckets), HostMeeting(group)
        nodes = leaves.nodes(group.place)
        self._own = [np.zeros(layout.size, setting.dtype) for _ in nodes]
        self._node_sums = NodeSums(layout, nodes, self._own)
        self.numbers = self._node_sums.numbers
        self._summed, self._updated = (HostFlags(group, len(buckets)) for _ in range(2))
        self._clip_norm = setting.clip_norm
        self._norm = ReplicatedNorm(self._result, setting.trained_spans) if setting.clips else None
        self.kernels = [self.optimizer.kernel, raise_flag, flags_reached]
        self.kernels += [sum_of_squares] if setting.clips else []
        # The step whose sums are on their way, with its weight.
        self._under_way: tuple[int, int] | None = None
        self._round, self._begun = 0, False

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``; what can go on with the last step's sums does, after each micro-batch."""
        if not self._begun:
            self._begin()
        return self._going_on() if self._under_way else self._node_sums.shares()

    def _going_on(self) -> Iterator[Share]:
        for share in self._node_sums.shares():
            yield share
            self._sum.poll()

    def _begin(self) -> None:
        """The master is what every rank holds."""
        self._begun = True
        if self._group.local_rank == 0:
            self._master[:] = self.parameters
        self._meeting.run()

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``: update with the sum of the step before, and give away this step's gradient."""
        self._clock.enter("communication")
        self._apply()
        for row, own in zip(self._rows, self._own, strict=True):
            row[:] = own
        self._round += 1
        self._sum.begin()
        for bucket in range(self.bucket_count):
            self._sum.ready(bucket)
        self._under_way = step, weight
        self._clock.enter("compute")

    def finish(self) -> None:
        """See ``Strategy``: nothing is under way then."""
        self._clock.enter("communication")
        self._apply()
        self._clock.enter("compute")

    def _apply(self) -> None:
        """The update that is under way."""
        if not self._under_way:
            return
        step, weight = self._under_way
        buckets = list(range(self.bucket_count))
        self._wait_for(self._summed, buckets, lambda bucket: None)
        scale = 1.0 / weight
        if self._norm:
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale, 1.0 / weight)
        self._wait_for(self._updated, buckets, self._update)
        self.parameters[:] = self._master
        self._under_way = None

    def _update(self, bucket: int) -> None:
        """This rank's slice of the master."""
        self.optimizer.update(self._master, self._result, *self._sum.slices[bucket])

    def _wait_for(self, flags: HostFlags, buckets: list[int], do: Callable[[int], object]) -> None:
        """Do what there is to do with each bucket, once this rank's slice is summed, until all ranks of the host have."""
        left = list(buckets)

        def all_have() -> bool:
            for bucket in [each for each in left if self._sum.is_complete(each)]:
                do(bucket)
                flags.raise_own(bucket, self._round)
                left.remove(bucket)
            return not left and all(flags.all_raised(bucket, self._round) for bucket in buckets)

        self._sum.until(all_have)

    def memory(self) -> dict[str, int]:
        """Vectors that the host holds; each rank has a copy of parameters and gradients besides."""
        return self._vector_counts

    def figures(self) -> dict[str, float]:
        """``hidden_share``: of the time from the first message to the last of every step, the part behind compute."""
        seconds = np.array([self._sum.exchange_seconds, self._sum.exposed_seconds])
        total, exposed = self._group.sum(seconds)
        return {"hidden_share": float(1 - exposed / total) if total else 0.0}

    def __str__(self) -> str:
        return f"delayed, gradients act one step later, {self.bucket_count} bucket{'s' * (self.bucket_count > 1)}"


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
    return Delayed(setting, choice)
