"""``mean`` and ``broadcast`` in a loop of one's own: in place, of any structure, and wrong calls are the same error on all ranks."""

import collections

import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.errors import ConfigurationError, RankError
from lepton_mpi.run import own_loop
from tests.parallel.together import refused, together


@pytest.fixture(scope="module", autouse=True)
def given_back(world):
    """Else its world would watch the tests of other files."""
    yield
    own_loop.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mean_is_in_place(world, dtype):
    """Of arrays of any shape in lists, tuples and dicts; numbers come back new."""
    pair = collections.namedtuple("pair", ["a", "b"])
    whole = np.arange(12, dtype=dtype).reshape(3, 4) * (world.rank + 1)
    given = {
        "w": whole,
        "list": [np.full(5, world.rank, dtype), np.zeros((0, 2), dtype)],
        "pair": pair(np.full((), world.rank, dtype), world.rank),
        "column": (np.arange(6, dtype=dtype).reshape(3, 2) * (world.rank + 1))[:, 1],
    }
    found = lepton_mpi.mean(given)
    middle = (world.size - 1) / 2
    with together(world):
        assert found["w"] is whole and type(found["pair"]) is pair and found["list"] is not None
        assert np.array_equal(whole, np.arange(12).reshape(3, 4) * (middle + 1))
        assert found["list"][0] is given["list"][0] and (given["list"][0] == middle).all()
        assert found["pair"].a == middle and found["pair"].b == middle
        assert isinstance(found["pair"].b, float)
        assert np.array_equal(given["column"], np.arange(6).reshape(3, 2)[:, 1] * (middle + 1))
        assert lepton_mpi.rank() == world.rank and lepton_mpi.world_size() == world.size


def test_random_numbers_have_the_bits_of_one_order(world):
    """On every rank the same, and close to the mean in float64."""
    values = np.random.default_rng(world.rank).standard_normal(10_007).astype(np.float32)
    everybody = np.array(world.comm.allgather(values), np.float64)
    found = lepton_mpi.mean(values)
    bits = world.comm.allgather(found.tobytes())
    bound = world.size * 2**-24 * np.abs(everybody).sum(0) / world.size + 1e-30
    with together(world):
        assert len(set(bits)) == 1
        assert (np.abs(found - everybody.mean(0)) <= bound).all()


def test_broadcast_is_in_place(world):
    """Of any type, from any rank."""
    root = world.size - 1
    given = [np.full(3, world.rank), np.full(2, world.rank % 2 == 0), world.rank, world.rank + 0.5]
    found = lepton_mpi.broadcast(given, root)
    with together(world):
        assert found[0] is given[0] and (given[0] == root).all()
        assert (given[1] == (root % 2 == 0)).all() and found[2:] == [root, root + 0.5]
        assert type(found[2]) is int


def test_wrong_calls_are_the_same_error_on_all_ranks(world):
    """Also if one rank alone is wrong; the next call works."""
    last = world.size - 1
    read_only = np.zeros(3)
    read_only.flags.writeable = world.rank != last
    with refused(world, ConfigurationError, "expected a writable array"):
        lepton_mpi.mean([read_only])
    with refused(world, ConfigurationError, "expected a NumPy array, a number", "got str"):
        lepton_mpi.mean({"a": "text" if world.rank == last else np.ones(2)})
    with pytest.raises(ConfigurationError, match="expected an array of floats"):
        lepton_mpi.mean(np.arange(3))
    with pytest.raises(ConfigurationError, match="root: expected a rank, 0 to"):
        lepton_mpi.broadcast(np.zeros(2), world.size)
    if world.size > 1:
        is_last = world.rank == last
        for wrong in (
            {"a": np.zeros(3 + is_last)},
            {"a": np.zeros(3, np.float32 if is_last else np.float64)},
            {"b" if is_last else "a": np.zeros(3)},
            [np.zeros(3), *([np.zeros(1)] * is_last)],
        ):
            with refused(world, RankError, "what is combined differs between ranks"):
                lepton_mpi.mean(wrong)
        order = ("a", "b") if is_last else ("b", "a")
        with refused(world, RankError, "what is combined differs between ranks"):
            lepton_mpi.mean({name: np.zeros(3) for name in order})
    found = lepton_mpi.mean(np.full(4, world.rank, np.float64))
    with together(world):
        assert (found == (world.size - 1) / 2).all()
