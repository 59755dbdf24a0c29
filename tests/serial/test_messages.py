"""Plans over messages between threads: the contract of ``MessagePlan`` for every schedule."""

import itertools
import time

import numpy as np
import pytest

from lepton_mpi.collectives.messages.plan import MessagePlan
from lepton_mpi.collectives.messages.threads import ThreadWorld, run_ranks
from lepton_mpi.collectives.schedules.ring import RING
from tests import extremes
from tests.contributions import (
    SEGMENT_ELEMENTS,
    lengths,
    numbered,
    numbered_sum,
    random,
    rounding_bound,
)
from tests.serial.algorithms import ALL

CASES = [
    pytest.param(algorithm, world_size, rendezvous, id=f"{algorithm.name}-{world_size}-{kind}")
    for algorithm in ALL
    for world_size in range(1, 10)
    for rendezvous, kind in ((False, "eager"), (True, "rendezvous"))
]


def _sums(
    algorithm, world_size: int, rendezvous: bool, parts: list[np.ndarray], runs: int = 1
) -> list[list]:
    """``[rank][run]``: what each run left in each rank's buffer, which starts as ``parts[rank]``."""

    def rank_sums(transport):
        buffer = parts[transport.rank].copy()
        plan = MessagePlan(algorithm, buffer, transport, SEGMENT_ELEMENTS * buffer.itemsize)
        results = []
        for _ in range(runs):
            plan.run()
            results.append(buffer.copy())
        return results

    return run_ranks(ThreadWorld(world_size, rendezvous=rendezvous), rank_sums)


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize(("algorithm", "world_size", "rendezvous"), CASES)
def test_whole_numbers_are_summed_exactly_twice_in_a_row(algorithm, world_size, rendezvous):
    """Every rank's buffer becomes the closed form of the sum, and on a second run ``world_size`` times that."""
    for count, dtype in itertools.product(lengths(world_size), (np.float32, np.float64)):
        parts = [numbered(rank, world_size, count, dtype) for rank in range(world_size)]
        expected = numbered_sum(world_size, count, dtype)
        for first, second in _sums(algorithm, world_size, rendezvous, parts, runs=2):
            np.testing.assert_array_equal(first, expected, strict=True)
            np.testing.assert_array_equal(second, expected * world_size)


@pytest.mark.parametrize(("algorithm", "world_size", "rendezvous"), CASES)
def test_random_numbers_are_summed_within_the_bound_and_to_equal_bits(
    algorithm, world_size, rendezvous
):
    """The sum of floats is within the rounding bound of the float64 sum, the same bits on all ranks and runs."""
    count = SEGMENT_ELEMENTS * world_size + 1
    for dtype in (np.float32, np.float64):
        parts = [random(rank, count, dtype) for rank in range(world_size)]
        results = [result for (result,) in _sums(algorithm, world_size, rendezvous, parts)]
        again = [result for (result,) in _sums(algorithm, world_size, not rendezvous, parts)]
        assert {result.tobytes() for result in results + again} == {results[0].tobytes()}
        exact = np.sum([part.astype(np.longdouble) for part in parts], axis=0)
        assert (np.abs(results[0] - exact) <= rounding_bound(parts)).all()


