"""What ``benchmarks/checks.py`` makes of times of steps, and which rows are no good."""

import pytest

from benchmarks.checks import find_problems
from benchmarks.engines.checks_ranks import split


def test_a_check_is_what_it_adds_to_the_steps_around_it():
    """Digests behind step 100, and those of the next update; outliers elsewhere count nothing."""
    seconds = dict.fromkeys(range(1, 1001), 1.0)
    for step in range(100, 1001, 100):
        seconds |= {step: 2.5, step + 1: 1.25}
    seconds |= {50: 90.0, 151: 70.0}
    assert split(seconds, 100) == pytest.approx((1.0, 1.75))


def test_without_checks_there_is_none():
    assert split({1: 2.0, 2: 3.0, 3: 9.0}, 0) == (3.0, 0.0)


@pytest.mark.parametrize(
    ("way", "share", "said"),
    [
        ("check-every", 0.009, 0),
        ("check-every", 0.011, 1),
        ("check-every", float("nan"), 1),
        ("on-nan skip", 0.0, 0),
    ],
)
def test_what_is_a_problem(way, share, said):
    row = {"model": "mlp", "rows_per_rank": 64, "ranks": 2, "way": way, "every": 100}
    assert len(list(find_problems([row | {"share": share}]))) == said
