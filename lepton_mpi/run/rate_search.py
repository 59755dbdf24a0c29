"""``--find-learning-rate``: the range test of Smith ("Cyclical learning rates for training neural networks", WACV 2017).

    step k of N      rate = 1e-7 (1e8)^((k - 1) / (N - 1)), from 1e-7 to 10, other options as they are
    smoothed loss    mean over steps with weights 0.9^(steps ago), as Adam's first moment is corrected for its begin
    the end          after N steps, or where the smoothed loss is four times its least, or is no number

Two suggestions are made of it, both before the minimum: the rate of the steepest descent by the logarithm of the rate, and a tenth of the
minimum's. Losses of micro-batches are added in one order, so with a reproducible strategy all numbers are the same bits on any ranks. Parameters are
put back, and nothing of the run is written.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.durable import check_target, replacing
from lepton_mpi.errors import LauncherError, Preempted
from lepton_mpi.run.build import build
from lepton_mpi.run.together import Together

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config
    from lepton_mpi.run.run import Run, Step
    from lepton_mpi.world.world import World

RATE_MIN, RATE_MAX = 1e-7, 10.0
_WEIGHT, _WORSE = 0.9, 4.0
# Steps whose loss has not been smoothed yet, in which nothing diverges and nothing is steep.
_BEGIN = 5
# How a file of --find-out begins.
_JSON_BEGIN = b'{"learning_rate": '
_CHART_LINES, _CHART_CELLS = 16, 40
# What writes, ends early or is of the user's own has no part in it.
_OFF: dict[str, Any] = {
    **{"checkpoint": None, "checkpoint_steps": 0, "save_every": None, "async_save": False},
    **{"keep_best": None},
    **{"restore_best": False, "early_stop": None, "stop_before": None, "time_limit": None},
    **{"metrics": None, "csv": None, "tensorboard": None, "trace": None, "hook": ()},
    **{"schedule": "constant", "warmup_epochs": 0, "base_batch": 0, "balance": "none"},
}


@dataclass(frozen=True)
class RangeTest:
    """What was found.

    Attributes
    ----------
    rates, losses, smoothed : list of float
        Of each step that was made; the last may be the one that diverged.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    @property
    def minimum(self) -> int | None:
        """The step, from 0, of the least smoothed loss; None if the loss never fell."""
        values = self.smoothed[_BEGIN:]
        if not values or not math.isfinite(min(values)):
            return None
        found = _BEGIN + int(np.argmin(values))
        return found if found > _BEGIN and self.smoothed[found] < self.smoothed[_BEGIN] else None

    @property
    def steepest(self) -> int | None:
        """The step before the minimum at which the smoothed loss falls fastest by the logarithm of the rate; None as above."""
        stop = self.minimum
        if stop is None:
            return None
        slopes = np.gradient(np.array(self.smoothed[_BEGIN : stop + 1]))
        return _BEGIN + int(np.argmin(slopes))

    def record(self) -> dict[str, Any]:
        """For a file, and what ``fit`` returns: ``learning_rate`` is the steepest descent's."""
        steepest, minimum = self.steepest, self.minimum
        return {
            "learning_rate": None if steepest is None else self.rates[steepest],
            "tenth_of_minimum": None if minimum is None else self.rates[minimum] / 10,
            "rates": self.rates,
            "losses": [None if not math.isfinite(each) else each for each in self.losses],
            "smoothed": [None if not math.isfinite(each) else each for each in self.smoothed],
        }

    def lines(self) -> list[str]:
        """The curve for people: some rates, their smoothed loss, and a bar as long as the loss."""
        shown = np.unique(np.linspace(0, len(self.rates) - 1, _CHART_LINES).astype(int)).tolist()
        top = max(
            (self.smoothed[k] for k in shown[:-1] if math.isfinite(self.smoothed[k])), default=1.0
        )
        marks = {self.steepest: "  steepest", self.minimum: "  least"}
        shown = sorted({*shown, *(place for place in marks if place is not None)})
        return [
            f"{self.rates[k]:9.2e}  loss {self.smoothed[k]:8.4f}  {self._bar(k, top)}{marks.get(k, '')}"
            for k in shown
        ]

    def _bar(self, step: int, top: float) -> str:
        loss = self.smoothed[step]
        share = min(1.0, max(0.0, loss / top)) if math.isfinite(loss) and top > 0 else 1.0
        return "#" * round(share * _CHART_CELLS)


