"""Whether new parameters are stored past the caches: tried out now and then by the time of whole steps.

A core that stores to lines which other cores have read waits until they have dropped them, line after line; past the caches
it need not wait, but everybody reads the lines from memory next. Which costs less depends on whether the cores share a cache
(``./run_local.sh bench core_to_core``), and on a virtual machine it changes. The result is the same, bit by bit, so that
every rank may choose for itself, and again when it has moved.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

# Steps from one trial to the next, and of each half of a trial.
PERIOD, TRIAL = 2048, 16


class StoreChoice:
    """Call ``next`` once a step, before the update.

    Parameters
    ----------
    clock : callable () -> float
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock, self._last, self._step = clock, clock(), 0
        self._is_past, self._times = False, ([], [])

    def next(self) -> bool:
        """Whether to store past the caches in this step."""
        place = self._step % PERIOD
        self._step += 1
        if place > 2 * TRIAL:
            return self._is_past
        now = self._clock()
        took, self._last = now - self._last, now
        if place % TRIAL:  # the step before was one of this half
            self._times[self._is_past].append(took)
        elif place < 2 * TRIAL:
            self._is_past = place == TRIAL
        else:
            self._is_past = median(self._times[True]) < median(self._times[False])
            self._times = [], []
        return self._is_past
