"""How fast are rows gathered from memory, and what does it bring to ask for them ahead?

    ./run_local.sh bench gather

Rows of bytes, gathered at random from a table that is larger than every cache ("memory") and from one that fits
into the core's own ("cache"), by the kernel of the loader with other values of _ROWS_AHEAD: 0 asks for nothing.
One process; the kernels take turns. Nanoseconds a row, and bytes read and written a second.
"""

import argparse
import statistics
import time
import types

import numpy as np
from numba import njit

from benchmarks.harness import machine, print_header
from lepton_mpi.data import kernels

_TABLE_BYTES, _CACHED_ROWS, _BATCH_ROWS = 512 << 20, 64, 64
_ROUND_ROWS, _ROUNDS = 1 << 15, 9


def main() -> int:
    """Print a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, nargs="+", default=[784, 1024, 3072, 150_528])
    parser.add_argument("--rows-ahead", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    options = parser.parse_args()
    gathers = {count: gather_with(count) for count in options.rows_ahead}
    print_header("rows gathered from memory", machine() | {"rows of a batch": _BATCH_ROWS})
    print(
        f"{'bytes a row':>11} {'ahead':>6} {'memory ns':>10} {'GB/s':>6} {'cache ns':>9} {'GB/s':>6}"
    )
    for features in options.features:
        for count, (memory, cache) in times(features, gathers).items():
            rates = (5 * features / nanoseconds for nanoseconds in (memory, cache))
            told = zip((memory, cache), rates, strict=True)
            print(f"{features:>11} {count:>6}", *(f"{ns:>9.0f} {rate:>7.1f}" for ns, rate in told))
    return 0


def gather_with(rows_ahead: int):
    """The kernel with another value of the constant."""
    source = kernels.gather_rows.py_func
    names = dict(source.__globals__, _ROWS_AHEAD=rows_ahead)
    signature = "void(u1[:,::1], i8[::1], f4[::1], f4[::1], f4[:,::1])"
    return njit(signature, nogil=True)(types.FunctionType(source.__code__, names))


def times(features: int, gathers: dict) -> dict[int, tuple[float, float]]:
    """Median nanoseconds a row of each kernel, from memory and from the cache."""
    generator = np.random.default_rng(0)
    table = generator.integers(0, 256, (_TABLE_BYTES // features, features), np.uint8)
    cached = table[:_CACHED_ROWS].copy()
    shift, scale = np.zeros(features, np.float32), np.full(features, 1 / 255, np.float32)
    out = np.empty((_BATCH_ROWS, features), np.float32)
    count = max(_BATCH_ROWS, min(_ROUND_ROWS, len(table)) // _BATCH_ROWS * _BATCH_ROWS)
    found: dict[int, tuple[list, list]] = {ahead: ([], []) for ahead in gathers}
    for _ in range(_ROUNDS):
        for ahead, gather in gathers.items():
            for source, list_ in zip((table, cached), found[ahead], strict=True):
                rows = generator.integers(0, len(source), count)
                began = time.perf_counter()
                for start in range(0, count, _BATCH_ROWS):
                    gather(source, rows[start : start + _BATCH_ROWS], shift, scale, out)
                list_.append((time.perf_counter() - began) / count * 1e9)
    return {
        ahead: tuple(statistics.median(list_) for list_ in lists) for ahead, lists in found.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
