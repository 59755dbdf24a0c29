"""What a run does about numbers that are not finite, ``--on-nan``: the same on all ranks, and it says where they came from.

    stop       the run ends; rank, step, micro-batch, its rows and the parameter are named
    skip       the step is not made: parameters and state stay as they are
    rollback   parameters and state become those of the last copy in memory, and the learning rate is halved from then on

``stop`` looks at the loss of every micro-batch, a number that the rank has anyway, and at the parameters before they are saved and
after every epoch. A rank that finds something asks all ranks to stop (``world/stopping.py``); the earliest finding is reported.

``skip`` and ``rollback`` look at every gradient, too, and the ranks that make a step together (``Strategy.skips``) agree on it before
they do: one message of 8 bytes a step. The data go on where they are in either case, so the rows of such a step are not trained on in this
epoch. Which steps are left out depends on no number of ranks. Step numbers count steps that were left out.

The copy is made at the run's beginning, after every epoch and at every checkpoint. Workers that make steps by themselves leave their
own step out at once, and roll back with all others at the next of these points. After 8 times from one copy the run ends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.chunks import share
from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.kernels.finite_kernels import not_finite
from lepton_mpi.layers.layer import Sums
from lepton_mpi.run.finding import Finding, earliest, finding_of, wrong_names
from lepton_mpi.run.hook import QuietHook, weak
from lepton_mpi.wording import one_line

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run

CUT, ROLLBACKS_MAX = 0.5, 8
# Steps without one that was made between them, after which the run ends.
_SKIPS_MAX = 100
_EVENTS_SAID = 5
# Of a rank, for messages of 8 bytes.
_STAGING_BYTES = 1 << 15


@dataclass
class Counts:
    """What was left out and cut; ``skipped_weight`` is that of this epoch, over all ranks, what gradients are divided by."""

    skipped_steps: int = 0
    skipped_weight: int = 0
    rollbacks: int = 0
    cut: float = 1.0


class Divergence(QuietHook):
    """See the module. Making one is collective over the run's world; so is every method but ``note``, ``add`` and ``is_wrong``.

    Attributes
    ----------
    looks_at_gradients : bool
        Whether ``loop.compute`` looks at every gradient with ``not_finite``, and at the loss alone if not.
    vector_count : int
        Vectors of the parameters' length that this rank holds for it.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._policy = weak(run), run.config.on_nan
        self.looks_at_gradients = self._policy != "stop"
        self._has_frozen = bool(run.model.frozen)
        self.counts = _counts_of(run)
        run.rate.cut = self.counts.cut
        # Of this rank: this epoch's weight since the run began, and steps of workers.
        self._skipped_weight, self._skipped_steps = 0, 0
        self._first: Finding | None = None
        self._now: Finding | None = None
        self._sums = run.loss, run.correct
        self._in_a_row, self._in_vain, self._said = 0, 0, 0
        self._wants_rollback = False
        self._together = run.strategy.skips if self.looks_at_gradients else ""
        self._agree = self._communicator()
        self._flag = np.zeros(1, np.int64)
        self._copy: tuple[np.ndarray, dict[str, np.ndarray]] | None = None
        self._copied_step, self.vector_count = run.step, 0
        if self._policy == "rollback":
            is_holder = run.world.local_rank == 0 or not run.strategy.is_shared
            self.vector_count = is_holder * (1 + len(run.strategy.state()))

    def _communicator(self) -> Communicator | None:
        """Of the ranks that make steps together; None for one."""
        world = self._run.world
        room = _STAGING_BYTES * max(map(len, world.ranks_of_hosts))
        if self._together == "all" and world.size > 1:
            return Communicator(world, staging_bytes=room)
        if self._together == "host" and world.local_size > 1:
            return Communicator(world.group(world.host_ranks), staging_bytes=room)
        return None

    # -- a micro-batch, a step ---------------------------------------------------------------------

    def note(self, number: int, batch: Batch, vector: np.ndarray, sums: Sums) -> None:
        """A micro-batch of this rank whose loss or gradient ``vector`` is not finite."""
        run = self._run
        if not self.looks_at_gradients:
            run.add(sums)  # so that the epoch's is not finite
        elif not self._together:
            self._skipped_weight += _weight_of(batch)
        if self._first and not self._together:
            return  # what came before it
        found = finding_of(run, number, batch, vector, sums[0])
        if not self._first and not self.looks_at_gradients and run.world.stopping:
            run.world.stopping.ask()
        self._first = self._first or found
        self._now = self._now or found
        self._wants_rollback = self._policy == "rollback"

    def add(self, computed: Sequence[tuple[int, Batch, np.ndarray]], sums: Sums) -> None:
        """Of micro-batches that were computed together: number, batch, gradient of each, and the sums of all."""
        wrong = []
        if self.looks_at_gradients or not isfinite(sums[0]):
            wrong = [each for each in computed if self.is_wrong(each[2])]
        if isfinite(sums[0]) and not wrong:
            self._run.add(sums)
        else:
            self.note(*(wrong or computed)[0], sums)

    def is_wrong(self, vector: np.ndarray) -> bool:
        """Whether a gradient is not finite. That of frozen parameters may be anything."""
        if not not_finite(vector):
            return False
        return not self._has_frozen or bool(wrong_names(self._run, vector))

    def before_epoch(self, run: Run) -> None:
        """What the epoch begins with."""
        self._sums = run.loss, run.correct
        self._skipped_weight = 0
        if run.epoch != run.start.epoch:
            self.counts.skipped_weight = 0
        if self._policy == "rollback" and run.epoch == run.start.epoch:
            self._keep()

    def step(self, number: int, weight: int) -> None:
        """In place of ``Strategy.step``, if ``looks_at_gradients``."""
        run, found = self._run, self._now
        is_wrong = found is not None
        if self._agree:
            self._flag[0] = is_wrong
            self._agree.allreduce(self._flag, "max")
            self._agree.book()
            run.world.clock.enter("compute", number)  # a communicator numbers its own calls
            is_wrong = bool(self._flag[0])
        if not is_wrong or not self._together:
            run.strategy.step(number, weight)
            self._sums, self._in_a_row = (run.loss, run.correct), 0
            return
        run.loss, run.correct = self._sums
        self._now = None
        if self._together == "all" or self._policy == "skip":
            self._first = None
        run.strategy.skip(number)
        self._count(weight)
        if self._together == "all":
            self._all_left_out(found)

    def _count(self, weight: int) -> None:
        """On one of the ranks that leave a step out; a weight that each rank has of its own on all of them."""
        world = self._run.world
        number = {"all": world.rank, "host": world.local_rank, "rank": 0}[self._together]
        is_own = self._together == "all" and self._run.strategy.weighed is not None
        self._skipped_weight += weight if number == 0 or is_own else 0
        self._skipped_steps += number == 0

    def _all_left_out(self, found: Finding | None) -> None:
        """Say it, and go back if that is wanted."""
        run = self._run
        first = earliest(run, found)
        self._in_a_row += 1
        if self._policy == "rollback":
            self._roll_back(str(first))
            return
        self._say(f"{first}; the step is not made", step=run.step)
        if self._in_a_row >= _SKIPS_MAX:
            raise ConfigurationError(
                f"--on-nan skip: {_SKIPS_MAX} steps in a row had numbers that are not finite, the last in {first}: try a smaller --learning-rate"
            ).on_all_ranks()

    # -- where all ranks meet ------------------------------------------------------------------------

    def finite_sums(self, is_wrong: bool | None = None) -> np.ndarray:
        """Loss and correct count of all ranks, float64 (2,), if they and the parameters are good to go on from.

        To be called after ``Strategy.finish`` or ``pause``. Losses were computed before the last update, so each rank also looks
        at its part of the host's parameters; ``is_wrong`` is what it has found if it has looked already. The sums are the same on every rank, so all of them decide alike. Raises
        ConfigurationError.
        """
        run, counts = self._run, self.counts
        world, parameters = run.world, run.strategy.parameters
        if is_wrong is None:
            first, last = share(0, parameters.size, world.local_size, world.local_rank)
            is_wrong = bool(not_finite(parameters[first:last]))
        mine = run.loss, run.correct, is_wrong, self._wants_rollback
        more = self._skipped_weight, self._skipped_steps
        loss, correct, wrong, wanted, weight, steps = world.sum(
            np.array([*mine, *more], np.float64)
        )
        counts.skipped_weight += int(weight)
        counts.skipped_steps += int(steps)
        self._skipped_weight = self._skipped_steps = 0
        if isfinite(loss) and not wrong and not wanted:
            if counts.skipped_weight and counts.skipped_weight >= sum(run.weights[: run.position]):
                raise ConfigurationError(
                    f"--on-nan {self._policy}: no step of epoch {run.epoch} had finite numbers: try a smaller --learning-rate"
                ).on_all_ranks()
            if self._policy == "rollback":
                self._keep()
        elif self._policy == "rollback":
            self._roll_back(self._reason(loss))
        else:
            reason = self._reason(loss)
            stopping = world.stopping
            if stopping and world.least(not stopping.has_signal):  # the job may go on
                stopping.forget()
                world.agree(None)
            raise ConfigurationError(
                f"{reason}: try a smaller --learning-rate, --clip-norm 1, or --on-nan rollback"
            ).on_all_ranks()
        return np.array([loss, correct])

    @property
    def weight(self) -> int:
        """What the sums of a whole epoch are of, after ``finite_sums``."""
        return max(1, sum(self._run.weights) - self.counts.skipped_weight)

    def _reason(self, loss: float) -> str:
        """What became not finite, and where it began."""
        run = self._run
        first = earliest(run, self._first)
        became = f"the loss became {loss}"
        if isfinite(loss):
            became = "the parameters became infinite or no numbers"
            if first is None:
                names = run.world.comm.allgather(wrong_names(run, run.strategy.parameters))
                became += f", {next(filter(None, names), ('',))[0]} among them,"
        began = f", first in {first}" if first else ""
        return f"{became} in epoch {run.epoch}{began}"

    def _keep(self) -> None:
        """A copy to go back to."""
        run = self._run
        run.strategy.collect()
        if self.vector_count:
            state = run.strategy.state()
            if self._copy is None:
                self._copy = (
                    run.strategy.consensus().copy(),
                    {n: v.copy() for n, v in state.items()},
                )
            else:
                parameters, kept = self._copy
                parameters[:] = run.strategy.consensus()
                for name in state.keys() - kept.keys():
                    kept[name] = state[name].copy()
                for name, vector in state.items():
                    kept[name][:] = vector
        self._copied_step, self._in_vain = run.step, 0
        run.world.agree(None)  # workers that go ahead would write into it

    def _roll_back(self, reason: str) -> None:
        """To the copy, with a smaller rate."""
        run, counts = self._run, self.counts
        self._in_vain += 1
        if self._in_vain > ROLLBACKS_MAX:
            raise ConfigurationError(
                f"--on-nan rollback: {reason}, after {ROLLBACKS_MAX} returns to step {self._copied_step} with a learning rate "
                f"that became {run.rate(run.step):.3g}: the rate is not the reason"
            ).on_all_ranks()
        run.strategy.finish()
        if run.drift:
            run.drift.forget()
        if self._copy is not None:
            run.strategy.restore(*self._copy)
        run.world.agree(None)  # nobody reads before all is written
        if self._copy is None:  # what a strategy keeps beside the vectors follows from them
            run.strategy.restore(None, run.strategy.state())
        run.world.agree(None)
        counts.rollbacks, counts.cut = counts.rollbacks + 1, counts.cut * CUT
        run.rate.cut = counts.cut
        self._first = self._now = None
        self._wants_rollback = False
        self._say(
            f"{reason}; back to the parameters and the state after step {self._copied_step}, learning rate times {counts.cut:g} from here on",
            step=run.step,
            to=self._copied_step,
            cut=counts.cut,
        )

    def _say(self, text: str, **values: Any) -> None:
        self._said += 1
        if self._said <= _EVENTS_SAID:
            more = " (more of these are only counted)" if self._said == _EVENTS_SAID else ""
            self._run.report.say("nan", text + more)
        self._run.report.record("nan", text=text, policy=self._policy, **values)

    def attribute(self) -> dict[str, str]:
        """For a checkpoint; nothing while nothing was left out or cut."""
        counts = self.counts
        return {"on_nan": json.dumps(asdict(counts))} if counts != Counts() else {}

    def at_end(self, run: Run) -> None:
        """Says what was left out."""
        counts = self.counts
        if not self.looks_at_gradients or counts == Counts():
            return
        text = f"{counts.skipped_steps} step{'s' * (counts.skipped_steps != 1)} not made"
        if self._together in ("rank", "host"):
            text += " by a worker"
        if counts.rollbacks:
            text += f", {counts.rollbacks} times back to a copy, learning rate times {counts.cut:g}"
        run.report.say("nan", f"{text} (--on-nan {self._policy})")
        run.result |= {"skipped_steps": counts.skipped_steps, "rollbacks": counts.rollbacks}

    def close(self) -> None:
        """Give back what it holds. Collective."""
        if self._agree:
            self._agree.close()


