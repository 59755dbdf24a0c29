"""``--save-every``: all ranks save after the same step, whatever their clocks say, and not later than they should."""

import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run import save_timer
from lepton_mpi.run.save_timer import SaveTimer
from lepton_mpi.world.watchdog import PhaseClock


class _Ranks:
    """Two ranks in turn: rank 1 gets what rank 0 has said in the same step."""

    def __init__(self):
        self.clock, self.said = PhaseClock(), []

    def broadcast(self, value):
        self.said.append(value)
        return self.said[-1]


class _Follower(_Ranks):
    def __init__(self, leader):
        super().__init__()
        self.leader = leader

    def broadcast(self, value):
        self.said.append(value)
        return self.leader.said[len(self.said) - 1]


@pytest.mark.parametrize(
    ("step_seconds", "latest"),
    [([0.001], 10.05), ([0.7], 10.8), ([25.0], 25.0), ([0.01, 0.05], 13)],
)
def test_ranks_agree_and_are_in_time(monkeypatch, step_seconds, latest):
    """Rank 1's clock runs at half the speed. Steps become five times as long in the last case, between two questions."""
    now, speed = [0.0], [1.0]
    monkeypatch.setattr(save_timer, "monotonic", lambda: now[0] * speed[0])
    leader = _Ranks()
    follower = _Follower(leader)
    timers = []
    for clock_speed, ranks in ((1.0, leader), (0.5, follower)):
        speed[0] = clock_speed
        timers.append(SaveTimer(ranks, 10.0))
    saved, last = [], 0.0
    for step in range(200_000):
        now[0] += step_seconds[min(len(step_seconds) - 1, step // 500)]
        due = []
        for clock_speed, timer in zip((1.0, 0.5), timers, strict=True):
            speed[0] = clock_speed
            due.append(timer.is_due())
        assert due[0] == due[1]
        if due[0]:
            saved.append(now[0] - last)
            last = now[0]
            for clock_speed, timer in zip((1.0, 0.5), timers, strict=True):
                speed[0] = clock_speed
                timer.saved()
        if len(saved) == 5:
            break
    assert len(saved) == 5 and all(10.0 - 1e-6 <= each <= latest + 1e-6 for each in saved), saved
    if step_seconds == [0.001]:
        assert len(leader.said) <= 25 * 5, "asks more often than is of use"


def test_another_checkpoint_begins_the_time_anew(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(save_timer, "monotonic", lambda: now[0])
    timer = SaveTimer(_Ranks(), 10.0)
    for step in range(1, 40):
        now[0] += 1.0
        assert timer.is_due() == (step == 18)
        if step in (8, 18):
            timer.saved()
        if step == 27:
            break


def test_times_have_units_and_need_a_folder():
    assert Config(save_every="1h30min", checkpoint="runs").save_every == 5400.0
    for value in ("10", "0s"):
        with pytest.raises(ConfigurationError, match="--save-every: expected"):
            Config(save_every=value, checkpoint="runs")
    with pytest.raises(ConfigurationError, match="--save-every: expected a folder"):
        Config(save_every="10min")
