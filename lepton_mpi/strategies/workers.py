"""Workers: who makes steps by itself, a rank or the ranks of a host together, and the strategies by which they meet.

    rank worker    a vector of parameters, of gradients and the state of an optimizer of its own
    host worker    what ``--strategy sync`` holds on one host: parameters and state once, in memory that its ranks share

A worker computes the same micro-batches of every step, a contiguous run of them, and divides its gradient by the rows of
these. A strategy on top says when and how workers meet. At ``finish``, after an epoch and before a checkpoint, all of them
end with the same parameters and the same state, the mean of all: so a checkpoint is what a run of one worker would write,
a run goes on from it on any number of ranks, and a resumed run has the bits of the one that was not ended.
A worker without a row in an epoch's last, short step makes no step there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from lepton_mpi.chunks import chunk_bounds, share
from lepton_mpi.collectives.allreduce import make_plan
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host.flags import HostMeeting
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.strategies import synchronous
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.strategies.frozen import FrozenValues
from lepton_mpi.strategies.micro_batches import sums_of_run
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.strategies.strategy import Setting, Share, SkipScope, Strategy, StrategyBase


class RankWorker:
    """This rank by itself.

    Attributes
    ----------
    parameters : shape (layout.size,)
    gradient : shape (layout.size,)
        The sum over the worker's micro-batches, after all ``shares``.
    numbers, weighed : list of int
        Micro-batches that this rank computes, and those of its worker.
    part : slice
        What this rank exchanges of the parameters at a meeting, with ``peers``.
    peers : Group or None
        One rank of every worker; None for a rank that exchanges nothing.
    count : int
        Workers.
    """

    is_shared = False

    def __init__(self, setting: Setting) -> None:
        group, layout, dtype = setting.group, setting.layout, setting.dtype
        check_worker_count(setting, group.size, "rank")
        self._layout, self._place = layout, group.place
        self.parameters, self.gradient = np.zeros((2, layout.size), dtype)
        state = np.zeros((len(rule_of(setting.optimizer).state), layout.size), dtype)
        self.optimizer = Optimizer(
            *(setting.optimizer, layout, dtype, state),
            averaged=setting.averaged,
            decayed=setting.decayed,
            frozen=setting.frozen,
        )
        self.share_out(chunk_bounds(setting.micro_batch_count, group.size))
        self.peers: Group | None = group
        self.part, self.count = slice(0, layout.size), group.size
        self._clip_norm = setting.clip_norm
        self._norm = ReplicatedNorm(self.gradient, setting.trained_spans) if setting.clips else None
        self.kernels = [self.optimizer.kernel, *([sum_of_squares] if setting.clips else [])]

    def share_out(self, bounds: Sequence[int]) -> None:
        """See ``Strategy``."""
        self._node_sums = sums_of_run(self._layout, bounds, self._place, self.gradient)
        self.numbers = self.weighed = self._node_sums.numbers

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``."""
        return self._node_sums.shares()

    def step(self, step: int, weight: int) -> None:
        """From the worker's own gradient. All its ranks."""
        scale = 1.0 / weight
        if self._norm:
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale, 1.0 / weight)
        self.optimizer.update(self.parameters, self.gradient, 0, self.parameters.size)

    @property
    def own_vectors(self) -> int:
        """Parameters, gradients, sums on their way, and the optimizer's state."""
        return 2 + self._node_sums.extra_count + len(self.optimizer.state)

    def meet(self) -> None:
        """Wait for the worker's ranks: there is one."""

    def finish(self) -> None:
        """The worker's last step is made."""


