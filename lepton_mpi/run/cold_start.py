"""The kernels of a run, compiled before it begins, by its ranks side by side; said once, if there is anything to say."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.kernels.queue import compile_together, missing

if TYPE_CHECKING:
    from lepton_mpi.run.report import Report
    from lepton_mpi.world.world import World


class ColdStart:
    """Makes kernels ready as it becomes known which ones a run will call.

    Parameters
    ----------
    dtype : float32 or float64
        The run's.
    """

    def __init__(self, world: World, dtype: np.dtype, report: Report) -> None:
        self._world, self._dtype, self._report = world, dtype, report
        self._count, self._seconds = 0, 0.0

    def compile(self, kernels: Iterable[Kernel]) -> None:
        """Return once all are compiled and loaded. Every rank calls it; none waits for another that does not."""
        began, left = perf_counter(), missing(kernels, self._dtype)
        if left and not self._count:
            self._report.say("kernels", "being compiled for this processor, only once")
        # Each counts as progress, for the time limit.
        clock = self._world.clock
        compile_together(left, self._world.cores, lambda: clock.enter("start"))
        if left:
            self._count += len(left)
            self._seconds += perf_counter() - began

    def say_end(self) -> None:
        """How many there were, and how long it took; nothing if all were there."""
        if self._count:
            self._report.say("kernels", f"{self._count} compiled in {self._seconds:.1f} s")
