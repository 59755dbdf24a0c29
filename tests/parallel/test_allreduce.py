"""Every algorithm behind ``make_plan``, on real ranks, against three oracles."""

import gc
import itertools
from time import sleep

import numpy as np
import psutil
import pytest
from mpi4py import MPI

from lepton_mpi.chunks import segments
from lepton_mpi.collectives.allreduce import DTYPES, NAMES, OPERATIONS, SHARING, make_plan
from lepton_mpi.collectives.between_hosts import copied_plan
from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.between_hosts.two_level_plan import TwoLevelPlan
from lepton_mpi.collectives.within_host.vectors import HostVectors
from lepton_mpi.errors import ConfigurationError, RankError
from tests import contributions, extremes
from tests.parallel.together import check, equal_everywhere, refused, together

# Message plans own their vector in both of these, so "shared" would only repeat "private".
WAYS = [
    (name, mode)
    for name in NAMES
    for mode in ("private", "array", "shared")
    if mode != "shared" or name in SHARING
] + [(name, "shared in place") for name in SHARING]
ways = pytest.mark.parametrize(("algorithm", "mode"), WAYS, ids=[f"{n}-{m}" for n, m in WAYS])
algorithms = pytest.mark.parametrize("algorithm", NAMES)

_NUMPY = {"sum": np.sum, "max": np.max, "min": np.min}
_MPI = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}


@pytest.fixture(autouse=True)
def _possible(world, request: pytest.FixtureRequest) -> None:
    wanted = getattr(request.node, "callspec", None)
    if wanted and wanted.params.get("algorithm") == "host" and world.host_count > 1:
        pytest.skip("host needs one host")


def _lengths(world_size: int) -> list[int]:
    around_a_rank = {max(0, world_size + shift) for shift in (-1, 0, 1)}
    return sorted({0, 1, 97, 1000, 65536, 65537, 65538} | around_a_rank)


def _fill(rank: int, world_size: int, count: int, dtype: str) -> np.ndarray:
    """Whole numbers that depend on rank and index, with exact sums also in float32."""
    return (np.arange(count) % 1000 * world_size + rank).astype(dtype)


def _closed_form(world_size: int, count: int, op: str) -> np.ndarray:
    base = np.arange(count) % 1000 * world_size
    if op == "sum":
        return base * world_size + world_size * (world_size - 1) // 2
    return base + (world_size - 1 if op == "max" else 0)


def _plan(world, algorithm: str, mode: str, count: int, dtype: str, op: str = "sum"):
    """A plan, and the vector into which this rank's contribution goes."""
    if mode == "array":
        array = np.empty(count, dtype)
        return make_plan(world, mode=mode, array=array, op=op, algorithm=algorithm), array
    mode, _, place = mode.partition(" ")
    in_place = bool(place)
    plan = make_plan(world, count, dtype, mode=mode, in_place=in_place, op=op, algorithm=algorithm)
    return plan, plan.input


def _check_numbered(world, algorithm: str, mode: str, count: int, dtype: str, op: str) -> None:
    """Two runs of one plan, exactly equal to closed form, gathered float64 and MPI's Allreduce."""
    plan, contribution = _plan(world, algorithm, mode, count, dtype, op)
    filled = _fill(world.rank, world.size, count, dtype)
    gathered = np.empty((world.size, count))
    world.comm.Allgather(filled.astype(np.float64), gathered)
    of_mpi = np.empty_like(filled)
    world.comm.Allreduce(filled, of_mpi, _MPI[op])
    results = []
    for _ in range(2):
        contribution[:] = filled
        plan.run()
        results.append(plan.result.copy())
        plan.release()
    with together(world):
        for number, result in enumerate(results):
            what = f"{count} elements of {dtype}, {op}, run {number}"
            assert result.dtype == dtype, what
            np.testing.assert_array_equal(result, _closed_form(world.size, count, op), what)
            np.testing.assert_array_equal(result, _NUMPY[op](gathered, axis=0), what)
            np.testing.assert_array_equal(result, of_mpi, what)


@ways
def test_every_length(world, algorithm, mode):
    for count in _lengths(world.size):
        _check_numbered(world, algorithm, mode, count, "float32", "sum")


@pytest.mark.slow(but_every=4)
@ways
def test_every_dtype_and_operation(world, algorithm, mode):
    for op in OPERATIONS:
        for dtype in DTYPES:
            for count in (97, 4099) if op == "sum" else (997,):
                _check_numbered(world, algorithm, mode, count, dtype, op)


