"""Synchronous data parallelism: sum the gradients of all ranks bucket by bucket, then update everywhere.

Every rank holds all parameters and all optimizer state, gets the same bits of the summed gradient, and
makes the same update; nothing needs to be sent back. Buckets go in index order, the last layer first.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from lepton_mpi.optimizers import Optimizer
from lepton_mpi.vectors import Layout
from lepton_mpi.watchdog import PhaseClock


class Plan(Protocol):
    """Sums one bucket over all ranks in place at every ``run``."""

    wait_seconds: float

    def run(self) -> None:
        """Sum once."""


class Synchronous:
    """Turns each rank's summed gradient into the same new parameters on every rank.

    Making one and stepping are collective over the world.

    Parameters
    ----------
    layout : Layout
    dtype : float32 or float64
    optimizer : Optimizer
    make_plan : callable(bucket) -> Plan
        ``bucket`` is a slice of ``gradient``, bound for good.
    bucket_bytes : int
    clock : PhaseClock

    Attributes
    ----------
    parameters, gradient : shape (layout.size,)
        The flat vectors; fill ``gradient`` with a sum over rows, then call ``step``.
    """

    def __init__(
        self,
        layout: Layout,
        dtype: np.dtype,
        optimizer: Optimizer,
        make_plan: Callable[[np.ndarray], Plan],
        bucket_bytes: int,
        clock: PhaseClock,
    ) -> None:
        self.parameters = np.zeros(layout.size, dtype)
        self.gradient = np.zeros(layout.size, dtype)
        self.optimizer = optimizer
        self.buckets = layout.buckets(max(1, bucket_bytes // self.gradient.itemsize))
        self._plans = [make_plan(self.gradient[start:stop]) for start, stop in self.buckets]
        self._clock = clock

    def step(self, step: int, row_count: int) -> None:
        """Sum, divide by ``row_count`` (the rows of all ranks), update. ``step`` counts from 1."""
        scale = 1.0 / row_count
        self.optimizer.begin_step(step)
        for (start, stop), plan in zip(self.buckets, self._plans, strict=True):
            self._clock.enter("communication")
            waited = plan.wait_seconds
            plan.run()
            self._clock.move("communication", "waiting", plan.wait_seconds - waited)
            self._clock.enter("compute")
            self.optimizer.update(self.parameters, self.gradient, start, stop, scale)
