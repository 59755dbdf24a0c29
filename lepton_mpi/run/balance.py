"""``--balance auto``: ranks that are faster compute more of a step's micro-batches.

With ``sync`` and ``delayed`` a step's gradients are added up in one order, whoever computes them, so the weights keep their bits. Every rank measures its
seconds for a micro-batch; after some steps all of them give theirs away, and each works out the same new shares, the ones
whose slowest rank is done first. They are taken if that gains enough, in the middle of an epoch, without a new start: the
strategy makes its memory for gradients anew, and the loader begins where it was with the rank's new micro-batches.
"""

import statistics
from collections.abc import Sequence
from contextlib import closing
from itertools import accumulate

import numpy as np

from lepton_mpi.data.batches import MicroBatchReader
from lepton_mpi.data.reads import TrainingReads
from lepton_mpi.run.hook import QuietHook
from lepton_mpi.run.run import Run

# Steps whose times are not looked at, since memory is new, and those that are, before shares are thought over.
_STEPS_BEFORE, _STEPS_OF_LOOK = 3, 16
# What the slowest rank's time must fall to, so that noise alone changes nothing.
_GAIN = 0.9


class Balance(QuietHook):
    """The hook of ``--balance auto``, for a strategy that can share out."""

    def __init__(self, run: Run) -> None:
        self._seconds: list[float] = []
        self._before, self._steps = 0.0, 0
        self._costs = np.zeros(run.world.size)

    def before_epoch(self, run: Run) -> None:
        """Evaluation is no part of a step."""
        self._before = _spent(run)

    def after_step(self, run: Run) -> None:
        """Look at the step's time; once there are enough of them, all ranks think."""
        now, self._steps = _spent(run), self._steps + 1
        if self._steps > _STEPS_BEFORE:
            self._seconds.append(now - self._before)
        # New reads begin in the middle of an epoch.
        if len(self._seconds) >= _STEPS_OF_LOOK and run.position < run.steps_per_epoch:
            self._think(run)
            self._seconds.clear()
            now = _spent(run)
        self._before = now

    def _think(self, run: Run) -> None:
        world = run.world
        held = np.zeros((2, world.size))
        own = len(run.strategy.numbers)
        held[:, world.place] = own, statistics.median(self._seconds) / max(1, own)
        shares, costs = world.sum(held)
        # Of a rank that has computed nothing, what it was before; never tried: as fast as the others.
        seen = np.where(shares > 0, costs, self._costs)
        self._costs = np.where(seen > 0, seen, np.median(seen[seen > 0]))
        best = better_shares(shares, self._costs)
        if best is not None:
            share_out(run, list(accumulate(best.tolist(), initial=0)))
            text = " ".join(map(str, best.tolist()))
            run.report.say(
                "balance",
                f"from step {run.step + 1} on ranks compute {text} of {run.micro_batches.count} micro-batches",
            )
            run.report.record("balance", step=run.step, micro_batches=best.tolist())
            self._steps = 0


def better_shares(shares: np.ndarray, costs: np.ndarray) -> np.ndarray | None:
    """The best shares of as many micro-batches as ``shares`` are, or None if they gain less than a tenth of the step.

    >>> better_shares(np.array([5, 5]), np.array([1.0, 1.1])) is None
    True
    >>> better_shares(np.array([5, 5]), np.array([1.0, 3.0]))
    array([8, 2])
    """
    best = best_shares(int(shares.sum()), costs.tolist())
    return best if max(best * costs) < _GAIN * max(shares * costs) else None


def best_shares(count: int, costs: Sequence[float]) -> np.ndarray:
    """How many of ``count`` micro-batches each place takes, so that the last is done first; int64, shape (places,).

    ``costs`` are the places' seconds for one, above 0. Each goes to the place that would be done with it first.

    >>> best_shares(10, [1.0, 1.0, 1.0, 3.0])
    array([3, 3, 3, 1])
    """
    shares = np.zeros(len(costs), np.int64)
    for _ in range(count):
        shares[np.argmin((shares + 1) * np.asarray(costs))] += 1
    return shares


def share_out(run: Run, bounds: list[int]) -> None:
    """Place p computes micro-batches [bounds[p], bounds[p + 1]) from the next step on. Collective, after a step within an epoch."""
    run.strategy.share_out(bounds)
    run.reads.close()
    epochs = range(run.epoch, run.config.epoch_count + 1)
    reads = TrainingReads(
        *(run.train_rows, run.shuffle, run.strategy.numbers, epochs),
        *(run.position, run.reader.rows_together, run.world),
    )
    run.reads = run.ends.enter_context(closing(reads))
    run.reads.begin_epoch(run.epoch)
    run.inputs = MicroBatchReader(run.reads, run.reader)
    if run.strategy.weighed is not None:
        run.weighed = run.reads.step_weights(run.epoch, run.strategy.weighed)


def _spent(run: Run) -> float:
    """Seconds of this rank's own work so far: computation, and reading its rows."""
    clock = run.world.clock
    clock.enter("compute")
    return clock.seconds["compute"] + clock.seconds["input"]