@ways
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_floats_within_the_bound_and_equal_everywhere(world, algorithm, mode, dtype):
    count = 10_007
    plan, contribution = _plan(world, algorithm, mode, count, dtype)
    parts = [contributions.random(rank, count, np.dtype(dtype).type) for rank in range(world.size)]
    contribution[:] = parts[world.rank]
    plan.run()
    exact = np.sum(parts, axis=0, dtype=np.longdouble)
    with together(world):
        error = np.abs(plan.result - exact)
        worst = np.argmax(error - contributions.rounding_bound(parts))
        assert error[worst] <= contributions.rounding_bound(parts)[worst], f"element {worst}"
    equal_everywhere(world, plan.result.tobytes())


@algorithms
def test_a_changing_vector_a_hundred_times(world, algorithm):
    """A run that begins before a peer has finished the one before would mix the two."""
    plan, contribution = _plan(world, algorithm, "private", 1009, "float32")
    wrong = []
    for number in range(100):
        contribution[:] = np.arange(1009) % 50 + number * world.size + world.rank
        plan.run()
        ranks = world.size * (world.size - 1) // 2
        expected = (np.arange(1009) % 50 + number * world.size) * world.size + ranks
        if not np.array_equal(plan.result, expected):
            wrong.append(number)
    check(world, not wrong, f"runs {wrong}")


@pytest.mark.parametrize("is_long", [False, True], ids=["whole", "in buckets"])
@pytest.mark.parametrize("place", ["an array", "its input"])
@pytest.mark.parametrize("op", OPERATIONS)
def test_a_copied_vector_that_changes(world, monkeypatch, is_long, place, op):
    """Between hosts every rank copies into memory of its host and back, here with 17 elements in the last bucket."""
    count = 5 * 256 + 17
    monkeypatch.setattr(copied_plan, "OVERLAP_BYTES", 0 if is_long else 1 << 30)
    monkeypatch.setattr(copied_plan, "BUCKET_BYTES", 1024)
    vectors = HostVectors(world, count, np.float32, "shared")
    own = np.empty(count, np.float32) if place == "an array" else vectors.inputs[0]
    plan = copied_plan.make_copied_plan(own, vectors, op)
    wrong = []
    for number in range(30):
        own[:] = _fill(world.rank, world.size, count, "float32") + number
        if number % world.size == world.rank:
            sleep(0.001)
        plan.run()
        runs = number * world.size if op == "sum" else number
        if not np.array_equal(own, _closed_form(world.size, count, op) + runs):
            wrong.append(number)
    check(world, not wrong, f"runs {wrong}")


def test_copied_vectors_are_summed_while_others_are_on_their_way(world, monkeypatch):
    """A sum that goes on in the background has messages that no other plan takes for its own."""
    count = 5 * 256 + 17
    monkeypatch.setattr(copied_plan, "OVERLAP_BYTES", 0)
    monkeypatch.setattr(copied_plan, "BUCKET_BYTES", 1024)
    vectors = HostVectors(world, count, np.float32, "shared")
    buckets = segments(0, count, 256)
    background = OverlappedSum(vectors, buckets)
    array = np.empty(count, np.float32)
    plan = copied_plan.make_copied_plan(
        array, HostVectors(world, count, np.float32, "shared"), "sum"
    )
    numbers = np.empty(count, np.int64)
    other = copied_plan.make_copied_plan(
        numbers, HostVectors(world, count, np.int64, "shared"), "max"
    )
    whole = TwoLevelPlan(HostVectors(world, count, np.float32, "shared"))
    results = []
    for number in range(5):
        vectors.inputs[0][:] = _fill(world.rank, world.size, count, "float32") + number
        array[:] = _fill(world.rank, world.size, count, "float32") - number
        background.begin()
        for bucket in range(len(buckets)):
            background.ready(bucket)
        numbers[:] = number * np.arange(count)
        plan.run()
        other.run()
        whole.run()
        background.until(lambda: all(map(background.is_complete, range(len(buckets)))))
        world.host_barrier()
        results.append((vectors.result.copy(), array.copy(), numbers.copy()))
        world.host_barrier()
    expected = _closed_form(world.size, count, "sum")
    with together(world):
        for number, (first, second, third) in enumerate(results):
            np.testing.assert_array_equal(third, number * np.arange(count))
            np.testing.assert_array_equal(first, expected + number * world.size)
            np.testing.assert_array_equal(second, expected - number * world.size)