@pytest.mark.parametrize("world_size", range(1, 10))
def test_ring_sends_its_share_of_the_bytes(world_size):
    """Over all ranks the ring sends 2(p-1) N elements, whatever N, and each rank 2(p-1)/p N when p divides N."""
    for count in lengths(world_size):

        def elements_sent(transport, count=count):
            MessagePlan(RING, np.zeros(count), transport, SEGMENT_ELEMENTS * 8).run()
            return transport.elements_sent

        sent = run_ranks(ThreadWorld(world_size), elements_sent)
        assert sum(sent) == 2 * (world_size - 1) * count
        if count % world_size == 0:
            assert set(sent) == {2 * (world_size - 1) * count // world_size}


def test_several_plans_take_turns():
    """Plans over slices of one vector, of different lengths, can run in any order that is common to the ranks."""
    bounds = [(0, 5), (5, 5), (5, 40), (40, 41)]

    def rank_sums(transport):
        vector = numbered(transport.rank, 3, 41, np.float64)
        plans = [MessagePlan(RING, vector[start:stop], transport, 64) for start, stop in bounds]
        for index in (2, 0, 3, 1):
            plans[index].run()
        return vector

    for vector in run_ranks(ThreadWorld(3), rank_sums):
        np.testing.assert_array_equal(vector, numbered_sum(3, 41, np.float64))


def test_memory_beside_the_buffer_is_left_alone():
    """A plan on a slice writes nothing outside it."""

    def rank_vector(transport):
        vector = np.full(30, -1.0)
        vector[10:20] = transport.rank
        MessagePlan(RING, vector[10:20], transport, 16).run()
        return vector

    for vector in run_ranks(ThreadWorld(4), rank_vector):
        np.testing.assert_array_equal(vector, [-1.0] * 10 + [6.0] * 10 + [-1.0] * 10)


def _read_only() -> np.ndarray:
    vector = np.zeros(8)
    vector.flags.writeable = False
    return vector


@pytest.mark.parametrize(
    "buffer",
    [np.zeros(16)[::2], np.zeros((4, 4)), np.zeros((4, 4)).T[0], np.zeros(()), _read_only()],
    ids=["every second", "matrix", "column", "scalar", "read-only"],
)
def test_buffers_that_are_no_plain_vector_are_refused(buffer):
    """ValueError says what was expected and what came, before anything is sent."""
    with pytest.raises(ValueError, match=r"expected a writable, contiguous vector .* got shape"):
        MessagePlan(RING, buffer, ThreadWorld(2).transport(0))


@pytest.mark.parametrize(
    "dtype", [np.int16, np.uint32, np.float16, np.complex64, np.bool_, ">f4", object]
)
def test_types_that_have_no_sum_are_refused(dtype):
    """Only float32 and float64 are summed; anything else is refused when the plan is made."""
    with pytest.raises((ValueError, TypeError), match="float32"):
        MessagePlan(RING, np.zeros(8, dtype), ThreadWorld(2).transport(0))


def test_infinities_and_nan_pass_through():
    """What is not finite on one rank is not finite in the sum of all of them."""
    parts = [np.ones(9), np.ones(9), np.ones(9)]
    parts[1][4], parts[2][7] = np.inf, np.nan
    for (result,) in _sums(RING, 3, False, parts):
        np.testing.assert_array_equal(result, [3, 3, 3, 3, np.inf, 3, 3, np.nan, 3])


@pytest.mark.parametrize("operation", ["max", "min"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ALL, ids=lambda algorithm: algorithm.name)
def test_a_maximum_has_the_same_bits_on_every_rank(algorithm, dtype, operation):
    """With zeros of both signs, infinities and NaN of several patterns, combined in whatever order a schedule has."""
    for world_size in (2, 3, 5, 8):
        parts = extremes.parts(world_size, dtype)

        def rank_result(transport, parts=parts):
            buffer = parts[transport.rank].copy()
            MessagePlan(algorithm, buffer, transport, 64, operation).run()
            return buffer.tobytes()

        results = run_ranks(ThreadWorld(world_size), rank_result)
        assert set(results) == {extremes.expected(parts, operation).tobytes()}


@pytest.mark.parametrize("operation", ["max", "min"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers_have_a_maximum(dtype, operation):
    """The least and the greatest of the type, too."""
    ends = np.iinfo(dtype)
    rows = [[ends.min, 0, 5, ends.max], [ends.max, -1, 5, ends.min], [3, -7, 5, 0]]
    parts = [np.array(row, dtype) for row in rows]

    def rank_result(transport):
        buffer = parts[transport.rank].copy()
        MessagePlan(RING, buffer, transport, 64, operation).run()
        return buffer

    for result in run_ranks(ThreadWorld(3), rank_result):
        np.testing.assert_array_equal(result, getattr(np, operation)(parts, axis=0))


def test_waiting_is_counted_on_the_rank_that_waits():
    """``wait_seconds`` holds the time until a late neighbour's first segment arrived."""

    def waited(transport):
        plan = MessagePlan(RING, np.ones(100), transport)
        if transport.rank == 0:
            time.sleep(0.5)
        plan.run()
        return plan.wait_seconds

    late, prompt = run_ranks(ThreadWorld(2), waited)
    assert prompt > late
