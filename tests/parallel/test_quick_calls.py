"""Short calls by one kernel: the values, beside ranks that take another way, what is declined, and what the watchdog sees."""

import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.collectives.within_host import quick_calls
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels import python_functions
from tests.parallel.practice import practise
from tests.parallel.together import check, refused, together


@pytest.fixture
def one(world) -> Iterator[Communicator]:
    """All ranks, which have made each kind of call."""
    communicator = Communicator(world)
    practise(communicator)
    yield communicator
    communicator.close()


class _Counted:
    """Stands before the quick way of a communicator and counts what was done in it, and what was declined."""

    def __init__(self, one: Communicator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = self.declined = 0
        self._call = one._quickly
        monkeypatch.setattr(one, "_quickly", self)

    def __call__(self, *arguments):
        verdict = self._call(*arguments)
        self.done += verdict == 0
        self.declined += verdict == quick_calls.DECLINED
        return verdict


def _all_verbs(one: Communicator, dtype, count: int, own) -> list[str]:
    """What came out wrong; ``own`` makes this rank's array of one with the right values."""
    size, rank, wrong = one.size, one.rank, []
    rows = np.array([np.arange(count) * size + r for r in range(size)], dtype)
    parts = np.array([np.arange(count * size) + 10 * r for r in range(size)], dtype)

    def expect(name: str, found: np.ndarray, expected: np.ndarray) -> None:
        if not np.array_equal(found, expected):
            wrong.append(f"{name}, {count} of {found.dtype}")

    array = own(rows[rank].copy())
    one.allreduce(array)
    expect("allreduce", array, rows.sum(0, dtype=dtype))
    array = own(rows[rank].copy())
    one.reduce(array, size - 1, "max")
    expect("reduce", array, rows.max(0) if rank == size - 1 else rows[rank])
    array = own(rows[rank].copy())
    one.broadcast(array, size - 1)
    expect("broadcast", array, rows[size - 1])
    whole, part = own(np.zeros(count * size, dtype)), own(rows[rank].copy())
    one.allgather(whole, part)
    expect("allgather", whole, rows.reshape(-1))
    one.reduce_scatter(part, own(parts[rank].copy()))
    own_part = slice(rank * count, (rank + 1) * count)
    expect("reduce_scatter", part, parts.sum(0, dtype=dtype)[own_part])
    one.alltoall(whole, own(parts[rank].copy()))
    expect("alltoall", whole, parts[:, own_part].reshape(-1))
    one.barrier()
    return wrong


class _Subclass(np.ndarray):
    """Not what the quick way takes."""


@pytest.mark.parametrize("who", ["nobody", "the last", "all"])
def test_some_ranks_may_take_another_way(world, one, monkeypatch, who):
    """The values are those of NumPy, whoever is quick."""
    is_slow = who == "all" or (who == "the last" and one.rank == one.size - 1)
    counted, wrong = _Counted(one, monkeypatch), []
    for dtype in (np.float32, np.float64, np.int64):
        for count in (0, 1, 5, 100):
            wrong += _all_verbs(one, dtype, count, lambda a: a.view(_Subclass) if is_slow else a)
    done = 12 * (1 if is_slow else 7) if world.host_count == 1 else 0
    with together(world):
        assert not wrong, wrong[:5]
        assert (counted.done, counted.done + counted.declined) == (done, 84)


@pytest.mark.parametrize("who", ["nobody", "the last", "all"])
@pytest.mark.parametrize("count", [9_000, 131_073, 400_001])
def test_long_blocks_of_one_length(world, one, monkeypatch, who, count):
    """Broadcast, all-gather and all-to-all are quick at any length, of one part or more, staged or read where they are."""
    is_slow = who == "all" or (who == "the last" and one.rank == one.size - 1)
    counted = _Counted(one, monkeypatch)
    wrong = _all_verbs(one, np.float32, count, lambda a: a.view(_Subclass) if is_slow else a)
    with together(world):
        assert not wrong, wrong[:5]
        assert world.host_count > 1 or counted.done == (1 if is_slow else 4)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2, 3)])