def search(
    config: Config, world: World, model: Any = None, given: frozenset[str] | None = None
) -> dict[str, Any]:
    """Make the test, say and write what was found, and return it. Collective over ``world``.

    Raises LeptonError on every rank: Preempted after a signal, which ends it without a suggestion.
    """
    steps, out = config.find_steps, config.find_out
    path = Path(out) if world.rank == 0 and out and out.endswith(".json") else None
    with world.agreeing():
        if path:
            check_target(path, "--find-out", _JSON_BEGIN, "--find-out")
    quiet = dataclasses.replace(config, **_OFF, epochs=steps)
    run = build(quiet, world, model, given=given)
    try:
        keeps = world.local_rank == 0 or not run.strategy.is_shared
        before = run.strategy.parameters.copy() if keeps else None
        found = range_test(run, steps)
        run.strategy.finish()
        world.host_barrier()
        if before is not None:
            run.strategy.parameters[:] = before
        world.host_barrier()
        _say(run, found)
        with world.agreeing():
            if path:
                _write(path, found)
        digest = run.layout.digest(run.strategy.parameters)
        result = found.record() | {"weights_digest": digest, "world_size": world.size}
        result |= run.model.release(run.parameters)
    except Exception:
        run.ends.close()
        raise
    run.close()
    return result


def range_test(run: Run, steps: int) -> RangeTest:
    """Train with a rising rate. Collective."""
    rates, losses, smoothed = list[float](), list[float](), list[float]()
    mean, weight, least = 0.0, 0.0, math.inf
    stopping = run.world.stopping
    make_step = run.faults.guarding(run.strategy.step) if run.faults else run.strategy.step
    for number, (step, loss) in enumerate(_losses(run, steps)):
        rates.append(rate_of(number, steps))
        losses.append(loss)
        mean = _WEIGHT * mean + (1 - _WEIGHT) * loss
        weight = _WEIGHT * weight + (1 - _WEIGHT)
        smoothed.append(mean / weight)
        is_over = not math.isfinite(loss) or (
            number >= _BEGIN and smoothed[-1] > _WORSE * abs(least)
        )
        if number >= _BEGIN:
            least = min(least, smoothed[-1])
        if is_over or number + 1 == steps:
            break
        run.rate.part = rates[-1] / run.rate.schedule(step.number)
        make_step(step.number, step.weight)
        if stopping and stopping.is_due(step.number):
            text = f"{stopping.reason}: the range test stopped after step {number + 1} of {steps}, without a suggestion; nothing is saved"
            raise Preempted(text).on_all_ranks()
    return RangeTest(rates, losses, smoothed)


def rate_of(number: int, steps: int) -> float:
    """Rate of step ``number``, from 0.

    >>> [round(rate_of(number, 9), 8) for number in (0, 4, 8)]
    [1e-07, 0.001, 10.0]
    """
    return float(RATE_MIN * (RATE_MAX / RATE_MIN) ** (number / (steps - 1)))


def _losses(run: Run, steps: int) -> Iterator[tuple[Step, float]]:
    """Each step, with gradients in place, and the mean loss of its rows, the same on all ranks; the caller makes the step."""
    together = Together(run) if run.model.synchronised else None
    for _ in run.epochs():
        for step in run.steps():
            sums = np.zeros(run.micro_batches.count)
            if together:
                run.loss = 0.0
                together.compute(run, step)
                sums[0] = run.loss
            else:
                _compute(run, step, sums)
            run.world.clock.enter("waiting")
            # Each micro-batch is one rank's, and the others add zeros: no rounding before the sum in their order.
            total = float(run.world.sum(sums).sum())
            yield step, total / run.weights[run.position - 1]


def _compute(run: Run, step: Step, sums: np.ndarray) -> None:
    """``loop.compute``, with the loss of each micro-batch apart."""
    clock = run.world.clock
    for number, vector, gradient, sync in run.strategy.shares(step.number):
        clock.enter("input", step.number)
        batch = run.next_batch(step)
        clock.enter("compute")
        if batch.y.size:
            sums[number] += run.model.loss_and_gradient(run.parameters, batch, gradient, sync)[0]
        else:
            vector[:] = 0


def _say(run: Run, found: RangeTest) -> None:
    for line in found.lines():
        run.report.say("rate", line)
    record = found.record()
    if record["learning_rate"] is None:
        text = (
            f"no suggestion: the loss fell at no rate from {found.rates[0]:.0e} to {found.rates[-1]:.2g}; "
            "more --find-steps, or other options, such as --initial"
        )
    else:
        text = (
            f"--learning-rate {record['learning_rate']:.2g}, where the loss fell fastest; a tenth of the least loss's rate is "
            f"{record['tenth_of_minimum']:.2g}; nothing was trained"
        )
    run.report.say("suggested", text)


def _write(path: Path, found: RangeTest) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(found.record()) + "\n", "utf-8")
    except OSError as error:
        raise LauncherError(f"cannot write {path}: {error.strerror}") from None