# One of each kind of executor.
@pytest.mark.parametrize(
    ("algorithm", "mode"),
    [
        ("auto", "shared"),
        ("auto", "shared in place"),
        ("auto", "array"),
        ("ring", "private"),
        ("mpi_persistent", "private"),
    ],
)
def test_memory_stays_flat(world, algorithm, mode):
    plan, contribution = _plan(world, algorithm, mode, 997, "float32")
    contribution[:] = 0
    process = psutil.Process()
    for _ in range(200):
        plan.run()
    gc.collect()
    before = process.memory_info().rss
    for _ in range(1000):
        plan.run()
    gc.collect()
    grown = process.memory_info().rss - before
    check(world, grown <= 2 << 20, f"1 000 runs took {grown} bytes")


def test_a_shared_sum_in_place_is_kept_until_all_have_read_it(world):
    """Whoever has read a sum early must not overwrite it for the others."""
    plan, contribution = _plan(world, "auto", "shared in place", 5000, "float32")
    wrong = []
    for number in range(60):
        contribution[:] = number + world.rank
        plan.run()
        if number % world.size == world.rank:
            sleep(0.001)
        expected = number * world.size + sum(range(world.size))
        if not np.array_equal(plan.result, np.full(5000, expected)):
            wrong.append(number)
        plan.release()
    check(world, not wrong, f"runs {wrong}")


def test_infinities_and_nans_arrive(world):
    for algorithm in ("auto", "two_level", "ring"):
        plan, contribution = _plan(world, algorithm, "private", 3, "float64")
        contribution[:] = [np.inf, np.nan if world.rank == world.size - 1 else 1.0, 2.0]
        plan.run()
        with together(world):
            np.testing.assert_array_equal(plan.result, [np.inf, np.nan, 2.0 * world.size])


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("count", [1, 40])
def test_nan_of_any_rank_is_the_greatest_and_the_least(world, count, op):
    """As NumPy has it, whatever algorithm ``auto`` takes, and wherever whole cache lines end."""
    for algorithm in ("auto", "two_level", "ring"):
        plan, contribution = _plan(world, algorithm, "private", count, "float64", op)
        for rank in range(world.size):
            contribution[:] = np.nan if world.rank == rank else 1.0
            plan.run()
            with together(world):
                np.testing.assert_array_equal(plan.result, np.full(count, np.nan))


@ways
def test_a_maximum_has_the_same_bits_on_every_rank(world, algorithm, mode):
    """By every algorithm, MPI's own and a tuned choice among them: zeros of both signs, infinities, NaN of several patterns."""
    for op, dtype in itertools.product(("max", "min"), (np.float32, np.float64)):
        parts = extremes.parts(world.size, dtype)
        plan, contribution = _plan(world, algorithm, mode, parts[0].size, np.dtype(dtype).name, op)
        results = []
        for _ in range(2):
            contribution[:] = parts[world.rank]
            plan.run()
            results.append(plan.result.tobytes())
            plan.release()
        equal_everywhere(world, results)
        expected = extremes.expected(parts, op).tobytes()
        check(world, world.size == 1 or set(results) == {expected}, f"{op} of {dtype}")


def test_who_keeps_run_keeps_its_memory(world):
    """A plan's kernel has addresses of memory, which lives as long as ``run`` does."""
    for mode in ("private", "shared", "array"):
        plan, contribution = _plan(world, "auto", mode, 1000, "float64")
        run, result = plan.run, plan.result
        del plan
        gc.collect()
        # Memory that is free would be given to these.
        others = [_plan(world, "auto", mode, 1000, "float64")[0] for _ in range(2)]
        for number in range(3):
            contribution[:] = number + world.rank
            run()
            for other in others:
                other.run()
            with together(world):
                expected = number * world.size + sum(range(world.size))
                np.testing.assert_array_equal(result, expected)


# -- what is refused, on every rank alike -------------------------------------------------------------

needs_a_peer = pytest.mark.parametrize("algorithm", ["auto", "two_level", "ring", "mpi"])


def _skip_alone(world) -> None:
    if world.size == 1:
        pytest.skip("one rank cannot differ from itself")


@needs_a_peer
def test_different_lengths(world, algorithm):
    _skip_alone(world)
    last = world.size - 1
    with refused(world, RankError, "rank 0 has (10,", f"rank {last} has (11,"):
        make_plan(world, 11 if world.rank == last else 10, "float32", algorithm=algorithm)