def test_any_shape(world, one, monkeypatch, shape):
    """Also none."""
    counted, array = _Counted(one, monkeypatch), np.full(shape, one.rank, np.float32)
    one.allreduce(array)
    check(world, (array == one.size * (one.size - 1) // 2).all())
    check(world, counted.done == (world.host_count == 1))


def test_what_is_declined(world, one, monkeypatch):
    """It raises what it raises elsewhere, on all ranks."""
    frozen = np.zeros(2, np.float32)
    frozen.flags.writeable = False
    for array, word in ((frozen, "read-only"), (np.zeros((2, 2), np.float32)[:, 0], "contiguous")):
        with refused(world, ConfigurationError, word):
            one.allreduce(array)
    for root in (one.size, -1, 1 << 80, 0.0, None):
        with refused(world, ConfigurationError, "root"):
            one.broadcast(np.zeros(2, np.float32), root)
    with refused(world, ConfigurationError, "output"):
        one.allgather(np.zeros(one.size + 1, np.float32), np.zeros(1, np.float32))
    with refused(world, ConfigurationError, "float64"):
        one.reduce_scatter(np.zeros(1, np.float64), np.zeros(one.size, np.float32))
    # What moves have taught is no way to combine: alone, and beside a rank that moves.
    with refused(world, ConfigurationError, "op"):
        one.allreduce(np.ones(2, np.float32), None)
    with refused(world, ConfigurationError, "op"):
        one.reduce_scatter(np.ones(1, np.float32), np.ones(one.size, np.float32), None)
    array = np.ones(2, np.float32)
    with refused(world, ConfigurationError, "op"):
        if one.rank == one.size - 1:
            one.allreduce(array, None)
        else:
            one.allgather(np.ones(2 * one.size, np.float32), array)
    counted, array = _Counted(one, monkeypatch), np.ones(2, np.float32)
    one.allreduce(array, "".join(["su", "m"]))  # another object than "sum"
    one.broadcast(array, np.int64(0))
    one.broadcast(frozen if one.rank == 0 else array, 0)
    with together(world):
        assert (array == (one.size if one.rank == 0 else 0)).all()
        assert counted.done == (world.host_count == 1)


def test_more_kinds_than_are_kept(world, one):
    """What is not kept goes another way, and stays right."""
    fields = [np.dtype([(f"f{number}", np.int32, (number + 1,))]) for number in range(40)]
    wrong = []
    for _ in range(2):
        for dtype in fields:
            array = np.full(dtype.itemsize, one.rank + 1, np.uint8).view(dtype)
            one.broadcast(array, 0)
            if not (array.view(np.uint8) == 1).all():
                wrong.append(dtype)
    with together(world):
        assert not wrong


def test_the_clock(world, one):
    """The watchdog sees a rank that waits in a quick call, and its time is counted as communication."""
    clock = world.clock
    clock.enter("compute", 0)
    before, seen = clock.seconds["communication"], []
    if one.rank == 0:
        time.sleep(0.3)
        seen = [clock.phase_of(rank) for rank in range(1, world.local_size)]
    one.barrier()
    one.close()
    spent = clock.seconds["communication"] - before
    with together(world):
        assert set(seen) <= {"communication"}
        assert clock.phase_of(world.local_rank) == "compute"
        assert one.rank == 0 or spent > 0.2


def test_a_longer_limit_of_the_watchdog_stays(world, one, monkeypatch):
    """A call in the phase of a checkpoint, which may last longer, ends that phase as any call does."""
    counted = _Counted(one, monkeypatch)
    world.clock.enter("checkpoint")
    one.barrier()
    one.barrier()
    with together(world):
        assert counted.declined == (1 if world.host_count == 1 else 2)


def test_arrays_lie_as_said(world, monkeypatch):
    """Where they do not, no call is quick, and all go well."""
    with together(world):
        assert python_functions.arrays_fit()
    monkeypatch.setattr(python_functions, "ARRAY_DATA", 5)
    with together(world):
        assert not python_functions.arrays_fit.__wrapped__()
    monkeypatch.setattr(quick_calls, "arrays_fit", lambda: False)
    one = Communicator(world)
    practise(one)
    wrong = _all_verbs(one, np.float32, 3, lambda array: array)
    one.close()
    with together(world):
        assert not wrong and one._quick.call is quick_calls._declined


def test_nothing_is_kept(world, one):
    """No reference is lost or added by 10 000 calls."""
    array, op = np.ones(2, np.float32), "max"
    before = [sys.getrefcount(each) for each in (array, array.dtype, op, np.ndarray)]
    blocks = sys.getallocatedblocks()
    for _ in range(10_000):
        one.allreduce(array, op)
    after = [sys.getrefcount(each) for each in (array, array.dtype, op, np.ndarray)]
    with together(world):
        assert np.abs(np.subtract(after, before)).max() < 50
        assert abs(sys.getallocatedblocks() - blocks) < 5000  # half a block a call
