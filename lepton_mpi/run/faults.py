"""The points of ``fault_points`` that are in a run's steps; the hook is there only where LEPTON_FAULT asks for one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lepton_mpi import fault_points
from lepton_mpi.run.hook import QuietHook, weak

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run


def hooks_for(run: Run) -> list[Faults]:
    """Make ``run.faults``, if one is asked for; says what will happen, on rank 0. Raises ConfigurationError."""
    faults = fault_points.wanted()
    for fault in faults:
        run.report.say("fault", f"{fault} ({fault_points.VARIABLE})")
    run.faults = Faults(run) if faults else None
    return [run.faults] if run.faults else []


class Faults(QuietHook):
    """To be the first of the hooks, so that a step's fault comes before its checkpoint."""

    def __init__(self, run: Run) -> None:
        self._run, self._read = weak(run), 0

    def before_reading(self) -> None:
        """Before this rank's rows of a step."""
        if self._read != self._run.step:
            self._read = self._run.step
            fault_points.reached("input", self._read)

    def guarding(self, step: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """``step``, with the point before it."""

        def reached(number: int, weight: int) -> None:
            fault_points.reached("exchange", self._run.step)
            step(number, weight)

        return reached

    def after_step(self, run: Run) -> None:
        """Before the other hooks."""
        fault_points.reached("step", run.step)

    def after_epoch(self, run: Run) -> None:
        """Before the epoch's figures, evaluation and checkpoint."""
        fault_points.reached("epoch", run.step)

    def at_end(self, run: Run) -> None:
        """Before the test rows are looked at."""
        fault_points.reached("end", run.step)
