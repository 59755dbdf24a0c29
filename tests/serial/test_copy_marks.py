"""Which copy of an elastic run is whole, as those that are left find in memory of the host."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from lepton_mpi.options.config import Config
from lepton_mpi.run.copy_marks import CopyMarks
from lepton_mpi.run.elastic import Points
from lepton_mpi.run.resume import Start
from lepton_mpi.world.losses import RankLostError
from tests.serial.plan_host import PlanHost


class _Host:
    """Three ranks, and whether one of them is known to be lost."""

    def __init__(self) -> None:
        self.is_lost = False
        groups = PlanHost(3).groups
        for group in groups:
            group.check_losses = self._check
        self.marks = [CopyMarks(group) for group in groups]

    def _check(self) -> None:
        if self.is_lost:
            raise RankLostError

    def met(self, number: int) -> list[tuple[list[float], int]]:
        """What each is told, of sums of its own."""
        found: list = [None] * 3

        def meet(rank: int) -> None:
            sums, interval = self.marks[rank].meet(number, (rank + 0.5, float(number)), 7 + rank)
            found[rank] = sums.tolist(), interval

        threads = [threading.Thread(target=meet, args=(rank,)) for rank in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(20)
        return found

    def whole(self, number: int) -> list[bool]:
        return [each.are_all_done(number) for each in self.marks]


def test_all_are_told_the_same():
    """Sums in the order of ranks, and when the next copy is due by the first of them."""
    host = _Host()
    for number in range(3):
        assert host.met(number) == [([0.5 + 1.5 + 2.5, 3.0 * number], 7)] * 3


def test_a_copy_is_whole_once_all_are_done():
    host = _Host()
    host.met(0)
    for rank in range(3):
        assert host.whole(0) == [False] * 3
        host.marks[rank].done(0)
    assert host.whole(0) == [True] * 3 and host.whole(1) == [False] * 3


def test_a_copy_in_which_a_rank_was_lost_is_not():
    """The others may have come out of their waits, and have changed what the last one still copied."""
    host = _Host()
    host.met(4)
    for rank in range(2):
        host.marks[rank].done(4)
    host.is_lost = True
    with pytest.raises(RankLostError):
        host.marks[2].done(4)
    assert host.whole(4) == [False] * 3


@pytest.mark.parametrize(
    ("base", "taken", "are_done", "expected"),
    [(2, 4, True, 4), (2, 4, False, 3), (2, 3, False, 2), (2, 2, False, 2), (-1, 0, True, 0)],
)
def test_the_newest_whole_one_is_taken(base, taken, are_done, expected):
    points, world = Points(Config()), SimpleNamespace(least=lambda value: value, has_joined=False)
    points._base, points._taken, points._sees = base, taken, [True, True]
    points._starts = [Start(step=step) for step in (10, 11)]
    points._marks = SimpleNamespace(are_all_done=lambda number: are_done)
    assert points.newest(world) == Start(step=10 + expected % 2)
    assert points._base == points._taken == expected and points._marks is None


def test_before_the_first_is_whole_the_run_begins_again():
    points, world = Points(Config()), SimpleNamespace(least=lambda value: value, has_joined=False)
    points._taken, points._sees = 0, [True, False]
    points._marks = SimpleNamespace(are_all_done=lambda number: False)
    assert points.newest(world) == Start(begins_again=True)
    assert points._rooms == [{}, {}] and not np.any(points._sees)
