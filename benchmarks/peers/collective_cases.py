"""One collective of any library, measured and checked in nccl-tests' convention. Needs NumPy alone, so that it runs in every peer's environment.

``bytes`` is the length of the longer of the two buffers: what comes out of an all-gather, what goes into a reduce-scatter.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from benchmarks.harness import Row, write_rows
from lepton_mpi.collectives.choosing.timing import Ranks, block_calls

# With the factor from algbw to busbw for n ranks.
VERBS: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "reduce": lambda n: 1.0,
    "broadcast": lambda n: 1.0,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "alltoall": lambda n: (n - 1) / n,
    "gather": lambda n: (n - 1) / n,
    "scatter": lambda n: (n - 1) / n,
    "sendrecv": lambda n: 1.0,
}
_WARM_UP_CALLS, _BLOCKS_MIN, _BLOCKS_MAX = 10, 5, 400
_PERIOD = 1021


class Library(Protocol):
    """The verbs of ``Communicator``, for float32 and sums, with root 0."""

    def allreduce(self, array: np.ndarray) -> Any: ...
    def reduce(self, array: np.ndarray, root: int) -> Any: ...
    def broadcast(self, array: np.ndarray, root: int) -> Any: ...
    def allgather(self, output: np.ndarray, input: np.ndarray) -> Any: ...
    def reduce_scatter(self, output: np.ndarray, input: np.ndarray) -> Any: ...
    def alltoall(self, output: np.ndarray, input: np.ndarray) -> Any: ...
    def gather(self, outputs: Any, input: np.ndarray, root: int) -> Any: ...
    def scatter(self, output: np.ndarray, inputs: Any, root: int) -> Any: ...
    def send(self, array: np.ndarray, to: int) -> Any: ...
    def receive(self, array: np.ndarray, source: int) -> Any: ...


@dataclass(frozen=True)
class _Case:
    """What is called, on what, and what comes out of ``result`` then; None where nothing does."""

    run: Callable[[], object]
    input: np.ndarray
    result: np.ndarray | None
    expected: Callable[[], np.ndarray]
    calls_in_one: int = 1


def numbers(rank: int, count: int) -> np.ndarray:
    """Whole numbers that depend on rank and index, whose sums are exact."""
    return ((np.arange(count) * 7 + 13 * rank) % _PERIOD).astype(np.float32)


def make_case(verb: str, library: Library, ranks: Ranks, byte_count: int) -> _Case:
    """Buffers of ``byte_count`` bytes, cut to whole elements a rank, and the call."""
    n, me = ranks.size, ranks.rank
    count = byte_count // 4
    part = max(1, count // n)
    whole, piece = np.zeros(part * n, np.float32), np.zeros(part, np.float32)
    vector = np.zeros(max(1, count), np.float32)

    def total(length: int) -> np.ndarray:
        return np.sum([numbers(rank, length) for rank in range(n)], axis=0, dtype=np.float32)

    def own(array: np.ndarray) -> np.ndarray:
        return array[me * part : (me + 1) * part]

    def all_parts() -> np.ndarray:
        return np.concatenate([numbers(rank, part) for rank in range(n)])

    root = me == 0
    if verb == "all_reduce":
        return _Case(
            lambda: library.allreduce(vector), vector, vector, lambda: total(vector.size)
        )
    if verb == "reduce":
        result = vector if root else None
        return _Case(
            lambda: library.reduce(vector, 0), vector, result, lambda: total(vector.size)
        )
    if verb == "broadcast":
        return _Case(
            lambda: library.broadcast(vector, 0), vector, vector, lambda: numbers(0, vector.size)
        )
    if verb == "all_gather":
        return _Case(lambda: library.allgather(whole, piece), piece, whole, all_parts)
    if verb == "reduce_scatter":
        return _Case(
            lambda: library.reduce_scatter(piece, whole),
            *(whole, piece, lambda: own(total(whole.size))),
        )
    if verb == "alltoall":
        found = np.zeros_like(whole)
        return _Case(
            lambda: library.alltoall(found, whole),
            *(whole, found),
            lambda: np.concatenate([own(numbers(rank, whole.size)) for rank in range(n)]),
        )
    if verb == "gather":
        outputs = list(whole.reshape(n, -1)) if root else None
        result = whole if root else None
        return _Case(lambda: library.gather(outputs, piece, 0), piece, result, all_parts)
    if verb == "scatter":
        inputs = list(whole.reshape(n, -1)) if root else None
        return _Case(
            lambda: library.scatter(piece, inputs, 0),
            *(whole, piece, lambda: own(numbers(0, whole.size))),
        )
    return _ping_pong(library, ranks, vector)


def _ping_pong(library: Library, ranks: Ranks, vector: np.ndarray) -> _Case:
    """Even ranks to the next one, and back; the last of an odd number of ranks has no partner."""
    me, other = ranks.rank, ranks.rank ^ 1
    found = np.zeros_like(vector)

    def run() -> None:
        if other >= ranks.size:
            return
        if me % 2 == 0:
            library.send(vector, other)
            library.receive(found, other)
        else:
            library.receive(found, other)
            library.send(vector, other)

    result = found if other < ranks.size else None
    return _Case(run, vector, result, lambda: numbers(other, vector.size), calls_in_one=2)


def measure(ranks: Ranks, case: _Case, seconds: float) -> Row:
    """Time the call for about ``seconds``, as ``choosing/timing.py`` does. Collective."""
    wrong = _count_wrong(ranks, case)
    began = perf_counter()
    for _ in range(2):
        case.run()
    warm = _greatest(ranks, (perf_counter() - began) / 2)
    if warm < seconds / 10:
        for _ in range(_WARM_UP_CALLS):
            case.run()
    calls = block_calls(case.input.nbytes)
    blocks = int(np.clip(seconds / (warm * calls + 1e-9), _BLOCKS_MIN, _BLOCKS_MAX))
    durations = np.empty(blocks)
    for block in range(blocks):
        case.input[:] = 1.0
        ranks.barrier()
        began = perf_counter()
        for _ in range(calls):
            case.run()
        durations[block] = perf_counter() - began
        ranks.barrier()
    us = ranks.maximum(durations) / (calls * case.calls_in_one) * 1e6
    wrong = max(wrong, _count_wrong(ranks, case))
    return {
        "min_us": float(us.min()),
        "time_us": float(np.median(us)),
        "p99_us": float(np.percentile(us, 99)),
        "wrong": wrong,
    }


def _greatest(ranks: Ranks, value: float) -> float:
    return float(ranks.maximum(np.array([value]))[0])


def _count_wrong(ranks: Ranks, case: _Case) -> int:
    """Elements that are not what they have to be after one call, on the rank with most of them."""
    case.input[:] = numbers(ranks.rank, case.input.size)
    ranks.barrier()
    case.run()
    wrong = 0
    if case.result is not None:
        wrong = np.count_nonzero(case.result != case.expected())
    return int(_greatest(ranks, wrong))


def parse_arguments(*options: str) -> argparse.Namespace:
    """The command line of a program that measures one library."""
    parser = argparse.ArgumentParser()
    for option in options:
        parser.add_argument(option, required=True)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, required=True)
    parser.add_argument("--sizes", nargs="+", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--call-seconds", type=float, default=inf)
    parser.add_argument("--json", required=True)
    return parser.parse_args()


def measure_all(
    arguments: argparse.Namespace, ranks: Ranks, library: Library, facts: dict[str, str]
) -> None:
    """A row for each verb and size, written at once. Collective."""
    rows: list[Row] = []
    for verb in arguments.verbs:
        for size in arguments.sizes:
            case = make_case(verb, library, ranks, size)
            found = measure(ranks, case, arguments.seconds)
            rows.append({"verb": verb, "bytes": size, "ranks": ranks.size, **facts, **found})
            if ranks.rank == 0:
                write_rows(arguments.json, rows)
