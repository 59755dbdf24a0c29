"""Which epoch was the best so far, by a score of the validation rows: it is kept, it is given back, and it ends a run that no longer improves.

    --keep-best SCORE       FOLDER/best.h5, a checkpoint of the best epoch, beside those of the last ones
    --early-stop N[,DELTA]  ends the run when the score was not better by more than DELTA for N epochs, as Keras' EarlyStopping
    --restore-best          the run ends with the parameters of best.h5: its test figures and its digest are theirs

A score is the same number on all ranks, so they decide alike. What was found so far stands in every checkpoint (attribute ``best``,
JSON), written after ``best.h5``. A run that goes on from before the epoch of ``best.h5`` trains that epoch again and finds the same.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.early_stop import EarlyStop
from lepton_mpi.run import checkpoint, resume, resumed_options
from lepton_mpi.run.hook import QuietHook
from lepton_mpi.wording import did_you_mean, one_line

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config
    from lepton_mpi.run.run import Run
    from lepton_mpi.tasks.task import Task

FILE = "best.h5"


@dataclass(frozen=True)
class Best:
    """What is known after an epoch.

    Attributes
    ----------
    score : str
        Name of the figure, of the task's ``better``.
    value, epoch : float, int
        The best and its epoch, from 1; NaN and 0 before there is one. Of equal ones the first.
    digest : str
        Of the parameters of that epoch, where they were saved.
    reference, waited : float, int
        The value that an epoch must beat by more than the delta, and the epochs that have not, for ``--early-stop``.
    part, flat : float, int
        Of ``--schedule plateau``: what the learning rate is multiplied by, and the epochs since the best or the last reduction.
    """

    score: str
    value: float = math.nan
    epoch: int = 0
    digest: str = ""
    reference: float = math.nan
    waited: int = 0
    part: float = 1.0
    flat: int = 0

    def after(self, value: float, epoch: int, is_lower: bool, delta: float) -> Best:
        """With the score of one epoch more; NaN is worse than any number."""
        value = float(value)
        found = dataclasses.replace(self, flat=self.flat + 1)
        if _is_better(value, self.value, is_lower, 0.0):
            found = dataclasses.replace(found, value=value, epoch=epoch, digest="", flat=0)
        if _is_better(value, self.reference, is_lower, delta):
            return dataclasses.replace(found, reference=value, waited=0)
        return dataclasses.replace(found, waited=self.waited + 1)

    def reduced(self, patience: int, factor: float) -> Best:
        """With a lower learning rate after more than ``patience`` epochs that were not the best, as ReduceLROnPlateau counts."""
        if self.flat <= patience:
            return self
        return dataclasses.replace(self, part=self.part * factor, flat=0)

    def attribute(self) -> dict[str, str]:
        """For a checkpoint."""
        return {"best": json.dumps(dataclasses.asdict(self))}

    def result(self) -> dict[str, Any]:
        """For what ``fit`` returns and the metrics file; nothing before there is a best epoch."""
        if not self.epoch:
            return {}
        return {"best_epoch": self.epoch, "best_score": self.score, "best_value": self.value}

    @staticmethod
    def of(attributes: dict[str, Any], path: Path | None) -> Best | None:
        """That of a checkpoint; None if it has none. Whoever wrote the file may have written anything: raises DataError."""
        text = attributes.get("best")
        if text is None:
            return None
        try:
            values = json.loads(text)
            found = Best(**values)
            kinds = {field.name: type(field.default) for field in dataclasses.fields(Best)[1:]}
            if not isinstance(found.score, str) or any(
                type(values[name]) is not kind for name, kind in kinds.items()
            ):
                raise ValueError("expected numbers and texts")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"{path}: attribute best: {one_line(error)}") from None
        return found


def _is_better(value: float, than: float, is_lower: bool, delta: float) -> bool:
    if math.isnan(value):
        return False
    gain = than - value if is_lower else value - than
    return math.isnan(than) or gain > delta


def is_wanted(config: Config) -> bool:
    """Whether any option needs to know the best epoch."""
    return bool(config.keep_best or config.early_stop or config.schedule == "plateau")


def score_of(config: Config, task: Task) -> str:
    """The figure that decides; without a name that of the task. Raises ConfigurationError."""
    asked = config.keep_best
    if asked in (None, "auto"):
        return task.score
    name = str(asked).removeprefix("val_")
    if name not in task.better:
        known = ", ".join(["auto", *task.better])
        raise ConfigurationError(
            f"--keep-best: expected one of {known}, as these data have figures, got {one_line(asked)}"
            f"{did_you_mean(name, list(task.better))}"
        )
    return name


def _check(run: Run, score: str) -> None:
    """Raises ConfigurationError where no epoch can have a score."""
    config = run.config
    flag = "--keep-best" if config.keep_best else "--early-stop"
    flag = "--schedule plateau" if config.schedule == "plateau" else flag
    if not run.model.evaluates:
        raise ConfigurationError(
            f"{flag}: expected a model that evaluates, got {resume.name_of(run.model)}, which has no evaluate"
        )
    if not run.data.splits["validation"].row_count:
        raise ConfigurationError(
            f"{flag}: expected validation rows, whose {score} decides, got none; --validation-split 0.2 holds some of the training rows out"
        )


class KeepBest(QuietHook):
    """Compares every epoch's score with the best, behind ``Validation`` and before checkpoints are written."""

    def __init__(self, run: Run) -> None:
        config = run.config
        with run.world.agreeing():
            self._score = score_of(config, run.task)
            _check(run, self._score)
        self._is_lower = run.task.better[self._score] == "lower"
        self._stop = EarlyStop.of(config.early_stop) if config.early_stop else None
        self._path = Path(config.checkpoint or "") / FILE if config.keep_best else None
        run.best = self._begin(run)
        run.rate.part, run.is_over = run.best.part, self._is_over(run.best)
        if run.is_over and run.world.rank == 0:
            run.checkpoint = run.start.path  # nothing is left to train

    def after_epoch(self, run: Run) -> None:
        """The same on every rank."""
        before = run.best or Best(self._score)
        value = run.validation.get(self._score)
        value = math.nan if value is None else float(value)
        delta = self._stop.delta if self._stop else 0.0
        now = before.after(value, run.epoch, self._is_lower, delta)
        if run.config.schedule == "plateau":
            now = now.reduced(run.config.schedule_epochs, run.config.schedule_factor)
            if now.part != before.part:
                rate = f"{run.rate.schedule.peak * now.part:.3g}"
                run.report.say(
                    "rate",
                    f"{rate} from epoch {run.epoch + 1}: no better {self._score} for {before.flat + 1} epochs",
                )
            run.rate.part = now.part
        if self._path and now.epoch == run.epoch:
            now = self._save(run, now)
        run.best, run.is_over = now, self._is_over(now)

    def at_end(self, run: Run) -> None:
        """Says which epoch was the best, and puts its parameters back if that is asked for. Collective."""
        best = run.best
        if best is None or not best.epoch:
            run.report.say("best", f"none: no epoch had a validation {self._score}")
            return
        last = max(run.epoch, run.start.epoch - 1)
        where = f", {self._path}" if self._path else ""
        text = f"epoch {best.epoch} of {last}: validation {self._score} {best.value:.4f}{where}"
        if run.is_over and self._stop and last < run.config.epoch_count:
            text += f"; ended early, {best.waited} epochs without a better one"
        if run.config.restore_best and not best.digest:
            text += "; its parameters could not be written, and are not put back"
        elif run.config.restore_best:
            self._restore(run, best)
            text += "; its parameters are put back"
        run.report.say("best", text)
        run.result |= best.result()

    def _is_over(self, best: Best) -> bool:
        return self._stop is not None and best.waited >= self._stop.epochs

    def _begin(self, run: Run) -> Best:
        """What the run goes on with. Rank 0 looks at the file. Collective."""
        found, note = Best(self._score), ""
        with run.world.agreeing():
            if run.world.rank == 0:
                found, note = self._found(run, found)
        found, note = run.world.broadcast((found, note))
        if note:
            run.report.say("best", note)
        return found

    def _found(self, run: Run, nothing: Best) -> tuple[Best, str]:
        before = Best.of(run.start.attributes, run.start.path)
        if before is None:
            return nothing, ""
        if before.score != self._score:
            return nothing, f"counts anew: it was by {one_line(before.score)}"
        if not self._path or not before.epoch:
            return before, ""
        places = [self._path]
        if run.start.path:
            places.append(run.start.path.with_name(FILE))
        for place in places:
            if _has(place, before.digest):
                if place != self._path:
                    shutil.copyfile(place, self._path)
                return before, ""
        if any(self._will_write_again(run, place, before) for place in places):
            return before, ""
        return dataclasses.replace(before, value=math.nan, epoch=0, digest=""), (
            f"counts anew: {self._path} is not that of epoch {before.epoch}, which the run had kept"
        )

    def _will_write_again(self, run: Run, place: Path, before: Best) -> bool:
        """Whether a file is of an epoch that this run trains again, and that is better than what it goes on with."""
        try:
            checkpoint.verify(place)
            found, _ = checkpoint.read_attributes(place)
            then = Best.of(found, place)
            configuration = checkpoint.configuration(found, place)
            resumed_options.choose(run.config, None, configuration, place)
        except (DataError, ConfigurationError):
            return False
        if then is None or self._is_over(before) or not run.strategy.reproducible:
            return False
        return (
            then.score == before.score
            and run.start.epoch <= then.epoch == found["epoch"] <= run.config.epoch_count
            and found.get("order") == json.dumps(run.order)
            and _is_better(then.value, before.value, self._is_lower, 0.0)
        )

    def _save(self, run: Run, now: Best) -> Best:
        """Write ``best.h5``: a checkpoint like any other. Collective."""
        assert self._path is not None
        run.world.clock.enter("checkpoint")
        run.strategy.collect()
        sums, digest = run.total(), ""
        with run.world.agreeing():
            if run.world.rank == 0:
                digest = run.layout.digest(run.strategy.consensus())
                now = dataclasses.replace(now, digest=digest)
                run.best = now
                assert run.folder
                line = ""
                # The file of a checkpoint that is kept is that of its best epoch, which is this one or one that comes again.
                if not (run.folder.has(run.step) and self._path.exists()):
                    line = run.folder.save_as(FILE, resume.checkpoint_of(run, sums, digest))
                if run.folder.lacks(FILE):
                    now = dataclasses.replace(now, digest="")
                if line:
                    run.report.say("best", line)
        return run.world.broadcast(now)

    def _restore(self, run: Run, best: Best) -> None:
        """Fill the run's parameters with those of the best epoch. Collective."""
        world, parameters = run.world, run.strategy.parameters
        assert self._path is not None
        world.clock.enter("checkpoint")
        with world.agreeing():
            if world.local_rank == 0 or not run.strategy.is_shared:
                saved = checkpoint.load(self._path)
                if run.layout.digest(saved.parameters) != best.digest:
                    raise DataError(
                        f"{self._path}: expected the parameters of epoch {best.epoch}, got others: another run has written there"
                    )
                parameters[:] = saved.parameters
        world.agree_on("the digest of the best parameters", run.layout.digest(parameters))


def _has(path: Path, digest: str) -> bool:
    """Whether a file is a whole checkpoint with these parameters."""
    try:
        checkpoint.verify(path)
        found, _ = checkpoint.read_attributes(path)
    except DataError:
        return False
    return bool(found.get("weights_digest") == digest)
