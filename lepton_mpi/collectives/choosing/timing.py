r"""How one collective call is timed and checked, the same way for every library.

    fill | barrier | t0 call call … call t1 | barrier | fill | barrier | t0 call call … call t1 | barrier | …
                      \___ one block ___/

- A *block* is ``block_calls(bytes)`` calls back to back after the library's own barrier: 16 up to 256 KiB,
  so that many calls share the skew with which ranks leave the barrier; fewer above, and 1 from 4 MiB.
- A barrier follows, too. Without it, where there are more ranks than cores, whoever is first to end would fill its next
  input while others, whose sum is complete, wait for a core in order to end.
- Time of a call = block time / calls; maximum over ranks, block by block; then min, median, p99 over blocks.
- At least 10 untimed calls come first. MPICH takes its shared-memory path from the sixth on.
- Before each block every rank writes its input again, as a gradient would be, outside the timer.
- Every element of the result is checked before and after the timing. The fill is integer-valued, and small
  enough for any order of summation to be exact, so right means equal.

Needs NumPy and nothing else, so that it runs in every peer's environment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from math import inf
from time import perf_counter
from typing import Protocol

import numpy as np

WARM_UP_CALLS = 10
# Of a call that takes longer than the whole time to measure it; more would take minutes.
_WARM_UP_CALLS_SLOW = 3
_BLOCK_BYTES, _BLOCK_CALLS_MAX = 4 << 20, 16
_BLOCKS_MIN, _BLOCKS_MAX = 5, 1000
# A prime: whatever is out of place by a power of two elements has a wrong value.
_PERIOD = 1021
# The fill is written tile by tile: one that stays in the L1 cache costs no second stream of memory.
_TILE = 4 * _PERIOD


class Ranks(Protocol):
    """What timing needs of a library: two numbers and two collectives."""

    rank: int
    size: int

    def barrier(self) -> None:
        """Wait for all ranks."""

    def maximum(self, values: np.ndarray) -> np.ndarray:
        """Element-wise maximum of a float64 vector over ranks. Collective."""


@dataclass(frozen=True)
class Call:
    """One way to call one library's allreduce: write ``input``, ``run()``, read ``result``."""

    input: np.ndarray
    run: Callable[[], object]
    result: np.ndarray


@dataclass(frozen=True)
class Timing:
    """Microseconds of a call, over blocks; wrong elements on the rank that has most of them."""

    min_us: float
    time_us: float
    p99_us: float
    wrong: int


def measure(
    ranks: Ranks, call: Call, seconds: float = 0.3, give_up_seconds: float = inf
) -> Timing | None:
    """Time ``call`` for about ``seconds``, at least 5 blocks. Collective over ``ranks``.

    Returns None if the first calls take longer than ``give_up_seconds`` each.
    """
    fill(call.input, ranks)
    _slowest(ranks, call.run, 1)
    warm = _slowest(ranks, call.run, _WARM_UP_CALLS_SLOW - 1)
    if warm > give_up_seconds:
        return None
    if warm < seconds:
        warm = _slowest(ranks, call.run, WARM_UP_CALLS - _WARM_UP_CALLS_SLOW)
    wrong = _check(ranks, call)

    calls = block_calls(call.input.nbytes)
    durations = np.empty(int(np.clip(seconds / (warm * calls), _BLOCKS_MIN, _BLOCKS_MAX)))
    for block in range(len(durations)):
        fill(call.input, ranks)
        ranks.barrier()
        durations[block] = _timed(call.run, calls)
        ranks.barrier()
    wrong = max(wrong, _check(ranks, call))
    us = ranks.maximum(durations) / calls * 1e6
    return Timing(float(us.min()), float(np.median(us)), float(np.percentile(us, 99)), wrong)


def block_calls(byte_count: int) -> int:
    """Calls timed together for a vector of ``byte_count`` bytes.

    >>> [block_calls(size) for size in (8, 256 << 10, 1 << 20, 64 << 20)]
    [16, 16, 4, 1]
    """
    return min(max(_BLOCK_BYTES // max(byte_count, 1), 1), _BLOCK_CALLS_MAX)


def fill(array: np.ndarray, ranks: Ranks) -> None:
    """Write this rank's contribution: element i of rank r is ``(i * size + r) mod 1021``."""
    tile = _tile(ranks.size, ranks.rank).astype(array.dtype)
    whole = array.size // _TILE * _TILE
    array[:whole].reshape(-1, _TILE)[...] = tile
    array[whole:] = tile[: array.size - whole]


def count_wrong(array: np.ndarray, size: int) -> int:
    """Elements of ``array`` that are not exactly the sum of all ranks' ``fill``."""
    expected = sum(_tile(size, rank) for rank in range(size)).astype(array.dtype)
    whole = array.size // _TILE * _TILE
    wrong = np.count_nonzero(array[:whole].reshape(-1, _TILE) != expected)
    return int(wrong + np.count_nonzero(array[whole:] != expected[: array.size - whole]))


def _tile(size: int, rank: int) -> np.ndarray:
    return (np.arange(_TILE) * size + rank) % _PERIOD


def _timed(run: Callable[[], object], calls: int) -> float:
    began = perf_counter()
    for _ in repeat(None, calls):
        run()
    return perf_counter() - began


def _slowest(ranks: Ranks, run: Callable[[], object], calls: int) -> float:
    """Seconds of a call on the slowest rank; never 0."""
    return float(ranks.maximum(np.array([_timed(run, calls)]))[0]) / calls + 1e-9


def _check(ranks: Ranks, call: Call) -> int:
    fill(call.input, ranks)
    call.run()
    # The maximum is also the barrier that keeps a result shared by the host as it is until all have counted.
    return int(ranks.maximum(np.array([count_wrong(call.result, ranks.size)], np.float64))[0])
