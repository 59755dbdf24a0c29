"""The faster way to store is found by trial, again and again."""

import pytest

from lepton_mpi.strategies.store_choice import PERIOD, TRIAL, StoreChoice


class _Steps:
    """A clock that a step in place or past the caches moves by so much; every tenth step takes longer."""

    def __init__(self, in_place: float, past: float) -> None:
        self.seconds, self.now = {False: in_place, True: past}, 0.0
        self.choice = StoreChoice(lambda: self.now)

    def take(self, count: int) -> list[bool]:
        taken = []
        for number in range(count):
            taken.append(self.choice.next())
            self.now += self.seconds[taken[-1]] + 5 * (number % 10 == 3)
        return taken


@pytest.mark.parametrize("past", [0.9, 1.1])
def test_the_faster_way_is_taken_until_the_next_trial(past):
    """Both halves of a trial are as long as it says, whatever some steps take."""
    steps = _Steps(1.0, past)
    for _ in range(3):
        taken = steps.take(PERIOD)
        assert taken[: 2 * TRIAL] == [False] * TRIAL + [True] * TRIAL
        assert set(taken[2 * TRIAL :]) == {past < 1}


def test_a_change_is_noticed_at_the_next_trial():
    """As of cores that have moved."""
    steps = _Steps(1.0, 2.0)
    assert not any(steps.take(PERIOD)[2 * TRIAL :])
    steps.seconds = {False: 2.0, True: 1.0}
    assert not steps.take(1)[0]
    assert all(steps.take(PERIOD - 1)[2 * TRIAL :])
