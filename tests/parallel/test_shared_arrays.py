"""Arrays in memory that can be shared are summed where they lie; those that cannot be mapped are staged, with the same sums."""

import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest

from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.collectives.shared_arrays import SharedArrays, Whereabouts
from tests.parallel.together import together

_COUNT, _OFFSET = 5000, 64


@pytest.fixture
def arrays(world) -> Iterator[SharedArrays]:
    """Of all ranks."""
    if world.host_count > 1:
        pytest.skip("for ranks of one host")
    communicator = Communicator(world)
    yield SharedArrays(communicator)
    communicator.close()


class _Shared:
    """An array in a file without a name."""

    def __init__(self, world) -> None:
        self.descriptor = os.memfd_create("array")
        os.ftruncate(self.descriptor, 1 << 16)
        self.array = np.frombuffer(mmap.mmap(self.descriptor, 1 << 16), np.float32, _COUNT, _OFFSET)
        self.where = Whereabouts(self.descriptor, _OFFSET)
        self._world = world

    def fill(self) -> None:
        self.array[:] = np.arange(_COUNT) * self._world.size + self._world.rank

    @property
    def is_summed(self) -> bool:
        size = self._world.size
        expected = np.arange(_COUNT) * size * size + size * (size - 1) // 2
        return np.array_equal(self.array, expected.astype(np.float32))

    def close(self) -> None:
        os.close(self.descriptor)


def _reduce(world, arrays: SharedArrays, slot: int, shared: _Shared, where) -> tuple[bool, bool]:
    """Whether it was in place, and right."""
    shared.fill()
    return arrays.allreduce(slot, shared.array, where), shared.is_summed


def test_arrays_are_summed_in_place(world, arrays):
    """Again and again, and where one of them has moved."""
    one = _Shared(world)
    found = [_reduce(world, arrays, 0, one, one.where) for _ in range(3)]
    moved = _Shared(world) if world.rank == world.size - 1 else one
    found += [_reduce(world, arrays, 0, moved, moved.where) for _ in range(3)]
    with together(world):
        assert found == 6 * [(True, True)]


def test_an_array_that_cannot_be_shared_is_staged(world, arrays):
    """On all ranks, and from then on."""
    one = _Shared(world)
    where = None if world.rank == world.size - 1 else one.where
    found = [_reduce(world, arrays, 3, one, where) for _ in range(3)]
    with together(world):
        assert found == 3 * [(False, True)]


def test_another_process_of_that_number_is_not_mapped(world, arrays, monkeypatch):
    """In containers a number may be that of any process, whose file of that descriptor is long enough by chance."""
    if world.size == 1:
        pytest.skip("one rank maps nothing")
    one = _Shared(world)
    os.dup2(one.descriptor, 200)
    own, first = os.getpid(), world.broadcast(os.getpid())
    monkeypatch.setattr(os, "getpid", lambda: first if world.rank == world.size - 1 else own)
    found = [_reduce(world, arrays, 5, one, Whereabouts(200, _OFFSET)) for _ in range(2)]
    os.close(200)
    with together(world):
        assert found == 2 * [(False, True)]
