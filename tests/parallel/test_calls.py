"""Ranks that meet in different calls raise one error that names both, before anything else is sent, and may go on."""

import numpy as np
import pytest

from lepton_mpi.errors import RankError
from lepton_mpi.world import calls
from tests.parallel.together import refused, together

_CALLS = {
    "agree()": lambda world: world.agree(None),
    "agree_on()": lambda world: world.agree_on("it", 1),
    "broadcast()": lambda world: world.broadcast("text"),
    "sum(3 of float64)": lambda world: world.sum(np.ones(3)),
    "sum(4 of float64)": lambda world: world.sum(np.ones(4)),
    "sum(3 of float32)": lambda world: world.sum(np.ones(3, np.float32)),
    "sum(3 of int64)": lambda world: world.sum(np.ones(3, np.int64)),
    "sum(5000 of float64)": lambda world: world.sum(np.ones(5000)),
    "array_of(float64, root 0)": lambda world: world.array_of(0, np.ones(2)),
    "array_of(float32, root 0)": lambda world: world.array_of(0, np.ones(2, np.float32)),
    "least()": lambda world: world.least(4),
}


@pytest.mark.parametrize("one", _CALLS)
def test_different_calls_are_named(world, one):
    """Every other call against this one, by the last rank; the group is of use afterwards."""
    if world.size == 1:
        pytest.skip("one rank agrees with itself")
    last = world.size - 1
    for other in _CALLS:
        if other == one:
            continue
        words = [
            f"rank 0 calls {one} at test_calls.py:",
            f"rank {last} calls {other} at test_calls.py:",
        ]
        with refused(world, RankError, "of the ranks differs", *words):
            _CALLS[other if world.rank == last else one](world)
    assert world.least(world.rank) == 0


def test_a_skipped_and_an_extra_call_are_named(world):
    """At the next call that is another one."""
    if world.size == 1:
        pytest.skip("one rank agrees with itself")
    with refused(world, RankError, "rank 0 calls sum(1 of float64)", "rank 1 calls agree()"):
        if world.rank != 1:
            world.sum(np.ones(1))
        world.agree(None)
    with refused(world, RankError, "rank 0 calls least()", "rank 1 calls broadcast()"):
        if world.rank == 1:
            world.broadcast(1)
        world.least(1)


@pytest.mark.parametrize("count", [0, 1, 10, 11, 300])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint64])
def test_sums_with_and_without_a_message_of_their_own(world, count, dtype):
    """Ten float64 go with the call; in the order of ranks, and of any shape."""
    assert calls.ROOM_BYTES == 80
    values = (np.arange(count) * world.size + world.rank).astype(dtype)
    expected = sum(
        (np.arange(count) * world.size + rank).astype(dtype) for rank in range(world.size)
    )
    found = world.sum(values), world.sum(values.reshape(1, count))
    with together(world):
        assert found[0].dtype == dtype and found[0].tolist() == np.asarray(expected).tolist()
        assert found[1].shape == (1, count) and np.array_equal(found[1][0], found[0])


def test_values_that_no_digest_tells_apart_are_compared_themselves(world):
    """Equal ones that are pickled in other ways, too."""
    world.agree_on("a set", {"b", "a"} if world.rank else {"a", "b"})
    world.agree_on("numbers", [1.0, True] if world.rank else [1, 1])
    if world.size > 1:
        with refused(world, RankError, "it differs between ranks: rank 0 has 0, rank 1 has 1"):
            world.agree_on("it", min(world.rank, 1))
    biggest = np.iinfo(np.int64).max
    assert world.least(biggest - world.rank) == biggest - world.size + 1