@needs_a_peer
def test_different_dtypes(world, algorithm):
    _skip_alone(world)
    last = world.size - 1
    with refused(world, RankError, "rank 0 has", "'float32'", f"rank {last} has", "'float64'"):
        dtype = "float64" if world.rank == last else "float32"
        make_plan(world, 10, dtype, algorithm=algorithm)


@needs_a_peer
def test_different_operations(world, algorithm):
    _skip_alone(world)
    last = world.size - 1
    with refused(world, RankError, "rank 0 has", "'sum'", f"rank {last} has", "'max'"):
        op = "max" if world.rank == last else "sum"
        make_plan(world, 10, "float32", op=op, algorithm=algorithm)


def test_different_algorithms_and_modes(world):
    _skip_alone(world)
    last = world.size - 1
    with refused(world, RankError, "'ring'", f"rank {last} has", "'pairwise'"):
        make_plan(world, 10, algorithm="pairwise" if world.rank == last else "ring")
    with refused(world, RankError, "'private'", f"rank {last} has", "'shared'"):
        make_plan(world, 10, mode="shared" if world.rank == last else "private")


@needs_a_peer
def test_arrays_of_different_length(world, algorithm):
    _skip_alone(world)
    array = np.zeros(10 + (world.rank == 1), np.float32)
    with refused(world, RankError, "rank 0 has (10,", "rank 1 has (11,"):
        make_plan(world, mode="array", array=array, algorithm=algorithm)


@needs_a_peer
@pytest.mark.parametrize("all_ranks", [False, True], ids=["one_rank", "all_ranks"])
def test_read_only_array(world, algorithm, all_ranks):
    last = world.size - 1
    array = np.zeros(10, np.float32)
    array.flags.writeable = not (all_ranks or world.rank == last)
    first = 0 if all_ranks else last
    with refused(world, ConfigurationError, f"rank {first}:", "writable False", "copy()"):
        make_plan(world, mode="array", array=array, algorithm=algorithm)


@needs_a_peer
@pytest.mark.parametrize("all_ranks", [False, True], ids=["one_rank", "all_ranks"])
def test_array_with_gaps(world, algorithm, all_ranks):
    last = world.size - 1
    bad = all_ranks or world.rank == last
    array = np.zeros(20, np.float32)[::2] if bad else np.zeros(10, np.float32)
    first = 0 if all_ranks else last
    with refused(world, ConfigurationError, f"rank {first}:", "contiguous", "strides (8,)"):
        make_plan(world, mode="array", array=array, algorithm=algorithm)


def test_array_of_two_dimensions(world):
    with refused(world, ConfigurationError, "vector", "(2, 3)"):
        make_plan(world, mode="array", array=np.zeros((2, 3), np.float32))


@needs_a_peer
@pytest.mark.parametrize("dtype", ["float16", "int8", "complex64", ">f4"])
def test_unknown_dtype(world, algorithm, dtype):
    with refused(world, ConfigurationError, "dtype", "float32"):
        make_plan(world, 10, dtype, algorithm=algorithm)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"algorithm": "rnig"}, ("algorithm", "'rnig'", "ring")),
        ({"mode": "public"}, ("mode", "'public'", "private")),
        ({"op": "prod"}, ("op", "'prod'", "sum")),
        ({"mode": "array"}, ("array",)),
        ({"mode": "shared", "algorithm": "ring"}, ("shared", "two_level", "ring", "private")),
        ({"mode": "shared", "algorithm": "mpi"}, ("shared", "two_level", "mpi", "private")),
        ({"mode": "shared", "in_place": "no"}, ("in_place", "True or False", "'no'")),
        ({"count": -1}, ("count", "-1")),
        ({"count": None}, ("count", "None")),
        ({"count": 1.5}, ("count", "1.5")),
        ({"array": np.zeros(3, np.float32)}, ("array",)),
    ],
)
def test_unknown_names(world, keywords, words):
    with refused(world, ConfigurationError, *words):
        make_plan(world, **{"count": 3, **keywords})


def test_unknown_name_on_one_rank(world):
    last = world.size - 1
    with refused(world, ConfigurationError, "'rnig'"):
        make_plan(world, 3, algorithm="rnig" if world.rank == last else "ring")


def test_a_refusal_leaves_the_world_usable(world):
    with refused(world, ConfigurationError):
        make_plan(world, 3, op="prod")
    _check_numbered(world, "auto", "private", 97, "float32", "sum")
