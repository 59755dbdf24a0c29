"""A hook that notes when each step was made, in the file that a variable names: a line with seconds, step and ranks, by rank 0."""

import os
import time

from lepton_mpi import QuietHook

NOTES = "LEPTON_BENCH_NOTES"


class StepNotes(QuietHook):
    """Of a run; of one that goes on without lost ranks, behind what is there."""

    def __init__(self, run) -> None:
        self._file = None
        if run.world.rank == 0:
            self._file = open(os.environ[NOTES], "a", buffering=1)  # noqa: SIM115  # as long as the run

    def after_step(self, run) -> None:
        """A line."""
        if self._file:
            self._file.write(f"{time.monotonic():.6f} {run.step} {run.world.size}\n")
