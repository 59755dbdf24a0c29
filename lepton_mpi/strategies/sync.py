"""Synchronous data parallelism: sum the gradients of all ranks bucket by bucket, then update everywhere.

Every rank holds all parameters and all optimizer state, sees the same bits of the summed gradient, and
makes the same update; nothing needs to be sent back. Buckets go in index order, the last layer first.
"""

import numpy as np

from lepton_mpi.collectives.sliced_sum import SlicedSum
from lepton_mpi.optimizers import Optimizer
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.vectors import Layout
from lepton_mpi.watchdog import PhaseClock


class Synchronous:
    """Turns the gradients of all micro-batches of a step into the same new parameters on every rank.

    Stepping is collective over the world.

    Parameters
    ----------
    layout : Layout
    gradients : SlicedSum
        Its slices are the buckets.
    optimizer : Optimizer
    clock : PhaseClock

    Attributes
    ----------
    parameters : shape (layout.size,)
    micro_batches : NodeSums
        Iterate over it and fill each vector with the summed gradient of that micro-batch, then ``step``.
    """

    def __init__(
        self, layout: Layout, gradients: SlicedSum, optimizer: Optimizer, clock: PhaseClock
    ) -> None:
        self.parameters = np.zeros(layout.size, gradients.result.dtype)
        self.micro_batches = NodeSums(layout, gradients.nodes, gradients.inputs)
        self.gradients, self.optimizer = gradients, optimizer
        self._clock = clock

    def step(self, step: int, row_count: int) -> None:
        """Sum, divide by ``row_count`` (the rows of all ranks), update. ``step`` counts from 1."""
        scale = 1.0 / row_count
        self.optimizer.begin_step(step)
        for (start, stop), plan in zip(self.gradients.slices, self.gradients.plans, strict=True):
            self._clock.enter("communication")
            waited = plan.wait_seconds
            plan.run()
            self._clock.move("communication", "waiting", plan.wait_seconds - waited)
            self._clock.enter("compute")
            self.optimizer.update(self.parameters, self.gradients.result, start, stop, scale)
