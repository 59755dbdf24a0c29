"""Synchronous data parallelism where every rank has a copy of all parameters and of all state.

Every rank sees the same bits of the summed gradient and makes the same update; nothing needs to be sent back.
For algorithms that give each rank a sum of its own: MPI's Allreduce and the schedules over messages. Buckets go
in index order, the last layer first.
"""

import numpy as np

from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.sliced_sum import SlicedSum
from lepton_mpi.optimizers.optimizer import Optimizer, Settings, kind_of
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.strategies.strategy import Strategy
from lepton_mpi.vectors import Layout
from lepton_mpi.world.watchdog import PhaseClock


class Replicated(Strategy):
    """Turns the gradients of all micro-batches of a step into the same new parameters on every rank.

    Stepping is collective over the world. Attributes are those of ``SharedParameters``, but every rank fills
    its own parameters at the beginning.
    """

    is_shared, exchange_seconds = False, None

    def __init__(
        self,
        layout: Layout,
        gradients: SlicedSum,
        choice: Choice,
        settings: Settings,
        clock: PhaseClock,
        clip_norm: float,
    ) -> None:
        dtype = gradients.result.dtype
        self.parameters = np.zeros(layout.size, dtype)
        state = np.zeros((len(kind_of(settings)[1]), layout.size), dtype)
        self.optimizer = Optimizer(settings, layout, dtype, state)
        self.micro_batches = NodeSums(layout, gradients.nodes, gradients.inputs)
        self.vector_counts: dict[str, int] = {}  # all of it is each rank's own
        self.choice = choice
        self.bucket_count = len(gradients.slices)
        self._gradients, self._clock, self._clip_norm = gradients, clock, clip_norm
        self._norm = None if clip_norm == float("inf") else ReplicatedNorm(gradients.result)

    def step(self, step: int, row_count: int) -> None:
        """Sum, divide by ``row_count`` (the rows of all ranks), update. ``step`` counts from 1."""
        scale = 1.0 / row_count
        if self._norm:
            for plan in self._gradients.plans:
                self._sum(plan)
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale)
        for (start, stop), plan in zip(self._gradients.slices, self._gradients.plans, strict=True):
            if not self._norm:
                self._sum(plan)
            self.optimizer.update(self.parameters, self._gradients.result, start, stop)

    def _sum(self, plan) -> None:
        self._clock.enter("communication")
        waited = plan.wait_seconds
        plan.run()
        self._clock.move("communication", "waiting", plan.wait_seconds - waited)
        self._clock.enter("compute")
