"""How far an epoch has come, in the middle of it: what rank 0 knows without asking another rank, so that nobody waits for it.

Speed and time left are of all ranks, who make the same steps. Figures and the share of waiting are rank 0's own: the figures are means
over the rows of its micro-batches, an even sample of the epoch's.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from lepton_mpi.run.hook import QuietHook
from lepton_mpi.run.per_rank import STEP_PHASES

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run

# Between looks at the clock: many steps are shorter than a look is worth.
_LOOK_SECONDS, _LOOK_STEPS_MAX = 0.05, 1000


class SoFar(NamedTuple):
    """In the middle of an epoch.

    Attributes
    ----------
    epoch, epochs, step, steps : int
        Steps of this epoch that are made, and all of it.
    samples_per_second : float
        Of this epoch, all ranks together.
    waiting : float
        Share of rank 0's time in this epoch's steps.
    seconds_left : float or None
        Until the run's last epoch has ended, evaluation included, if all go on like this.
    figures : dict of str to float
        Of training in this epoch so far, rank 0's rows.
    before : dict of str to float
        Of the validation rows, after the epoch before.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    samples_per_second: float
    waiting: float
    seconds_left: float | None
    figures: dict[str, float]
    before: dict[str, float]


class EpochWatch:
    """Makes ``SoFar`` of a run: ``begin`` before every epoch, ``end`` after it, ``look`` in between. Rank 0 alone."""

    def __init__(self) -> None:
        self._first, self._began, self._overhead = 0, 0.0, 0.0
        self._validation: dict[str, float] = {}

    def begin(self, run: Run) -> None:
        """The epoch's first step comes."""
        now = perf_counter()
        if self._began:  # what an epoch takes beside its steps
            self._overhead = now - self._began - run.history[-1]["seconds"] if run.history else 0.0
        self._began, self._first = now, run.position
        self._phases = run.phase_seconds()
        self._mark(run)

    def end(self, run: Run) -> None:
        """The figures of the epoch are there."""
        self._validation = {
            name: value for name, value in run.figures.items() if name.startswith("val_")
        }

    def look(self, run: Run) -> SoFar:
        """After a step."""
        seconds, steps = perf_counter() - self._began, run.position - self._first
        rows = run.rows_used - self._first * run.config.batch_rows
        return SoFar(
            *(run.epoch, run.config.epoch_count, run.position, run.steps_per_epoch),
            *(rows / seconds, self._waiting(run), self._left(run, seconds / steps)),
            *(self._figures(run), self._validation),
        )

    def _left(self, run: Run, step_seconds: float) -> float:
        epochs = run.config.epoch_count - run.epoch
        steps = run.steps_per_epoch * (epochs + 1) - run.position
        return steps * step_seconds + epochs * self._overhead

    def _waiting(self, run: Run) -> float:
        now = run.phase_seconds()
        spent = {name: now[name] - self._phases[name] for name in STEP_PHASES}
        return spent["waiting"] / (sum(spent.values()) or 1.0)

    def _mark(self, run: Run) -> None:
        """Figures begin here: with the epoch, or where this rank was given other micro-batches."""
        self._numbers, self._from = list(run.strategy.numbers), run.position
        self._loss, self._correct = run.loss, run.correct
        self._weights: list[int] = []

    def _figures(self, run: Run) -> dict[str, float]:
        if self._numbers != list(run.strategy.numbers):
            self._mark(run)
        if not self._weights:
            self._weights = run.reads.step_weights(run.epoch, self._numbers)
        weight = sum(self._weights[self._from : run.position])
        if not weight:
            return {}
        loss, correct = run.loss - self._loss, run.correct - self._correct
        return run.task.training_figures(loss, correct, weight)


class Ticks:
    """Says after which steps it is worth while to look: about every ``seconds``, without a look at the clock after each step."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left = self._taken = 1
        self._looked = self._due = 0.0

    def begin(self) -> None:
        """An epoch begins."""
        self._left = self._taken = 1
        self._looked = perf_counter()
        self._due = self._looked + self._seconds

    def is_due(self) -> bool:
        """Call it after every step."""
        self._left -= 1
        if self._left:
            return False
        now = perf_counter()
        step_seconds = max((now - self._looked) / self._taken, 1e-9)
        # Twice as many at most: the first step may have been a short one.
        steps = min(int(_LOOK_SECONDS / step_seconds), 2 * self._taken, _LOOK_STEPS_MAX)
        self._left = self._taken = max(1, steps)
        self._looked = now
        if now < self._due:
            return False
        self._due = now + self._seconds
        return True


class Progress(QuietHook):
    """What is shown during an epoch, and its line on screen and in the metrics file."""

    def __init__(self, run: Run) -> None:
        seconds = run.report.progress_seconds
        self._ticks = Ticks(seconds) if seconds else None
        self._watch = EpochWatch()

    def before_epoch(self, run: Run) -> None:
        """Begin to count."""
        if self._ticks:
            self._ticks.begin()
            self._watch.begin(run)

    def after_step(self, run: Run) -> None:
        """Show where the run is, now and then; the epoch's last step is shown by its line."""
        if self._ticks and self._ticks.is_due() and run.position < run.steps_per_epoch:
            run.report.epoch_goes_on(self._watch.look(run))

    def after_epoch(self, run: Run) -> None:
        """Print the figures that the hooks before have found."""
        rate = run.rate(max(1, run.step))
        run.report.epoch_ends(
            *(run.epoch, run.config.epoch_count, run.figures),
            learning_rate=rate,
            evaluation_seconds=run.evaluation_seconds,
        )
        run.history.append({"epoch": run.epoch, "learning_rate": rate, **run.figures})
        self._watch.end(run)
