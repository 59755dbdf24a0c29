"""The points of ``fault_points`` that are in a run's steps; the hook is there only where LEPTON_FAULT asks for one of them."""

from collections.abc import Callable
from typing import Any

from lepton_mpi import fault_points
from lepton_mpi.run.hook import QuietHook, weak
from lepton_mpi.run.run import Run


def hooks_for(run: Run) -> list[QuietHook]:
    """None, as a rule. Says what will happen, on rank 0. Raises ConfigurationError."""
    faults = fault_points.wanted()
    for fault in faults:
        run.report.say("fault", f"{fault} ({fault_points.VARIABLE})")
    return [Faults(run)] if faults else []


class Faults(QuietHook):
    """To be the first of the hooks, so that a step's fault comes before its checkpoint."""

    def __init__(self, run: Run) -> None:
        self._run, self._read = weak(run), 0
        # Of this run alone, whose parts they are.
        self._put(run.inputs, "next", self._before_reading)
        self._put(run.strategy, "step", self._before_exchange)

    def _put(self, part: Any, method: str, before: Callable[[], None]) -> None:
        whole = getattr(part, method)

        def called(*arguments: Any) -> Any:
            before()
            return whole(*arguments)

        setattr(part, method, called)

    def _before_reading(self) -> None:
        if self._read != self._run.step:
            self._read = self._run.step
            fault_points.reached("input", self._read)

    def _before_exchange(self) -> None:
        fault_points.reached("exchange", self._run.step)

    def after_step(self, run: Run) -> None:
        """Before the other hooks."""
        fault_points.reached("step", run.step)

    def after_epoch(self, run: Run) -> None:
        """Before the epoch's figures, evaluation and checkpoint."""
        fault_points.reached("epoch", run.step)

    def at_end(self, run: Run) -> None:
        """Before the test rows are looked at."""
        fault_points.reached("end", run.step)
