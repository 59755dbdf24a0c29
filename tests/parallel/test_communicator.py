"""Every verb of ``Communicator``, against NumPy: dtypes, operations, lengths, groups, and what ranks do that do not fit together."""

import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from lepton_mpi.collectives.allreduce import make_plan
from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.collectives.within_host import staging_memory
from lepton_mpi.errors import ConfigurationError, RankError
from tests import contributions
from tests.parallel.practice import practise
from tests.parallel.together import check, equal_everywhere, refused, together

_WHOLE = ("bool", "uint8", "int8", "int16", "int32", "int64")
_FLOATS = ("float16", "float32", "float64", "bfloat16")
_DTYPES = (*_WHOLE, *_FLOATS)
_OPERATIONS = ("sum", "max", "min", "product", "mean", "band", "bor", "bxor")
_UFUNCS = {
    **{"sum": np.add, "mean": np.add, "max": np.maximum, "min": np.minimum},
    **{"product": np.multiply, "band": np.bitwise_and, "bor": np.bitwise_or},
    "bxor": np.bitwise_xor,
}
# The smallest area: 4 KiB of a rank at once, so that what is not short goes in many parts.
_LENGTHS = (0, 1, 97, 5003)


def _small(world) -> int:
    return 4 * (world.local_size + 1) * 4096


@pytest.fixture(params=["all", "odd", "turned"])
def many(world, request: pytest.FixtureRequest) -> Iterator[Communicator | None]:
    """All ranks; those of odd numbers, highest first; all in another order. None on ranks that are in no such group."""
    ranks = {
        "all": list(range(world.size)),
        "odd": list(range(world.size))[1::2][::-1],
        "turned": [*range(1, world.size), 0],
    }[request.param]
    if world.rank not in ranks:
        yield None
        return
    with world.group(ranks) as group:
        communicator = Communicator(group, staging_bytes=_small(group))
        yield communicator
        communicator.close()


@pytest.fixture
def one(world) -> Iterator[Communicator]:
    """All ranks."""
    communicator = Communicator(world)
    yield communicator
    communicator.close()


def _numbers(rank: int, size: int, count: int, dtype: str) -> np.ndarray:
    """Small numbers that depend on rank and index, with exact sums and products of few of them in every dtype."""
    values = (np.arange(count) * size + rank) * 7 % 5
    if dtype == "bool":
        return values % 3 == 0
    if dtype == "bfloat16":
        return _as_bfloat16(values.astype(np.float32))
    return values.astype(dtype)


def _as_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _combined(rows: list[np.ndarray], op: str, dtype: str) -> np.ndarray:
    """By NumPy; of 16-bit floats in float32, rounded once."""
    if dtype == "bfloat16":
        wide = [(row.astype(np.uint32) << 16).view(np.float32) for row in rows]
        return _as_bfloat16(_combined(wide, op, "float32"))
    computed = np.float32 if dtype == "float16" else rows[0].dtype.type
    found = _UFUNCS[op].reduce([row.astype(computed) for row in rows], axis=0, dtype=computed)
    return (found / computed(len(rows)) if op == "mean" else found).astype(rows[0].dtype)  # type: ignore[operator]


def _kind(dtype: str) -> str | None:
    return "bfloat16" if dtype == "bfloat16" else None


def _fits(dtype: str, op: str) -> bool:
    return op not in (("mean",) if dtype in _WHOLE else ("band", "bor", "bxor"))


def _cases(dtypes=_DTYPES) -> list[tuple[str, str]]:
    return [(dtype, op) for dtype in dtypes for op in _OPERATIONS if _fits(dtype, op)]


@pytest.mark.parametrize("verb", ["allreduce", "reduce", "reduce_scatter", "reduce_scatterv"])
def test_reductions(world, many, verb):
    """Every dtype, operation and length."""
    if many is None:
        check(world, True)
        return
    wrong = []
    for dtype, op in _cases():
        for count in _LENGTHS:
            wrong += _wrong_reduction(many, verb, dtype, op, count)
    with together(world):
        assert not wrong, wrong[:5]


