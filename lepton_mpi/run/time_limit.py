"""``--stop-before`` and ``--time-limit``: all ranks stop after the same step, save and end before the time is over.

The watchdog's thread of rank 0 looks at the time about once a second and, when it has come, does what a signal would do
(``world/stopping.py``). Until the checkpoint is there it may still take what is going on, such as an evaluation, then two steps, then
the saving: where the times observed in this run are longer than ``--stop-before``, the ranks stop sooner, and one line says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from lepton_mpi.batch_systems.time_left import program_age_seconds, time_left
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.duration import duration_text
from lepton_mpi.run.hook import QuietHook

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config
    from lepton_mpi.run.run import Run
    from lepton_mpi.world.rank_group import RankGroup

# Steps from the agreement to the stop; seconds until the watchdog looks, and ranks have ended.
_STEPS, _LOOK_SECONDS = 2, 2.0
# A warning for less would come of every busy machine.
_LESS_SECONDS = 1.0


class Saves(Protocol):
    """What writes checkpoints."""

    @property
    def save_seconds(self) -> float:
        """What the last one took, and what may have to be written before the next."""


class TimeLimit(QuietHook):
    """Observes how long steps, what follows an epoch, and checkpoints take. Behind the hooks that evaluate and save.

    Parameters
    ----------
    stop_at : callable
        Told when to stop, by ``time.monotonic``.
    ends_at : float
        The limit, likewise.
    before_seconds : float or None
        How long before it the ranks are to stop at the latest; None: so that they have ended by then.
    source : str
        Whose limit it is.
    """

    def __init__(
        self,
        stop_at: Callable[[float], None],
        ends_at: float,
        before_seconds: float | None,
        source: str,
    ) -> None:
        self._stop_at, self._ends_at, self._source = stop_at, ends_at, source
        self._before = before_seconds or 0.0
        self.saves: Saves | None = None
        self._since = math.nan
        self._step_seconds = self._epoch_seconds = self._save_seconds = 0.0
        self._has_warned = before_seconds is None
        stop_at(ends_at - self._before)

    def left_text(self) -> str:
        """How long before the limit it is now."""
        left = self._ends_at - monotonic()
        if left < 0:
            return f"{duration_text(-left)} after the time limit{self._source}"
        return f"{duration_text(left)} before the time limit{self._source}"

    def head(self, is_saved: bool) -> str:
        """What there is to say before the first step."""
        left = self._ends_at - monotonic()
        if left == math.inf:
            return "the job has no time limit"
        before = f"{duration_text(self._before)} " if self._before else ""
        text = f"{before}before the time limit{self._source}, which is in {duration_text(max(0.0, left))}"
        return text if is_saved else f"{text}; nothing is saved without --checkpoint"

    def before_epoch(self, run: Run) -> None:
        """Time begins."""
        self._since = monotonic()

    def after_step(self, run: Run) -> None:
        """The longest step counts, but for the first one of the run, and the longest checkpoint, which a thread may have written."""
        now = monotonic()
        is_longer = self._has_longer_save()
        if now - self._since > self._step_seconds and run.step > run.start.step + 1:
            self._step_seconds, is_longer = now - self._since, True
        if is_longer:
            self._adjust(run)
        self._since = now

    def after_epoch(self, run: Run) -> None:
        """Evaluation, checkpoint and the user's hooks, together."""
        self._epoch_seconds = max(self._epoch_seconds, monotonic() - self._since)
        self._has_longer_save()
        self._adjust(run)

    def needed_seconds(self) -> float:
        """From when the ranks are told to the end, at worst, by what was observed."""
        observed = self._epoch_seconds + self._save_seconds
        return _STEPS * self._step_seconds + observed + _LOOK_SECONDS

    def _has_longer_save(self) -> bool:
        """Whether a checkpoint took longer than any before."""
        before, now = self._save_seconds, self.saves.save_seconds if self.saves else 0.0
        self._save_seconds = max(before, now)
        return now > before

    def _adjust(self, run: Run) -> None:
        needed = self.needed_seconds()
        if needed > self._before:
            self._stop_at(self._ends_at - needed)
            if needed > self._before + _LOOK_SECONDS + _LESS_SECONDS and not self._has_warned:
                self._has_warned = True
                run.report.say("stop", self._warning(needed))

    def _warning(self, needed: float) -> str:
        parts = [f"a step takes {duration_text(self._step_seconds)}"]
        if self._epoch_seconds > _LESS_SECONDS:
            parts.append(f"what follows an epoch {duration_text(self._epoch_seconds)}")
        if self._save_seconds > _LESS_SECONDS:
            parts.append(f"a checkpoint {duration_text(self._save_seconds)}")
        return (
            f"{', '.join(parts)}: the ranks are told {duration_text(needed)} before the time limit, not "
            f"{duration_text(self._before)} (--stop-before)"
        )


def begin(config: Config, world: RankGroup) -> TimeLimit | None:
    """From now on the job stops before its time is over, also while it starts. Collective.

    Raises ConfigurationError where nothing says how long it may run, or where the hosts cannot agree.
    """
    stopping = world.stopping
    if config.stop_before is None and config.time_limit is None:
        if stopping is not None:
            stopping.stop_at(math.inf)  # of another run in this job
        return None
    found = (math.inf, "")
    with world.agreeing():
        if stopping is None or not world.can_agree_to_stop:
            raise ConfigurationError(
                "--stop-before, --time-limit: expected hosts that can connect to each other by TCP, to agree on the step to stop after"
            )
        if world.rank == 0:
            found = _limit(config)
    seconds, source = world.broadcast(found)
    return TimeLimit(stopping.stop_at, monotonic() + seconds, config.stop_before, source)


def _limit(config: Config) -> tuple[float, str]:
    """Seconds left, and what to add to "the time limit". Raises ConfigurationError."""
    if config.time_limit is not None:
        return max(0.0, config.time_limit - program_age_seconds()), ""
    found = time_left()
    if found is None:
        raise ConfigurationError(
            "--stop-before: expected a job of Slurm, PBS or LSF that says how long it may run, or --time-limit, got neither"
        )
    return found.seconds, f" of {found.source}"
