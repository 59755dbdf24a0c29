"""The hooks of every run, in the order in which they are called: figures, validation, checkpoints, the end; ``progress.py`` has the epoch's line."""

from math import inf, isnan, nan
from time import perf_counter

import numpy as np

from lepton_mpi.errors import ConfigurationError, Preempted
from lepton_mpi.run import advice, drift, resume, snapshot, summary
from lepton_mpi.run.hook import QuietHook
from lepton_mpi.run.run import Run
from lepton_mpi.run.save_timer import SaveTimer
from lepton_mpi.run.snapshot import Snapshot
from lepton_mpi.world.stopping import Stopping


class TrainingFigures(QuietHook):
    """Seconds, speed, loss and accuracy of the epoch's training; ends a run that has diverged."""

    def __init__(self) -> None:
        self._first_loss, self._chance_loss, self._before = nan, nan, nan

    def after_epoch(self, run: Run) -> None:
        """Of all ranks."""
        run.world.clock.enter("waiting")
        loss, correct = run.divergence.finite_sums().tolist()
        self._check(run, loss / run.divergence.weight)
        seconds = perf_counter() - run.began
        rows = run.train_rows.row_count - run.first_row
        run.figures |= {"seconds": seconds, "samples_per_second": rows / seconds}
        run.figures |= run.task.training_figures(loss, correct, run.divergence.weight)

    def _check(self, run: Run, loss: float) -> None:
        """Raises ConfigurationError, on every rank, for a loss that is far above that of the beginning and no longer falls, or is the last."""
        if isnan(self._before):
            self._chance_loss, self._before = advice.chance_loss_of(run), inf
            if not run.start.goes_on:  # else it is no beginning
                of_all = float(run.world.sum(np.array([run.first_loss]))[0])
                self._first_loss = of_all / run.weights[0]
        before, self._before = self._before, loss
        is_over = loss >= before or run.epoch == run.config.epoch_count
        if is_over and advice.diverged(loss, self._first_loss, self._chance_loss):
            began = "" if isnan(self._first_loss) else f", where it began at {self._first_loss:.4g}"
            text = (
                f"the training loss is {loss:.6g} in epoch {run.epoch}{began}: training has diverged; try a smaller --learning-rate than "
                f"{run.config.peak_rate:g}"
            )
            raise ConfigurationError(text).on_all_ranks()


class Validation(QuietHook):
    """Figures on the validation rows after every epoch."""

    def after_epoch(self, run: Run) -> None:
        """Each under its name with ``val_`` in front."""
        began = perf_counter()
        run.validation = figures = summary.evaluate(run, "validation")
        run.evaluation_seconds = perf_counter() - began
        if figures:
            short = run.task.short(figures)
            run.figures |= {f"val_{name}": value for name, value in short.items()}