def _wrong_reduction(one: Communicator, verb: str, dtype: str, op: str, count: int) -> list[str]:
    size, root, kind = one.size, one.size // 2, _kind(dtype)
    lengths = [count] * size if verb != "reduce_scatterv" else [count + r for r in range(size)]
    total = count if verb in ("allreduce", "reduce") else sum(lengths)
    rows = [_numbers(rank, size, total, dtype) for rank in range(size)]
    given, expected = rows[one.rank].copy(), _combined(rows, op, dtype)
    start = sum(lengths[: one.rank])
    mine = expected[start : start + lengths[one.rank]]
    found = np.empty(lengths[one.rank], given.dtype)
    if verb == "allreduce":
        one.allreduce(given, op, kind)
        found, mine = given, expected
    elif verb == "reduce":
        one.reduce(given, root, op, kind)
        found, mine = given, expected if one.rank == root else rows[one.rank]
    elif verb == "reduce_scatter":
        one.reduce_scatter(found, given, op, kind)
    else:
        one.reduce_scatterv(found, np.split(given, np.cumsum(lengths)[:-1]), op, kind)
    return [] if np.array_equal(found, mine) else [f"{verb} of {count} {dtype}, {op}"]


def _of_rank(rank: int, count: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Any bits, others on every rank."""
    made = np.random.default_rng([seed, rank, count]).integers(
        0, 256, count * np.dtype(dtype).itemsize, np.uint8
    )
    return made.view(dtype)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float32", "int64", "complex128"])
def test_moves(world, many, dtype):
    """Every verb that only moves, of every length, bit by bit."""
    if many is None:
        check(world, True)
        return
    wrong = [name for count in _LENGTHS for name in _wrong_moves(many, dtype, count)]
    with together(world):
        assert not wrong, wrong


def _wrong_moves(one: Communicator, dtype: str, count: int) -> list[str]:
    size, rank, root, wrong = one.size, one.rank, one.size - 1, []

    def compare(name: str, found: np.ndarray, expected: np.ndarray) -> None:
        if found.tobytes() != expected.tobytes():
            wrong.append(f"{name} of {count} {dtype}")

    every = [_of_rank(r, count, dtype) for r in range(size)]
    array = every[rank].copy()
    one.broadcast(array, root)
    compare("broadcast", array, every[root])
    whole = np.empty(size * count, dtype)
    one.allgather(whole, every[rank])
    compare("allgather", whole, np.concatenate(every))
    whole = np.zeros(size * count, dtype)
    own = whole[rank * count : (rank + 1) * count]
    own[:] = every[rank]
    one.allgather(whole, own)
    compare("allgather in place", whole, np.concatenate(every))
    pieces = [_of_rank(r, size * count, dtype, 1) for r in range(size)]
    one.alltoall(whole, pieces[rank])
    mine = [pieces[r][rank * count : (rank + 1) * count] for r in range(size)]
    compare("alltoall", whole, np.concatenate(mine))
    return wrong + _wrong_uneven_moves(one, dtype, count)


def _wrong_uneven_moves(one: Communicator, dtype: str, count: int) -> list[str]:
    size, rank, root, wrong = one.size, one.rank, one.size - 1, []

    def compare(name: str, found: list[np.ndarray], expected: list[np.ndarray]) -> None:
        if any(a.tobytes() != b.tobytes() for a, b in zip(found, expected, strict=True)):
            wrong.append(f"{name} of {count} {dtype}")

    # Rank r has r * count // 2 elements, the first none.
    every = [_of_rank(r, r * count // 2, dtype) for r in range(size)]
    found = [np.empty_like(each) for each in every]
    one.allgatherv(found, every[rank])
    compare("allgatherv", found, every)
    found = [np.empty_like(each) for each in every]
    one.gather(found if rank == root else None, every[rank], root)
    if rank == root:
        compare("gather", found, every)
    received = np.empty_like(every[rank])
    one.scatter(received, every if rank == root else None, root)
    compare("scatter", [received], [every[rank]])
    # From r to q go (2 r + q) % 3 parts.
    sent = [
        [_of_rank(r, (2 * r + q) % 3 * count // 2, dtype, q) for q in range(size)]
        for r in range(size)
    ]
    found = [np.empty_like(sent[r][rank]) for r in range(size)]
    one.alltoallv(found, sent[rank])
    compare("alltoallv", found, [sent[r][rank] for r in range(size)])
    return wrong


@pytest.mark.parametrize("direct_bytes", [1, 0], ids=["read where they are", "staged"])
def test_long_moves(world, monkeypatch, direct_bytes):
    """From their senders' memory, and where the system forbids that, in many parts through the area."""
    monkeypatch.setattr(staging_memory, "DIRECT_BYTES", direct_bytes)
    one = Communicator(world, staging_bytes=_small(world))
    wrong = [name for count in (3000, 40_003) for name in _wrong_moves(one, "float64", count)]
    one.close()
    with together(world):
        assert not wrong, wrong


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_floats(world, one, dtype):
    """Within the bound, and with the bits of make_plan on one host."""
    for count in (997, 300_007):
        rows = [contributions.random(rank, count, np.dtype(dtype).type) for rank in range(one.size)]
        array = rows[one.rank].copy()
        one.allreduce(array)
        plan = make_plan(world, count, dtype)
        plan.input[:] = rows[one.rank]
        plan.run()
        with together(world):
            error = np.abs(array - np.sum(rows, axis=0, dtype=np.longdouble))
            assert (error <= contributions.rounding_bound(rows)).all()
            if world.host_count == 1 and plan.algorithm == "host":
                np.testing.assert_array_equal(array, plan.result)
        equal_everywhere(world, array.tobytes())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_16_bits_are_rounded_once(world, one, dtype):
    """1 and many numbers that alone are too small to change it."""
    small = 2.0**-12 if dtype == "float16" else 2.0**-9
    value = np.array([1.0 if one.rank == 0 else small], np.float32)
    expected = np.float32(1 + (one.size - 1) * small)
    array = _as_bfloat16(value) if dtype == "bfloat16" else value.astype(np.float16)
    one.allreduce(array, kind=_kind(dtype))
    rounded = np.array([expected])
    wanted = _as_bfloat16(rounded) if dtype == "bfloat16" else rounded.astype(np.float16)
    check(world, array.tobytes() == wanted.tobytes(), f"{array} is not {wanted}")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", ["max", "min"])
def test_extremes(world, one, dtype, op):
    """NaN of any rank is kept; the maximum of two zeros is +0, the minimum -0."""
    values = np.array([np.nan, 0.0, -0.0, np.inf, -np.inf, 1.0], dtype)
    array = np.tile(values, 700)
    array = np.roll(array, one.rank)
    rows = [np.roll(np.tile(values, 700), rank) for rank in range(one.size)]
    one.allreduce(array, op)
    expected = _UFUNCS[op].reduce(rows, axis=0)
    signs = (np.min if op == "max" else np.max)([np.signbit(row) for row in rows], axis=0)
    with together(world):
        np.testing.assert_array_equal(array, expected)
        zeros = expected == 0
        assert (np.signbit(array)[zeros] == signs[zeros]).all()
    equal_everywhere(world, array.tobytes())


def test_calls_in_any_order_do_not_mix(world, one):
    """A rank that is ahead must not overwrite what another still reads."""
    wrong = []
    for number in range(300):
        count = (1, 50, 5000, 200_000)[number % 4] if number < 60 else (1, 50, 5000)[number % 3]
        array = np.full(count, number + one.rank, np.float32)
        one.allreduce(array)
        if not (array == number * one.size + one.size * (one.size - 1) // 2).all():
            wrong.append(("allreduce", number))
        array = np.full(count, number * one.size + one.rank)
        one.broadcast(array, number % one.size)
        if not (array == number * one.size + number % one.size).all():
            wrong.append(("broadcast", number))
        found = np.empty(one.size * count, np.int32)
        one.allgather(found, np.full(count, number + one.rank, np.int32))
        if not (number + np.arange(one.size) == found.reshape(one.size, -1).T).all():
            wrong.append(("allgather", number))
    check(world, not wrong, f"{wrong[:5]}")


def test_messages(world, one):
    """Round the ring, both tags out of order, and of no length."""
    right, left = (one.rank + 1) % one.size, (one.rank - 1) % one.size
    if one.size == 1:
        return
    for count in (0, 1, 1000, 300_000):
        mine = [np.arange(count) + 100 * tag + one.rank for tag in (0, 1)]
        found = [np.empty(count, np.int64) for _ in mine]
        sender = threading.Thread(target=lambda arrays=mine: _send_both(one, arrays, right))
        if one.rank % 2 == 0:
            _send_both(one, mine, right) if count < 1000 else sender.start()
        for tag in (1, 0) if count < 1000 else (0, 1):
            if one.rank % 2 == 0:
                one.receive(found[tag], left, tag)
        if one.rank % 2 == 1:
            for tag in (0, 1):
                one.receive(found[tag], left, tag)
            _send_both(one, mine, right)
        if sender.ident:
            sender.join()
        with together(world):
            for tag in (0, 1):
                np.testing.assert_array_equal(found[tag], np.arange(count) + 100 * tag + left)


def _send_both(one: Communicator, arrays: list[np.ndarray], to: int) -> None:
    for tag, array in enumerate(arrays):
        one.send(array, to, tag)


def test_a_message_of_another_length(world, one):
    if one.size == 1:
        return
    with together(world):
        if one.rank == 0:
            one.send(np.zeros(3), 1)
        if one.rank == 1:
            with pytest.raises(RankError, match=r"expected 16 bytes, 24 came"):
                one.receive(np.zeros(2), 0)


# -- what does not fit together ------------------------------------------------------------------


@pytest.fixture(params=["new", "practised"])
def any_age(one, request: pytest.FixtureRequest) -> Communicator:
    """Of all ranks; a practised one makes short calls in the quick way (``within_host/quick_calls.py``)."""
    if request.param == "practised":
        practise(one)
    return one


def _odd_one_out(one: Communicator, usual, other) -> None:
    """The last rank does something else."""
    (other if one.rank == one.size - 1 else usual)()


@pytest.mark.parametrize(
    ("usual", "other", "words"),
    [
        ("c.barrier()", "c.allreduce(np.zeros(3))", ("barrier()", "allreduce(sum, float64, 24 bytes)")),
        ("c.allreduce(np.zeros(3))", "c.allreduce(np.zeros(4))", ("24 bytes", "32 bytes")),
        ("c.allreduce(np.zeros(90000))", "c.allreduce(np.zeros(4))", ("720000 bytes", "32 bytes")),
        ("c.allreduce(np.zeros(2))", "c.allreduce(np.zeros(2), 'max')", ("sum", "max")),
        ("c.allreduce(np.zeros(2))", "c.allreduce(np.zeros(2, int))", ("float64", "int64")),
        ("c.broadcast(np.zeros(90000), 0)", "c.broadcast(np.zeros(90000), 1)", ("root 0", "root 1")),
        ("c.broadcast(np.zeros(90000), 0)", "c.broadcast(np.zeros(80000), 0)", ("720000 bytes", "640000 bytes")),
        ("c.gather(root(2), np.zeros(2), 0)", "c.gather(None, np.zeros(1), 0)", ("8 bytes", "16")),
        ("c.allgatherv(many(2), np.zeros(2))", "c.allgatherv(many(1), np.zeros(1))", ("allgatherv",)),
        ("c.alltoallv(many(2), many(2))", "c.alltoallv(many(2), many(1))", ("bytes",)),
        ("c.scatter(np.zeros(2), root(2), 0)", "c.scatter(np.zeros(1), None, 0)", ("bytes",)),
        ("c.reduce_scatterv(np.zeros(2), many(2))", "c.reduce_scatterv(np.zeros(1), many(1))", ("reduce_scatterv",)),
    ],
)  # fmt: skip
def test_calls_that_differ(world, any_age, usual, other, words):
    """All ranks raise the same error, and go on."""
    one = any_age
    if one.size == 1:
        return
    scope = {
        **{"c": one, "np": np},
        "many": lambda count: [np.zeros(count) for _ in range(one.size)],
        "root": lambda count: scope["many"](count) if one.rank == 0 else None,
    }
    for _ in range(3):
        with refused(world, RankError, *words):
            _odd_one_out(one, lambda: eval(usual, scope), lambda: eval(other, scope))
    array = np.full(5, one.rank)
    one.allreduce(array)
    check(world, (array == one.size * (one.size - 1) // 2).all())


@pytest.mark.parametrize(
    ("usual", "other", "words"),
    [
        ("c.broadcast(np.zeros(2), 0)", "c.broadcast(np.zeros(2), 1)", ("root 0", "root 1")),
        ("c.broadcast(np.zeros(2), 0)", "c.broadcast(np.zeros(1), 0)", ("16 bytes", "8 bytes")),
        ("c.broadcast(np.zeros(2), 0)", "c.barrier()", ("broadcast", "barrier()")),
        ("c.broadcast(np.zeros(2), 0)", "c.allreduce(np.zeros(90000))", ("broadcast", "720000 bytes")),
        ("c.reduce(np.zeros(2), 0)", "c.reduce(np.zeros(2), 1)", ("root 0", "root 1")),
        ("c.reduce(np.zeros(2), 0)", "c.reduce(np.zeros(2), 0, 'max')", ("sum", "max")),
        ("c.reduce(np.zeros(2), 0)", "c.broadcast(np.zeros(2), 0)", ("reduce", "broadcast")),
        ("c.reduce(np.zeros(2), 0)", "c.broadcast(np.array([None]), 0)", ("object",)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("then", ["c.barrier()", "c.broadcast(np.zeros(2), 0)", "c.allreduce(np.zeros(90000))"])  # fmt: skip
def test_short_rooted_calls_that_differ(world, any_age, usual, other, words, then):
    """Some ranks have gone on: all raise the same error, at once or in one of the next calls, and in all calls after that."""
    one = any_age
    if one.size == 1:
        return
    if world.host_count > 1:
        pytest.skip("over hosts all ranks meet in each call")
    scope = {"c": one, "np": np}

    def call() -> None:
        for _ in range(3):
            eval(then, scope)
        _odd_one_out(one, lambda: eval(usual, scope), lambda: eval(other, scope))
        for _ in range(20):
            eval(then, scope)

    raised = []
    for attempt in (call, one.barrier, one.barrier):
        try:
            attempt()
        except (RankError, ConfigurationError) as error:
            raised.append((type(error).__name__, str(error)))
    with together(world):
        assert len(set(raised)) == 1 and len(raised) == 3, raised
        assert all(word in raised[0][1] for word in words), raised
    equal_everywhere(world, raised[0])


def test_ranks_that_go_on_do_not_overtake_others(world, one):
    """Many short calls in which a rank waits for nobody, while another is slow: no block is overwritten before it is read."""
    wrong = []
    for number in range(400):
        root = number // 100 % one.size
        if one.rank == (root + 1) % one.size and number % 50 == 7:
            time.sleep(0.002)
        array = np.full(1 + number % 1000, number if one.rank == root else -1)
        one.broadcast(array, root)
        if not (array == number).all():
            wrong.append(("broadcast", number))
        array = np.full(1 + number % 90, number + one.rank, np.float32)
        one.reduce(array, root)
        expected = number + one.rank
        if one.rank == root:
            expected = one.size * number + one.size * (one.size - 1) // 2
        if not (array == expected).all():
            wrong.append(("reduce", number))
        if number % 29 == 3:
            found = [np.empty(number, np.int64) for _ in range(one.size)]
            one.allgatherv(found, np.full(number, one.rank))
            if any((each != rank).any() for rank, each in enumerate(found)):
                wrong.append(("allgatherv", number))
    check(world, not wrong, f"{wrong[:5]}")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("c.allreduce(np.zeros((4, 4))[:, 1])", ("contiguous", "ascontiguousarray")),
        ("c.allreduce([1.0])", ("NumPy array", "list")),
        ("c.allreduce(np.zeros(3, complex))", ("float32", "complex128")),
        ("c.allreduce(np.zeros(3), 'median')", ("op", "median", "product")),
        ("c.allreduce(np.zeros(3), 'band')", ("band", "float64")),
        ("c.allreduce(np.zeros(3, int), 'mean')", ("mean", "int64")),
        ("c.allreduce(np.zeros(3), kind='bfloat16')", ("uint16", "float64")),
        ("c.allreduce(np.frombuffer(bytes(8)))", ("read-only",)),
        ("c.broadcast(np.zeros(3), c.size)", ("root", "0 to")),
        ("c.allgather(np.zeros(3 * c.size + 1), np.zeros(3))", ("output", "input")),
        ("c.alltoall(np.zeros(c.size), np.zeros(2 * c.size))", ("alltoall", "one length")),
        ("c.gather([], np.zeros(3), c.rank)", ("outputs", "0 of them")),
        ("c.reduce_scatter(np.zeros(2, int), np.zeros(2 * c.size))", ("int64", "float64")),
        ("c.broadcast(np.array([None]), 0)", ("object",)),
    ],
)  # fmt: skip
def test_arguments_that_fit_no_call(world, one, call, words):
    """Of one rank: the others wait in a right call and raise what it raises."""
    for who in {0, one.size - 1}:
        with refused(world, ConfigurationError, *words):
            if one.rank == who:
                eval(call, {"c": one, "np": np})
            else:
                one.barrier()
    one.barrier()


def test_two_thousand_calls_leave_nothing(world, one):
    """Neither memory nor files."""
    arrays = [np.ones(count, np.float32) for count in (1, 1000, 100_000)]
    gathered = np.empty(one.size * 1000, np.float32)

    def calls(count: int) -> None:
        for number in range(count):
            array = arrays[number % 2]
            array[:] = 1
            one.allreduce(array)
            one.broadcast(array, number % one.size)
            one.allgather(gathered, arrays[1])
            one.barrier()
        one.allreduce(arrays[2], "max")

    calls(100)
    gc.collect()
    process = psutil.Process()
    before, files = process.memory_info().rss, process.num_fds()
    calls(500)
    gc.collect()
    with together(world):
        assert process.memory_info().rss - before < 1 << 20
        assert process.num_fds() == files


def test_communicators_come_and_go(world):
    """Each gives back what it took."""
    process = psutil.Process()

    def make_one() -> None:
        communicator = Communicator(world)
        communicator.allreduce(np.ones(10))
        communicator.close()
        communicator.close()

    for _ in range(5):
        make_one()
    gc.collect()
    before, files = process.memory_info().rss, process.num_fds()
    for _ in range(40):
        make_one()
    gc.collect()
    with together(world):
        assert process.memory_info().rss - before < 4 << 20
        assert process.num_fds() == files


def test_several_threads(world):
    """Each with a communicator of its own, in calls of other lengths, at the same time."""
    made = [Communicator(world) for _ in range(3)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for step in range(100):
            array = np.full(10 ** (number + 2), step + made[number].rank, np.float32)
            made[number].allreduce(array, "max")
            if not (array == step + world.size - 1).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for communicator in made:
        communicator.close()
    check(world, not wrong, f"{wrong}")


def test_an_area_that_is_too_small(world):
    with refused(world, ConfigurationError, "staging_bytes", "at least"):
        Communicator(world, staging_bytes=1000)
