"""What to try after a poor result, a line each, and when a run has diverged.

``advise`` is a pure function of ``Facts``; a run that has nothing wrong with it gets no advice. Each threshold stands beside its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.run import class_weights

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run

# A mean training loss so many times that of a model that knows nothing has diverged, and the run ends, so it must be sure: features that are
# not scaled begin with ten times, and come down. Digits with a rate of 0.3, a hundred times the good one, end at a third of it, with 100 at
# 23 times, where accuracy says that nothing was learnt; the loss that ran away was 300 000 times.
DIVERGED = 100.0
# A network at its beginning is within so many times of a model that knows nothing.
_POOR = 2.0
# Curves are compared in fifths of the epochs: single epochs of few validation rows go up and down by some per cent.
_PARTS = 5
# Epochs below which a curve says nothing.
_EPOCHS_MIN = 3
# The loss still falls: a fifth of the epochs takes off so much of what a model that knows nothing has (digits: 0.1 % in the
# end, 12 % after three epochs), or, while more than half of that is left, so much of itself, as with a rate that is too small.
_FALLS_OF_CHANCE, _MUCH_LEFT, _FALLS_OF_ITSELF = 0.05, 0.5, 0.03
# The validation loss rises: it is so much above its lowest fifth. Less is usual, and costs no accuracy.
_RISES = 0.2
# A class dominates with so many times its even share of the rows.
_DOMINATES = 2.0
# A network without neighbourhoods is no good for pictures if it is less than half way from guessing to right.
_HALF_WAY = 0.5
# A side of a picture from which on neighbourhoods matter: on 8x8 pixels an mlp does as well.
_SIDE_MIN = 16
# Targets are unscaled if deviation or size is so far from 1, where a rate of 0.001 does not arrive, and less than half is explained.
_TARGETS_FAR, _EXPLAINED = 10.0, 0.5
# Twice as many ranks as cores wait for half of the time whatever they do; with a core for each a larger part is the step's fault.
_WAITING = 0.5


@dataclass(frozen=True)
class Facts:
    """What is known at the end of a run; fields without a value mean that it is not.

    Attributes
    ----------
    history : list of dict
        Figures of the epochs that were made.
    chance_loss : float
        Of a model that knows nothing; NaN if unknown.
    stopped_early, keeps_best : bool
        Whether the run ended before its last epoch; whether the best epoch is kept, or ends the run.
    confusion : array, int (classes, classes)
        Of test rows, or else validation rows; empty for others than classes.
    weighs_classes : bool
    model : str
        Name of a built-in model; empty for one's own.
    row_shape : tuple of int
    r2 : float
        Of targets, on the same rows.
    target_mean, target_deviation : float
        Of the target that is farthest from 0 and 1, as the model sees it.
    """

    history: Sequence[Mapping[str, float]] = ()
    chance_loss: float = math.nan
    stopped_early: bool = False
    keeps_best: bool = False
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    weighs_classes: bool = False
    model: str = ""
    row_shape: tuple[int, ...] = ()
    r2: float = math.nan
    target_mean: float = 0.0
    target_deviation: float = 1.0


def advise(facts: Facts) -> list[str]:
    """A line for each thing that may be mended, with the option that mends it."""
    found = [_of_classes(facts), _of_targets(facts), _of_validation(facts)]
    # A loss that comes down from a rate that is too large falls, too: more of the same is no help.
    is_far_above = facts.history and facts.history[-1]["loss"] > _POOR * facts.chance_loss
    if not found[-1] and not is_far_above:
        found.append(_of_epochs(facts))
    return [line for line in found if line]


def waiting_text(ranks: int, cores: int, batch_rows: int, waiting: float) -> str:
    """Why ranks wait for ``waiting`` of the time though none of them is slow; ``ranks`` and ``cores`` are those of a host.

    It is no advice among the others, since it goes by times: those are the same in every run.
    """
    if ranks > cores:
        return (
            f"for other ranks, which is normal here: {ranks} ranks of a host take turns on {cores} "
            "cores; as many ranks as cores are fastest"
        )
    if waiting <= _WAITING:
        return (
            "for other ranks: a step is short for so many, or their work is uneven; a larger --global-batch gives each more "
            "to do between two meetings"
        )
    return (
        f"for other ranks, {waiting:.0%} of the time: a step of {batch_rows} rows is too short for so many; --global-batch "
        f"{4 * batch_rows} --base-batch {batch_rows}, or fewer ranks, unless other programs use these cores"
    )


def diverged(loss: float, first_loss: float, chance_loss: float) -> bool:
    """Whether a mean training loss is far above that of the run's first step and of a model that knows nothing; NaN is unknown.

    >>> diverged(240.0, 2.4, 2.3), diverged(250.0, 2.4, math.nan), diverged(250.0, math.nan, math.nan)
    (False, True, False)
    """
    known = [value for value in (first_loss, chance_loss) if value > 0]
    return bool(known) and loss > DIVERGED * max(known)


def chance_loss_of(run: Run) -> float:
    """Mean loss of a model that knows nothing: of all classes or tokens alike, or of the mean of targets whose deviation is 1.

    NaN where that is not known, as of an own model, or of targets that are not scaled.
    """
    task, data = run.task.name, run.data
    if task in ("classes", "tokens"):
        return math.log(max(2, data.output_count)) * class_weights.mean_weight(run.model, data)
    if task != "targets" or data.target_scale.is_identity:
        return math.nan
    return 0.5 if run.config.loss == "huber" else 1.0


def facts_of(run: Run, figures: Mapping[str, Any]) -> Facts:
    """Of a run at its end; ``figures`` are those of the test rows or, without any, of the validation rows."""
    config, data = run.config, run.data
    mean, deviation = _target_moments(run) if data.target_count else (0.0, 1.0)
    shapes = [spec.shape for spec in data.inputs.values() if spec.kind == "numbers"]
    return Facts(
        history=run.history,
        chance_loss=chance_loss_of(run),
        stopped_early=run.is_over,
        keeps_best=bool(config.keep_best or config.early_stop),
        confusion=np.array(figures.get("confusion", np.zeros((0, 0))), np.int64),
        weighs_classes=run.model.class_weights is not None,
        model=run.model.name,
        row_shape=shapes[0] if len(shapes) == 1 else (),
        r2=float(figures.get("r2", math.nan)),
        target_mean=mean,
        target_deviation=deviation,
    )


def _target_moments(run: Run) -> tuple[float, float]:
    """Mean and deviation of the target that is farthest from 0 and 1, over at most 4096 training rows, evenly spread."""
    rows = run.train_rows
    places = np.unique(np.linspace(0, rows.row_count - 1, 4096).astype(np.int64))
    numbers = places if rows.chosen is None else rows.chosen[places]
    y = rows.y[numbers].astype(np.float64)
    means, deviations = y.mean(axis=0), y.std(axis=0)
    worst = int(np.argmax([_distance(*pair) for pair in zip(means, deviations, strict=True)]))
    return float(means[worst]), float(deviations[worst])


def _distance(mean: float, deviation: float) -> float:
    """How many times too large or too small."""
    spread = max(deviation, 1 / deviation) if deviation > 0 else 1.0
    return max(abs(mean), spread)


def _of_classes(facts: Facts) -> str:
    """One class dominates, or nothing is learnt, or a picture wants another model."""
    total = facts.confusion.sum()
    if not total:
        return ""
    share = facts.confusion.sum(axis=1).max() / total
    accuracy = np.trace(facts.confusion) / total
    right = accuracy - share
    is_picture = len(facts.row_shape) >= 2 and min(facts.row_shape[:2]) >= _SIDE_MIN
    if is_picture and facts.model in ("mlp", "logistic") and right < _HALF_WAY * (1 - share):
        return (
            f"accuracy {accuracy:.2f}, where always the same class has {share:.2f}: {facts.model} knows nothing of which pixels are "
            "neighbours; try --model cnn or resnet8"
        )
    if right > 0:
        return ""
    same = f"accuracy {accuracy:.2f} is no more than always saying the largest class, which has {share:.2f} of the rows"
    if share >= _DOMINATES / len(facts.confusion) or (len(facts.confusion) == 2 and share > 0.75):
        if facts.weighs_classes:
            return ""
        return f"{same}: --class-weights balanced makes rare classes count as much; look at macro recall"
    return f"{same}: nothing was learnt; try another --learning-rate, first a smaller one, and look at labels and features"


def _of_targets(facts: Facts) -> str:
    mean, deviation = facts.target_mean, facts.target_deviation
    if not facts.r2 < _EXPLAINED or _distance(mean, deviation) < _TARGETS_FAR:
        return ""
    return (
        f"targets have a mean of {mean:.4g} and a deviation of {deviation:.4g}, far from 0 and 1, and r2 is {facts.r2:.2f}: prepare the data "
        "with --target-scale standard"
    )


def _of_validation(facts: Facts) -> str:
    """The validation loss rises, and nobody keeps the best epoch."""
    curve = _curve(facts, "val_loss")
    if len(curve) < _EPOCHS_MIN or facts.keeps_best:
        return ""
    part = max(1, len(curve) // _PARTS)
    means = [fmean(curve[start : start + part]) for start in range(len(curve) - part + 1)]
    lowest = int(np.argmin(means))
    if not means[-1] > (1 + _RISES) * means[lowest] or len(means) - 1 - lowest < part:
        return ""
    epoch = int(facts.history[int(np.argmin(curve))]["epoch"])
    return (
        f"the validation loss has risen since epoch {epoch}, from {min(curve):.4g} to {curve[-1]:.4g}: --early-stop {max(3, part)} ends "
        "sooner, --keep-best auto --restore-best with --checkpoint FOLDER ends with the best epoch"
    )


def _of_epochs(facts: Facts) -> str:
    """The loss still falls at the end."""
    curve = _curve(facts, "val_loss") or _curve(facts, "loss")
    if len(curve) < _EPOCHS_MIN or facts.stopped_early:
        return ""
    part = max(1, len(curve) // _PARTS)
    last, before = fmean(curve[-part:]), fmean(curve[-2 * part : -part])
    chance = facts.chance_loss if facts.chance_loss > 0 else curve[0]
    fell = before - last
    is_much_left = last > _MUCH_LEFT * chance
    if not chance > 0 or not (
        fell > _FALLS_OF_CHANCE * chance or (is_much_left and fell > _FALLS_OF_ITSELF * before)
    ):
        return ""
    epochs = int(facts.history[-1]["epoch"])
    return (
        f"the loss still falls at the end, by {fell / before:.0%} over the last {part} of {epochs} epoch{'s' * (epochs != 1)}: "
        f"--epochs {2 * epochs}, or a larger --learning-rate"
    )


def _curve(facts: Facts, name: str) -> list[float]:
    """A figure over the epochs; empty where an epoch has none, or one that is no number."""
    values = [each.get(name, math.nan) for each in facts.history]
    return values if all(map(math.isfinite, values)) else []