class Checkpoints(QuietHook):
    """Saves after every epoch, every so many steps, and every so much time; after the run's last step the epoch's is the one.

    With ``--async-save`` the ranks of rank 0's host copy the vectors, and a thread of rank 0 writes the copy. If the file before is
    not written yet, all ranks wait for it. The last checkpoint of a run is written at once, from the vectors themselves.

    Attributes
    ----------
    ends_with_epoch : bool
        Whether the run ends behind this epoch, though it has more: then its checkpoint is the last.
    pauses : list of float
        Seconds for which this rank did not train, for each checkpoint of ``--async-save``; ``waits`` is the part of each until
        the file before was written.
    """

    def __init__(self, run: Run) -> None:
        if run.folder:
            run.folder.own = resume.own_files(run.config, run.start)
            run.folder.newest = run.folder.own[-1] if run.folder.own else None
            run.folder.committed = resume.committed_step(run.folder.newest, run.start)
        self._every, seconds = run.config.checkpoint_steps, run.config.save_every
        self._timer = SaveTimer(run.world, seconds) if seconds else None
        self._folder, self._began, self._pause_seconds = run.folder, 0.0, 0.0
        self._is_aside, self._snapshot = run.config.async_save, self._make_snapshot(run)
        self.ends_with_epoch = False
        self.pauses: list[float] = []
        self.waits: list[float] = []

    @staticmethod
    def _make_snapshot(run: Run) -> Snapshot | None:
        """Memory of the host that writes. Raises ConfigurationError on every rank."""
        is_needed = run.config.async_save and run.world.host_index == 0
        with run.world.agreeing():
            if is_needed:
                snapshot.check_memory(run, "--async-save")
        return Snapshot(run) if is_needed else None

    @property
    def save_seconds(self) -> float:
        """From a signal to a file, at most, as far as is known: another one may have to be written first."""
        if self._is_aside and self._folder:
            return self._pause_seconds + 2 * self._folder.write_seconds
        return self._pause_seconds

    def after_step(self, run: Run) -> None:
        """In the middle of an epoch."""
        if self._is_aside:
            self._tell(run)
        is_due = bool(self._every) and run.step % self._every == 0
        if self._timer and self._timer.is_due():
            is_due = True
        if is_due and run.position < run.steps_per_epoch:  # after an epoch there is one anyway
            # What is saved pushes out what was saved before, which may be all that is good.
            self.save_now(run)

    def after_epoch(self, run: Run) -> None:
        """Of the whole epoch; the parameters have been looked at with its figures, and hashed if they are the best."""
        best = run.best
        is_last = run.is_over or self.ends_with_epoch or run.epoch == run.config.epoch_count
        digest = best.digest if best and best.epoch == run.epoch else ""
        self._began = perf_counter()
        if self._is_aside and not is_last:
            self._save_aside(run, run.total(), digest)
        else:
            self._save(run, run.total(), is_last, digest)

    def at_end(self, run: Run) -> None:
        """What ``--async-save`` has cost."""
        if self.pauses:
            longest, waited = max(self.pauses), sum(self.waits)
            run.report.say(
                "saving",
                f"{len(self.pauses)} checkpoints while training went on, for which it stopped {longest:.3g} s at most, "
                f"{sum(self.pauses):.3g} s in all; {waited:.3g} s of these until the one before was written",
            )
            run.result |= {"save_pause_seconds": longest, "save_wait_seconds": waited}

    def save_now(self, run: Run, is_last: bool = False) -> None:
        """In the middle of an epoch, whatever ``--checkpoint-steps`` says. Collective."""
        drift.finish(run)
        self._began = perf_counter()
        if self._is_aside and not is_last:
            self._save_aside(run)
        else:
            self._save(run, run.divergence.finite_sums(), is_last)

    def _save(self, run: Run, sums: np.ndarray, is_last: bool, digest: str = "") -> None:
        """Rank 0 writes, and says once what it cannot write. Collective."""
        world = run.world
        world.clock.enter("checkpoint")
        run.strategy.collect()
        with world.agreeing():
            if run.folder:
                line = run.folder.save(resume.checkpoint_of(run, sums, digest), is_last)
                self._tell(run, *filter(None, [line]))
        self._end(run)

    def _save_aside(self, run: Run, sums: np.ndarray | None = None, digest: str = "") -> None:
        """Copy, and have the copy written; ``sums`` are those of parameters that have been looked at, or None. Collective."""
        world, began = run.world, perf_counter()
        world.clock.enter("checkpoint")
        with world.agreeing():
            if run.folder:
                run.folder.wait()  # for the copy that is being written
                self._tell(run)
        self.waits.append(perf_counter() - began)
        run.strategy.collect()
        is_wrong = self._snapshot.take() if self._snapshot else None
        # All ranks meet behind the copy: workers that go ahead would write into what is copied.
        if sums is None:
            sums = self._looked_at(run, is_wrong)
        else:
            world.agree(None)
        if run.folder and self._snapshot:
            now = resume.checkpoint_of(run, sums, digest)
            run.folder.begin_saving(self._snapshot.copied(now))
        self.pauses.append(perf_counter() - self._began)
        self._end(run)

    def _looked_at(self, run: Run, is_wrong: bool | None) -> np.ndarray:
        """``Divergence.finite_sums`` of what was copied; if it goes back to other parameters, they are copied."""
        before = run.divergence.counts.rollbacks
        sums = run.divergence.finite_sums(is_wrong)
        if run.divergence.counts.rollbacks > before:
            run.strategy.collect()
            if self._snapshot:
                self._snapshot.take()
            run.world.agree(None)
        return sums

    def _end(self, run: Run) -> None:
        self._pause_seconds = perf_counter() - self._began
        if self._timer:
            self._timer.saved()

    @staticmethod
    def _tell(run: Run, *lines: str) -> None:
        """What there is to say of the folder, and which checkpoint is written."""
        if run.folder:
            for line in (*run.folder.news(), *lines):
                run.report.say("checkpoint", line)
            run.checkpoint = run.folder.newest


class Preemption(QuietHook):
    """Ends the run after the step on which the ranks have agreed because of a signal or the time, with a checkpoint if there are any.

    Raises Preempted, on every rank. After the last step of an epoch it lets the epoch end first.
    """

    def __init__(self, run: Run, stopping: Stopping, checkpoints: Checkpoints | None) -> None:
        self._checkpoints, self._stopping, self._is_due = checkpoints, stopping, stopping.is_due
        self._waits_for_epoch = False
        stopping.begin(run.start.step)

    def after_step(self, run: Run) -> None:
        """One store and one load, unless a signal came."""
        if self._is_due(run.step):
            if run.position < run.steps_per_epoch:
                if self._checkpoints:
                    self._checkpoints.save_now(run, is_last=True)
                else:
                    run.strategy.finish()
                    run.divergence.finite_sums()  # which may be why the ranks stop
                self._stop(run)
            self._waits_for_epoch = True
            if self._checkpoints:
                self._checkpoints.ends_with_epoch = True

    def after_epoch(self, run: Run) -> None:
        """Its checkpoint is written, if any is."""
        if self._waits_for_epoch and run.epoch < run.config.epoch_count:
            self._stop(run)

    def _stop(self, run: Run) -> None:
        limit = run.time_limit if self._stopping.is_by_time else None
        reason = limit.left_text() if limit else self._stopping.reason
        where = f"{reason}: stopped after step {run.step}, in epoch {run.epoch}"
        folder, lacking = run.config.checkpoint, run.lacking()
        if lacking:
            text = f"{where}; {lacking}"
        elif folder:
            text = f"{where}; saved, go on with --resume {folder}"
        else:
            text = f"{where}; nothing is saved without --checkpoint"
        raise Preempted(text).on_all_ranks()


class Summary(QuietHook):
    """Test figures, time split and digest."""

    def at_end(self, run: Run) -> None:
        """Printed, recorded, and the run's result."""
        of_run = {"history": run.history, "derived": dict(run.derived.values)}
        run.result |= summary.say_end(run) | of_run