class HostWorker:
    """The ranks of this host together; attributes as of ``RankWorker``. Making one is collective over the group."""

    is_shared = True

    def __init__(self, setting: Setting) -> None:
        group = setting.group
        host = group.ranks_of_hosts[group.host_index]
        places = group.places_of_hosts[group.host_index]
        bounds = chunk_bounds(setting.micro_batch_count, group.size)
        first, stop = bounds[places.start], bounds[places.stop]
        check_worker_count(setting, group.host_count, "host")
        of_host = replace(
            setting, group=group.group(host), micro_batch_count=stop - first, allreduce="host"
        )
        self._inner = synchronous.make(replace(of_host, compress="none"))
        self.parameters, self.kernels = self._inner.parameters, self._inner.kernels
        assert isinstance(self._inner, StrategyBase) and self._inner.optimizer
        self.optimizer = self._inner.optimizer
        self.numbers = [first + number for number in self._inner.numbers]
        self.weighed = list(range(first, stop))
        self.count, self.peers = group.host_count, None
        lane, lanes = group.local_rank, group.lane_count
        if lane < lanes:
            self.peers = group.group([ranks[lane] for ranks in group.ranks_of_hosts])
        self.part = (
            slice(*share(0, self.parameters.size, lanes, lane)) if lane < lanes else slice(0, 0)
        )
        self._meeting = HostMeeting(group)

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``."""
        return self._inner.shares(step)

    def step(self, step: int, weight: int) -> None:
        """From the gradients of the host's ranks. All its ranks."""
        self._inner.step(step, weight)

    @property
    def own_vectors(self) -> int:
        """Sums of micro-batches on their way."""
        return self._inner.own_vectors()

    def meet(self) -> None:
        """Wait for the ranks of this host: what one of them does to its part of the parameters is seen by all of them."""
        self._meeting.run()

    def finish(self) -> None:
        """The worker's last step is made."""
        self._inner.finish()


Worker = RankWorker | HostWorker


def make_worker(setting: Setting, kind: Literal["ranks", "hosts"]) -> Worker:
    """Collective over the group. Raises ConfigurationError on every rank."""
    return HostWorker(setting) if kind == "hosts" else RankWorker(setting)


def ranks_by_place(group: Group) -> list[int]:
    """Of each place (see ``Group``) its rank: worker k is the rank at place k."""
    return [rank for ranks in group.ranks_of_hosts for rank in ranks]


def check_worker_count(setting: Setting, workers: int, kind: str) -> None:
    """Raises ConfigurationError, on every rank, if a worker would have nothing to compute."""
    if setting.micro_batch_count < workers:
        raise ConfigurationError(
            f"--strategy {setting.strategy}: expected at least a micro-batch of a step for each of {workers} {kind}s, which make "
            f"steps by themselves, got {setting.micro_batch_count}: take a smaller --micro-batch or a larger --global-batch"
        ).on_all_ranks()


