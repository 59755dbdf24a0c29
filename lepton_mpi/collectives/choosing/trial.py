"""Which of several ways to do a step is the fastest here and now: tried out now and then by the time of whole steps.

All ways give the same result, bit by bit, so that every rank may choose for itself, and again when it has moved.
What is tried is in ``strategies/shared_parameters.py`` and ``collectives/within_host/plans.py``.
"""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Generic, TypeVar

# Steps from one trial to the next, and for a training's: for each way, and before the first one, whose steps tell little.
PERIOD, TRIAL, BEFORE = 2048, 16, 32

_Way = TypeVar("_Way")


class Trial(Generic[_Way]):
    """Call ``next`` once a step.

    Parameters
    ----------
    ways : 1 to PERIOD / trial / 2 of them
        The first is taken until the first trial.
    clock : callable () -> float
        Seconds.
    before, trial : int
        Steps before the first trial, and of each way in a trial.

    Attributes
    ----------
    steps_to_settle : int
        Steps until the first trial is over.
    """

    def __init__(
        self,
        ways: Sequence[_Way],
        clock: Callable[[], float] = perf_counter,
        before: int = BEFORE,
        trial: int = TRIAL,
    ) -> None:
        self._ways, self._clock, self._before, self._trial = ways, clock, before, trial
        self._chosen, self._last, self._step = 0, clock(), 0
        self._times: list[list[float]] = [[] for _ in ways]
        self._length = len(ways) * trial if len(ways) > 1 else 0
        self.steps_to_settle = before + self._length if self._length else 0

    def next(self) -> _Way:
        """The way for this step."""
        place = (self._step - self._before) % PERIOD
        self._step += 1
        if not self._length or place > self._length:
            return self._ways[self._chosen]
        now = self._clock()
        took, self._last = now - self._last, now
        if place % self._trial:  # the step before was one of the same way
            self._times[self._chosen].append(took)
        elif place < self._length:
            self._chosen = place // self._trial
        else:
            medians = [median(times) for times in self._times]
            self._chosen = medians.index(min(medians))
            for times in self._times:
                times.clear()
        return self._ways[self._chosen]
