"""Which rank is called slow, by the accounts of all."""

import pytest

from lepton_mpi.run.per_rank import RankAccount, slow_rank
from lepton_mpi.world.heartbeats import PHASES


def _account(rank: int, micro_batches: int = 2, **seconds: float) -> RankAccount:
    given = dict.fromkeys(PHASES, 0.0) | seconds
    return RankAccount(rank, "node1", given, 1 << 20, micro_batches)


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("phase", ["compute", "input"])
def test_the_slow_rank_and_its_phase(size, phase):
    """The last rank, whatever the number of ranks."""
    accounts = [_account(rank, compute=1.0, input=0.1, waiting=2.0) for rank in range(size - 1)]
    slow = {"compute": 1.0, "input": 0.1, "waiting": 0.1}
    slow[phase] += 2.0
    found = slow_rank([*accounts, _account(size - 1, **slow)])
    assert (found.rank, found.phase) == (size - 1, phase)
    assert f"rank {size - 1}, {phase}: " in str(found)
    assert "micro-batches" not in str(found)


def test_one_rank_waits_for_nobody():
    """There is nobody to compare with."""
    assert slow_rank([_account(0, compute=5.0)]) is None


@pytest.mark.parametrize(
    "compute",
    [
        # Alike; nothing to do; a little slower; so short beside the exchange, or at all, that nobody minds.
        [1.0, 1.01, 0.99],
        [0.0, 0.0, 0.0],
        [1.0, 1.0, 1.4],
        [0.1, 0.1, 0.19],
        [0.01, 0.01, 0.09],
        # Ranks that take turns on a core: all differ.
        [1.0, 2.0, 3.0, 4.0],
    ],
)
def test_nobody_is_named_without_need(compute):
    """Ranks differ by chance."""
    accounts = [
        _account(rank, compute=seconds, communication=1.0) for rank, seconds in enumerate(compute)
    ]
    assert slow_rank(accounts) is None


def test_a_rank_that_has_more_to_do_is_told_so():
    """It is no fault of its processor."""
    found = slow_rank([_account(0, 2, compute=2.0), _account(1, 1, compute=1.0)])
    assert "2 micro-batches of a step, the others 1" in str(found)
