"""What a run writes of every epoch for other programs: a row for ``--csv``, scalars for ``--tensorboard``.

Both get the same numbers: the epoch's figures as its line has them, the learning rate of its last step, and the share of each phase in the
time of its steps, mean over ranks. Rank 0 writes; errors are agreed on, so that no rank waits for one that has failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lepton_mpi.run.csv_table import CsvTable
from lepton_mpi.run.hook import QuietHook
from lepton_mpi.run.per_rank import STEP_PHASES
from lepton_mpi.run.progress import EpochWatch, SoFar, Ticks
from lepton_mpi.run.tensorboard import TensorBoard

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config
    from lepton_mpi.run.resume import Start
    from lepton_mpi.run.run import Run
    from lepton_mpi.world.world import World

# Between what is written within an epoch.
_SECONDS = 10.0


class Sink(Protocol):
    """Where rank 0 writes. Each call raises LeptonError where that is not possible."""

    def epoch_goes_on(self, now: SoFar, step: int, learning_rate: float) -> None:
        """In the middle of an epoch, after ``step`` of the run."""

    def epoch_ends(self, values: Mapping[str, float]) -> None:
        """All numbers of an epoch, the same names every time; ``epoch`` and ``step`` are whole."""

    def close(self) -> None:
        """Nothing comes any more."""


class Records(QuietHook):
    """Collective over the run's ranks; ``sinks`` are empty on all but rank 0."""

    def __init__(self, run: Run, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        for sink in sinks:
            run.ends.callback(sink.close)
        self._ticks = Ticks(_SECONDS) if sinks else None
        self._watch = EpochWatch()

    def before_epoch(self, run: Run) -> None:
        """Begin to count."""
        self._seconds = _phases(run)
        if self._ticks:
            self._ticks.begin()
            self._watch.begin(run)

    def after_step(self, run: Run) -> None:
        """What is known so far, now and then."""
        if self._ticks and self._ticks.is_due():
            now = self._watch.look(run)
            for sink in self._sinks:
                sink.epoch_goes_on(now, run.step, run.rate(run.step))

    def after_epoch(self, run: Run) -> None:
        """A row."""
        spent = run.world.sum(_phases(run) - self._seconds)
        shares = (spent / (spent.sum() or 1.0)).tolist()
        values: dict[str, float] = {
            **{"epoch": run.epoch, "step": run.step, **run.figures},
            "learning_rate": run.rate(max(1, run.step)),
            "evaluation_seconds": run.evaluation_seconds,
            **{f"{name}_share": s for name, s in zip(STEP_PHASES, shares, strict=True)},
        }
        self._watch.end(run)
        with run.world.agreeing():
            for sink in self._sinks:
                sink.epoch_ends(values)


def open_sinks(config: Config, world: World, start: Start) -> list[Sink]:
    """Those that are asked for, on rank 0. Collective. Raises LeptonError on every rank, before the first step."""
    sinks: list[Sink] = []
    appends = start.appends(config)
    with ExitStack() as opened, world.agreeing():
        if world.rank == 0 and config.csv:
            sinks.append(CsvTable(config.csv, start.epoch if appends else None))
            opened.callback(sinks[-1].close)
        if world.rank == 0 and config.tensorboard:
            sinks.append(TensorBoard(config.tensorboard, start.step if appends else None))
        opened.pop_all()
    return sinks


def _phases(run: Run) -> np.ndarray:
    seconds = run.phase_seconds()
    return np.array([seconds[name] for name in STEP_PHASES])
