"""Agreement, small sums and the memory that a host's ranks share."""

from itertools import chain

import numpy as np
import pytest

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError, DataError, RankError
from lepton_mpi.world.rank_group import places_of_hosts
from tests.parallel.together import check, equal_everywhere, refused, together


def test_who_is_who(world):
    everybody = world.comm.allgather((world.rank, world.host_index, world.local_rank))
    with together(world):
        assert world.size == launcher.launched_size()
        assert world.rank == launcher.launched_rank()
        assert [rank for rank, _, _ in everybody] == list(range(world.size))
        assert [*chain(*world.ranks_of_hosts)] == list(range(world.size))
        assert len(world.ranks_of_hosts) == world.host_count
        assert world.host_ranks == world.ranks_of_hosts[world.host_index]
        assert world.host_ranks[world.local_rank] == world.rank
        assert world.local_size == len(world.host_ranks)
        assert world.lane_count == min(map(len, world.ranks_of_hosts))
        assert (world.lane_comm is None) == (
            world.host_count == 1 or world.local_rank >= world.lane_count
        )
        assert world.cores >= 1


def test_agree_on_nothing_wrong(world):
    world.agree(None)
    with world.agreeing():
        pass
    world.agree_on("the number", 7)


@pytest.mark.parametrize("kind", [ConfigurationError, DataError, RankError])
def test_an_error_of_the_last_rank_is_everybodys(world, kind):
    with refused(world, kind, "of the last"):
        world.agree(kind("of the last") if world.rank == world.size - 1 else None)


def test_the_lowest_rank_is_heard(world):
    with refused(world, DataError, f"from rank {min(1, world.size - 1)}"):
        failed = world.rank >= 1 or world.size == 1
        world.agree(DataError(f"from rank {world.rank}") if failed else None)


def test_agreeing_turns_one_ranks_error_into_everybodys(world):
    after = []
    with refused(world, DataError, "row 3"):
        with world.agreeing():
            if world.rank == world.size - 1:
                raise DataError("row 3")
        after.append("not reached")
    check(world, not after)


def test_the_rank_that_raised_keeps_its_traceback(world):
    cause = None
    try:
        with world.agreeing():
            if world.rank == world.size - 1:
                raise DataError("row 3")
    except DataError as error:
        cause = error.__cause__
    check(world, isinstance(cause, DataError) == (world.rank == world.size - 1))


def test_agree_on_names_the_rank_that_differs(world):
    if world.size == 1:
        pytest.skip("one rank cannot differ from itself")
    last = world.size - 1
    with refused(world, RankError, "the seed", "rank 0 has 5", f"rank {last} has 6"):
        world.agree_on("the seed", 6 if world.rank == last else 5)


def test_sum(world):
    values = np.array([[world.rank, 1.0], [world.rank**2, -world.rank]])
    total = world.sum(values)
    ranks = np.arange(world.size)
    with together(world):
        expected = [[ranks.sum(), world.size], [(ranks**2).sum(), -ranks.sum()]]
        np.testing.assert_array_equal(total, expected)
        assert values[0, 0] == world.rank, "the contribution was changed"


def test_sum_keeps_whole_numbers(world):
    total = world.sum(np.full(2, 2**53 + world.rank, np.int64))
    with together(world):
        assert total.dtype == np.int64
        assert total[0] == world.size * 2**53 + world.size * (world.size - 1) // 2


def test_sum_of_what_is_not_contiguous_and_of_nothing(world):
    total = world.sum(np.arange(6.0).reshape(2, 3).T)
    nothing = world.sum(np.zeros(0))
    with together(world):
        np.testing.assert_array_equal(total, world.size * np.arange(6.0).reshape(2, 3).T)
        assert nothing.shape == (0,)


def test_sum_has_the_same_bits_everywhere(world):
    equal_everywhere(world, world.sum(np.random.default_rng(world.rank).random(99)).tobytes())


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5, 3), (70_001,)])
def test_host_array_is_zero_at_first(world, shape, dtype):
    array = world.host_array(shape, dtype)
    with together(world):
        assert array.shape == shape and array.dtype == dtype and array.flags.writeable
        assert not array.any()


def test_host_array_is_seen_by_peers(world):
    array = world.host_array((world.local_size, 1000), np.int64)
    array[world.local_rank] = np.arange(1000) * world.local_size + world.local_rank
    world.host_barrier()
    seen = array.copy()
    world.host_barrier()
    array[(world.local_rank + 1) % world.local_size] = -1 - world.local_rank
    world.host_barrier()
    with together(world):
        expected = np.arange(1000) * world.local_size + np.arange(world.local_size)[:, None]
        np.testing.assert_array_equal(seen, expected)
        writer = (world.local_rank - 1) % world.local_size
        assert (array[world.local_rank] == -1 - writer).all()


def test_host_arrays_are_distinct(world):
    first, second = (world.host_array((10,), np.int64) for _ in range(2))
    first[:] = 1
    world.host_barrier()
    check(world, not second.any())


def test_places_put_the_ranks_of_a_host_next_to_each_other(world):
    """Every rank has one place, and a host's places are consecutive, however its ranks are numbered."""
    places = places_of_hosts([[0, 2], [1, 3, 4]])
    everybody = world.comm.allgather(world.place)
    with together(world):
        assert places == [range(0, 2), range(2, 5)]
        assert world.ranks_of_hosts[world.host_index][world.local_rank] == world.rank
        assert sorted(everybody) == list(range(world.size))
