"""The fastest way is found by trial, again and again."""

import pytest

from lepton_mpi.collectives.choosing.trial import BEFORE, PERIOD, TRIAL, Trial


class _Steps:
    """A clock that a step moves by the seconds of the way it is done; every tenth step takes longer."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0
        self.trial = Trial(list(seconds), lambda: self.now)

    def take(self, count: int) -> list[str]:
        taken = []
        for number in range(count):
            taken.append(self.trial.next())
            self.now += self.seconds[taken[-1]] + 5 * (number % 10 == 3)
        return taken


@pytest.mark.parametrize("fastest", "abc")
def test_the_fastest_way_is_taken_until_the_next_trial(fastest):
    """Every part of a trial is as long as it says, whatever some steps take."""
    steps = _Steps(**{name: 0.9 if name == fastest else 1.0 for name in "abc"})
    assert set(steps.take(BEFORE)) == {"a"}
    for _ in range(3):
        taken = steps.take(PERIOD)
        assert taken[: 3 * TRIAL] == [name for name in "abc" for _ in range(TRIAL)]
        assert set(taken[3 * TRIAL :]) == {fastest}


def test_a_change_is_noticed_at_the_next_trial():
    """As of cores that have moved."""
    steps = _Steps(a=1.0, b=2.0)
    steps.take(BEFORE)
    assert set(steps.take(PERIOD)[2 * TRIAL :]) == {"a"}
    steps.seconds = {"a": 2.0, "b": 1.0}
    assert steps.take(1) == ["a"]
    assert set(steps.take(PERIOD - 1)[2 * TRIAL :]) == {"b"}


def test_one_way_needs_no_trial():
    steps = _Steps(a=1.0)
    assert set(steps.take(2 * PERIOD)) == {"a"}
    assert steps.trial.steps_to_settle == 0


def test_how_long_the_first_trial_takes():
    steps = _Steps(a=3.0, b=1.0, c=2.0)
    taken = steps.take(PERIOD)
    assert taken[steps.trial.steps_to_settle - 1] == "c"  # the last that is tried
    assert set(taken[steps.trial.steps_to_settle :]) == {"b"}
