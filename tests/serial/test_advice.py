"""Advice for poor results: what it must be said of, and the neighbour of each of which it must not."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from lepton_mpi.reporting.metrics import RunRecord
from lepton_mpi.reporting.results import heading
from lepton_mpi.run.advice import Facts, advise, diverged, waiting_text

CHANCE = math.log(10)


def curves(train, val=None):
    """A history; losses by epoch."""
    val = [math.nan] * len(train) if val is None else val
    pairs = zip(train, val, strict=True)
    found = [{"epoch": n, "loss": t, "val_loss": v} for n, (t, v) in enumerate(pairs, 1)]
    return [{k: v for k, v in each.items() if v == v} for each in found]


def falling(start, end, epochs=30):
    return np.geomspace(start, end, epochs).tolist()


# What digits and breast_cancer do by their recipes, and a learner of two thirds of what there is to learn.
DIGITS = [1.35, 0.68, 0.41, 0.3, 0.25, 0.2, 0.18, 0.16, 0.15, 0.147, 0.147, 0.134, 0.123, 0.12, 0.12, 0.113, 0.114, 0.109, 0.101, 0.107,
          0.11, 0.1, 0.105, 0.107, 0.115, 0.11, 0.098, 0.101, 0.097, 0.096]  # fmt: skip
CANCER = [0.494, 0.376, 0.303, 0.257, 0.225, 0.201, 0.183, 0.168, 0.157, 0.148, 0.14, 0.132, 0.127, 0.122, 0.117, 0.114, 0.11, 0.106,
          0.103, 0.101]  # fmt: skip
LOANS = [0.516, 0.504, 0.497, 0.492, 0.494, 0.486, 0.484, 0.485, 0.484, 0.483, 0.483, 0.483]
GOOD = {
    "digits": Facts(
        curves(falling(1.9, 0.03), DIGITS), CHANCE, confusion=np.eye(10, dtype=int) * 9
    ),
    "cancer": Facts(curves(falling(0.6, 0.12, 20), CANCER), math.log(2)),
    "loans": Facts(curves(falling(0.57, 0.43, 12), LOANS), math.log(2)),
    "one epoch": Facts(curves([2.0], [1.9]), CHANCE),
    "none": Facts(),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_healthy_run_gets_none(name):
    assert advise(GOOD[name]) == []


def confusion(right, wrong, classes=2):
    """Of a largest class with ``right`` rows, and ``wrong`` rows of the others, which are all taken for the first."""
    found = np.zeros((classes, classes), int)
    found[0, 0], found[1:, 0] = right, wrong // (classes - 1)
    return found


_LEARNS = np.array([[950, 0], [30, 20]])
_PICTURE = {"row_shape": (32, 32, 1), "model": "mlp"}
_GUESSED = confusion(40, 60, 3)

# What must be said, beside the facts of which it must be, and those nearby of which it must not be.
CASES = {
    "one class dominates": (
        "--class-weights balanced",
        Facts(confusion=confusion(950, 50)),
        [
            Facts(confusion=_LEARNS),
            Facts(confusion=confusion(950, 50), weighs_classes=True),
        ],
    ),
    "nothing learnt": (
        "nothing was learnt",
        Facts(confusion=confusion(100, 900, 10)),
        [Facts(confusion=confusion(100, 900, 10) + np.eye(10, dtype=int))],
    ),
    "pictures": (
        "--model cnn",
        Facts(confusion=_GUESSED + np.eye(3, dtype=int), **_PICTURE),
        [
            Facts(confusion=_GUESSED + 1000 * np.eye(3, dtype=int), **_PICTURE),
            Facts(confusion=_GUESSED + np.eye(3, dtype=int), **_PICTURE | {"model": "cnn"}),
            Facts(confusion=_GUESSED + np.eye(3, dtype=int), row_shape=(64,), model="mlp"),
            Facts(confusion=_GUESSED + np.eye(3, dtype=int), row_shape=(8, 8), model="mlp"),
        ],
    ),
    "targets": (
        "--target-scale standard",
        Facts(r2=-15.0, target_mean=2e5, target_deviation=5e4),
        [
            Facts(r2=0.9, target_mean=2e5, target_deviation=5e4),
            Facts(r2=0.1, target_mean=0.3, target_deviation=1.2),
            Facts(r2=0.1, target_mean=0.0, target_deviation=0.0),
        ],
    ),
    "small targets": (
        "--target-scale standard",
        Facts(r2=-2.0, target_mean=0.01, target_deviation=0.002),
        [Facts(r2=0.4, target_mean=0.5, target_deviation=0.3)],
    ),
    "still falling": (
        "--epochs 6",
        Facts(curves([1.9, 1.2, 0.8], [1.5, 1.0, 0.7]), CHANCE),
        [
            Facts(curves([1.9, 1.2, 0.8], [1.5, 1.0, 0.7]), CHANCE, stopped_early=True),
            Facts(curves([1.9, 1.2, 0.8], [1.5, 0.71, 0.7]), CHANCE),
        ],
    ),
    "a rate that is too small": (
        "larger --learning-rate",
        Facts(curves(falling(2.4, 1.9)), CHANCE),
        [Facts(curves([2.4] * 5 + [1.9] * 25), CHANCE)],
    ),
    "validation rises": (
        "has risen since epoch 6,",
        Facts(curves(falling(1.9, 0.001, 20), [1, 0.8, 0.6, 0.5, 0.45, 0.4, 0.42, *np.linspace(0.45, 0.9, 13)])),
        [
            Facts(curves(falling(1.9, 0.001, 20), [*np.linspace(1, 0.4, 6), *np.linspace(0.4, 0.46, 14)])),
            Facts(curves(falling(1.9, 0.001, 20), [1, 0.8, 0.6, 0.5, 0.45, 0.4, 0.42, *np.linspace(0.45, 0.9, 13)]), keeps_best=True),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_in_a_line_with_the_option(name):
    expected, poor, others = CASES[name]
    (line,) = advise(poor)
    assert expected in line and "\n" not in line
    for other in others:
        assert not [line for line in advise(other) if expected in line], other


def test_several_things_are_several_lines():
    facts = dataclasses.replace(CASES["still falling"][1], confusion=confusion(950, 50))
    assert len(advise(facts)) == 2


@pytest.mark.parametrize(
    ("ranks", "cores", "waiting", "expected"),
    [
        (8, 8, 0.79, "--global-batch 256 --base-batch 64, or fewer ranks"),
        (8, 8, 0.4, "a step is short for so many, or their work is uneven"),
        (8, 2, 0.79, "which is normal here: 8 ranks of a host take turns on 2 cores"),
    ],
)
def test_few_rows_a_step(ranks, cores, waiting, expected):
    """Where each rank has a core, and only there, a step is too short."""
    assert expected in waiting_text(ranks, cores, 64, waiting)


@pytest.mark.parametrize(
    ("loss", "first", "chance", "is_diverged"),
    [
        (755066.0, 2.4, CHANCE, True),
        (240.9, 2.41, CHANCE, False),
        (241.1, 2.41, CHANCE, True),
        (3.0, 0.01, CHANCE, False),  # a model that was good and is trained on
        (1e6, math.nan, math.nan, False),
        (1e6, math.nan, CHANCE, True),  # which goes on from a checkpoint
        (1e6, 4e10, math.nan, False),  # targets that are not scaled
        (5.0, -3.0, math.nan, False),  # a likelihood of one's own
    ],
)
def test_diverged(loss, first, chance, is_diverged):
    """A hundred times what the loss was at the beginning, and of a model that knows nothing."""
    assert diverged(loss, first, chance) is is_diverged


def test_a_loss_that_comes_down_from_afar_asks_for_no_more_epochs():
    """Of the same curve at a loss below chance they are asked for."""
    falling = [8.0 * 0.8**n for n in range(10)]
    near = advise(
        Facts(history=curves([CHANCE / 8 * loss for loss in falling]), chance_loss=CHANCE)
    )
    assert any("still falls" in line for line in near)
    far = advise(Facts(history=curves([CHANCE * 5 * loss for loss in falling]), chance_loss=CHANCE))
    assert not any("still falls" in line for line in far)


def test_the_page_of_report_shows_it():
    """As text: whoever wrote the file may have written anything."""
    end = {"advice": ["one & two: --epochs 60", 7]}
    record = RunRecord("a.jsonl", Path("a.jsonl"), end=end)
    shown = str(heading([record]))
    assert "a.jsonl: advice: one &amp; two: --epochs 60." in shown and "advice: 7" not in shown
    assert "advice" not in str(heading([RunRecord("b", Path("b"), end={"advice": "no list"})]))