def _weight_of(batch: Batch) -> int:
    """Rows, or of a text the next tokens that count."""
    is_text = batch.y.ndim == 2 and batch.y.dtype == np.int32
    return int(np.count_nonzero(batch.y >= 0)) if is_text else len(batch.y)


def begin(run: Run) -> None:
    """Make ``run.divergence``. Collective. Raises ConfigurationError for a strategy that cannot do what ``--on-nan`` asks for."""
    if run.config.on_nan == "skip" and not run.strategy.skips:
        raise ConfigurationError(
            f"--on-nan skip: expected a strategy that can leave a step out, such as sync (between hosts without --compress) or delayed, got "
            f"{run.config.strategy}; --on-nan rollback goes with every strategy"
        )
    run.divergence = Divergence(run)


def _counts_of(run: Run) -> Counts:
    """Those of the checkpoint that the run goes on from. Whoever wrote it may have written anything: raises DataError."""
    text = run.start.attributes.get("on_nan")
    if text is None:
        return Counts()
    try:
        values = json.loads(text)
        found = Counts(**values)
        numbers = found.skipped_steps, found.skipped_weight, found.rollbacks
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("expected whole numbers")
        if type(found.cut) is not float or not 0 < found.cut <= 1:
            raise ValueError("expected a part of the learning rate")
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{run.start.path}: attribute on_nan: {one_line(error)}") from None
    if not run.start.row:
        found.skipped_weight = 0
    return found
