"""Long reductions on a machine that other processes keep busy: the direct form, and when it is taken."""

import numpy as np
import pytest

from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.collectives.within_host.lost_turns import LostTurns
from lepton_mpi.collectives.within_host.meeting_kernels import TURNS
from lepton_mpi.errors import RankError
from tests.parallel.together import refused, together


@pytest.fixture
def direct(world, monkeypatch):
    """A communicator whose long reductions are direct, and one whose are staged."""
    if world.host_count > 1:
        pytest.skip("for ranks of one host")
    communicators = Communicator(world), Communicator(world)
    if communicators[0]._ways._lost_turns._is_possible:
        monkeypatch.setattr(communicators[0]._ways._lost_turns, "begin", lambda: True)
    yield communicators
    for each in communicators:
        each.close()


def _array(dtype, count, rank):
    generator = np.random.default_rng(rank)
    if np.dtype(dtype).kind == "f":
        return generator.standard_normal(count).astype(dtype)
    return generator.integers(0, 1 << 14, count).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "uint16"])
@pytest.mark.parametrize("odd", [0, 1, 37])
def test_the_same_bits_as_in_stages(world, direct, dtype, odd):
    """Of allreduce and reduce-scatter; lengths that do not divide, 16-bit floats in float32."""
    kind = "bfloat16" if dtype == "uint16" else None
    count = (1 << 20) + odd
    array = _array(dtype, count, world.rank)
    found = []
    for communicator in direct:
        mine = array.copy()
        communicator.allreduce(mine, "sum", kind)
        whole = np.resize(array, world.size * (count // 2))
        part = np.empty(count // 2, dtype)
        communicator.reduce_scatter(part, whole, "max", kind)
        found.append((mine, part))
    with together(world):
        for one, other in zip(*found, strict=True):
            assert one.tobytes() == other.tobytes()


def test_calls_that_differ_are_told(world, direct):
    """By an error of all ranks, after which calls go on."""
    if world.size == 1:
        pytest.skip("for several ranks")
    communicator, _ = direct
    with refused(world, RankError, "differs between ranks"):
        communicator.allreduce(np.ones((1 << 19) + world.rank))
    array = np.full(1 << 19, world.rank + 1.0)
    communicator.allreduce(array)
    with together(world):
        assert (array == world.size * (world.size + 1) / 2).all()


def test_all_ranks_change_together(world):
    """When one of them has lost turns; for 16 calls, then for 32, and never where memory cannot be read."""
    for is_possible in (True, False):
        words = memoryview(np.zeros(64, np.int64))
        turns, forms = LostTurns(world, words, is_possible), []
        for _ in range(54):
            forms.append(turns.begin())
            if not forms[-1] and world.rank == 0:
                words[TURNS] += 3
            world.comm.barrier()
            turns.end(1 << 20)
        with together(world):
            expected = [False, False, *[True] * 16, False, False, *[True] * 32, False, False]
            assert forms == (expected if is_possible else [False] * 54)
