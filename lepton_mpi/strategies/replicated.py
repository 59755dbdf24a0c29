"""Synchronous data parallelism where every rank has a copy of all parameters and of all state.

Every rank sees the same bits of the summed gradient and makes the same update; nothing needs to be sent back.
For algorithms that give each rank a sum of its own: MPI's Allreduce and the schedules over messages. Buckets go
in index order, the last layer first.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.sliced_sum import make_sliced_sum
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.strategies.executor import Executor
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.strategies.strategy import Setting, Share
from lepton_mpi.vectors import aligned_zeros


class Replicated(Executor):
    """See the module. Making one and stepping are collective over the group; ``choice`` is MPI's or one over messages."""

    is_shared = False

    def __init__(self, setting: Setting, choice: Choice) -> None:
        super().__init__(choice)
        layout, dtype = setting.layout, setting.dtype
        gradients = make_sliced_sum(
            *(setting.group, layout.size, dtype, setting.micro_batch_count),
            *(list(setting.buckets), choice.algorithm, setting.segment_bytes),
        )
        self.parameters = aligned_zeros(layout.size, dtype)
        state = np.zeros((len(rule_of(setting.optimizer).state), layout.size), dtype)
        self.optimizer = Optimizer(
            *(setting.optimizer, layout, dtype, state),
            averaged=setting.averaged,
            decayed=setting.decayed,
            frozen=setting.frozen,
        )
        self._node_sums = NodeSums(layout, gradients.nodes, gradients.inputs)
        self.numbers = self._node_sums.numbers
        self.bucket_count = len(gradients.slices)
        self._gradients, self._clock = gradients, setting.group.clock
        self._clip_norm = setting.clip_norm
        self._norm = (
            ReplicatedNorm(gradients.result, setting.trained_spans) if setting.clips else None
        )
        self.kernels = [self.optimizer.kernel, *([sum_of_squares] if setting.clips else [])]

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``."""
        return self._node_sums.shares()

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``: sum, divide by ``weight``, update."""
        scale = 1.0 / weight
        if self._norm:
            for plan in self._gradients.plans:
                self._sum(plan)
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale, 1.0 / weight)
        for (start, stop), plan in zip(self._gradients.slices, self._gradients.plans, strict=True):
            if not self._norm:
                self._sum(plan)
            self.optimizer.update(self.parameters, self._gradients.result, start, stop)

    def own_vectors(self) -> int:
        """Parameters, the sum of all gradients, state, and sums of micro-batches on their way."""
        return 2 + len(self.optimizer.state) + self._node_sums.extra_count

    def _sum(self, plan: Any) -> None:
        self._clock.enter("communication")
        waited = plan.wait_seconds
        plan.run()
        self._clock.move("communication", "waiting", plan.wait_seconds - waited)
        self._clock.enter("compute")