class Mean:
    """The mean of arrays over workers, in place, added up in canonical order. Making and running are collective over ``peers``."""

    def __init__(self, peers: Group | None, arrays: Sequence[np.ndarray]) -> None:
        self._pairs: list[tuple[Any, np.ndarray]] = []
        if peers is None or peers.size == 1:
            return
        algorithm = "host" if peers.host_count == 1 else "two_level"
        for array in (each for each in arrays if each.size):
            plan = make_plan(peers, mode="array", array=array, algorithm=algorithm)
            self._pairs.append((plan, array))
        self._factor = 1.0 / peers.size

    @property
    def byte_count(self) -> int:
        """Of the arrays that are exchanged."""
        return sum(array.nbytes for _, array in self._pairs)

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others, over all runs."""
        return sum(plan.wait_seconds for plan, _ in self._pairs)

    def run(self) -> None:
        """Once."""
        for plan, array in self._pairs:
            plan.run()
            np.multiply(array, array.dtype.type(self._factor), out=array)


class Workers(StrategyBase):
    """What the strategies of workers have in common; one of them says what ``exchange`` does. See the module.

    Making one and stepping are collective over the group; so is ``finish``.
    """

    name = ""
    freezes = True

    def __init__(self, setting: Setting, worker: Worker) -> None:
        self._is_balanced = setting.is_balanced
        self.reproducible = not self._is_balanced
        self.can_share_out = isinstance(worker, RankWorker)
        self.worker, self._clock, self._group = worker, setting.group.clock, setting.group
        self.parameters, self.optimizer = worker.parameters, worker.optimizer
        self.is_shared, self.kernels = worker.is_shared, worker.kernels
        self.skips: SkipScope = "host" if worker.is_shared else "rank"
        self.numbers, self.weighed = worker.numbers, worker.weighed
        self.part = self.parameters[worker.part]
        self._state_mean = Mean(worker.peers, [each[worker.part] for each in self.optimizer.state])
        self._begun, self._is_over = False, True
        self._frozen = FrozenValues(setting, self.parameters)
        # Steps since workers had the same parameters, and meetings of this run.
        self.apart, self.meetings, self.exchanged_bytes = 0, 0, 0

    def begin(self) -> None:
        """Before the first step, when parameters are what the run begins with."""

    def exchange(self, step: int) -> None:
        """After every step: a meeting, if one is due."""
        raise NotImplementedError

    def agree(self) -> None:
        """Make all parameters the same."""
        raise NotImplementedError

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``."""
        if not self._begun:
            self._begun = True
            self._frozen.keep()
            self.begin()
        return self.worker.shares(step)

    def share_out(self, bounds: Sequence[int]) -> None:
        """See ``Strategy``: a faster worker's steps are made of more rows, no matter how many weigh the same in a mean."""
        assert isinstance(self.worker, RankWorker)
        self.worker.share_out(bounds)
        self.numbers, self.weighed = self.worker.numbers, self.worker.weighed

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``: the worker's own step, and perhaps a meeting."""
        if weight:
            self.worker.step(step, weight)
        self.apart, self._is_over = self.apart + 1, False
        self._clock.enter("communication", step)
        self.exchange(step)
        self._frozen.put_back()
        self._clock.enter("compute")

    def skip(self, step: int) -> None:
        """See ``Strategy``: as a worker without a row; it meets the others when that is due."""
        self.step(step, 0)

    def finish(self) -> None:
        """See ``Strategy``: all workers have the same parameters then, and the same state."""
        if self._is_over:
            return
        self._is_over = True
        self._clock.enter("communication")
        self.worker.finish()
        self.worker.meet()
        if self.apart:
            self.agree()
        self.run_mean(self._state_mean)
        self._frozen.put_back()
        self.worker.meet()
        self.apart = 0
        self._clock.enter("compute")

    def run_mean(self, mean: Mean) -> None:
        """With its waiting told apart, and its bytes counted."""
        waited = mean.wait_seconds
        mean.run()
        self._clock.move("communication", "waiting", mean.wait_seconds - waited)
        self.exchanged_bytes += mean.byte_count

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        super().restore(parameters, state)
        self._begun = False

    def facts(self) -> dict[str, Any]:
        """Who works, and by which rule they meet."""
        kind = "hosts" if isinstance(self.worker, HostWorker) else "ranks"
        return {"strategy": self.name, "workers": self.worker.count, "worker_kind": kind}

    def figures(self) -> dict[str, float]:
        """Meetings, and bytes that all ranks together have handed over to be averaged."""
        handed = self._group.sum(np.array([float(self.exchanged_bytes)]))
        return {"meetings": float(self.meetings), "exchanged_bytes": float(handed[0])}

    def memory(self) -> dict[str, int]:
        """Of host workers that which ``sync`` holds."""
        return self.worker._inner.memory() if isinstance(self.worker, HostWorker) else {}

    def own_vectors(self) -> int:
        """Of the worker."""
        return self.worker.own_vectors

    def promise(self) -> str:
        """For the head line."""
        kind = "host" if isinstance(self.worker, HostWorker) else "rank"
        count = self.worker.count
        return f"{count} worker{'s' * (count > 1)}, each a {kind}; {self._bits()}"

    def _bits(self) -> str:
        if self._is_balanced:
            return "bits depend on their speed"
        return f"same bits for {self.worker.count} wherever they run"


def _is_a_strategy(workers: Workers) -> Strategy:
    return workers
