"""What memory allows: the time in which this host can move the bytes that an allreduce must move.

    bytes that must move   one shared result   (n + 1) N    every input read once, the sum written once
                           private results     2 n N        every input read once and overwritten once
    limit                  these bytes / bandwidth           "of limit" = limit / measured time

Bandwidth is measured in the same run and the same kind of memory (``World.host_array``: a memfd that all
ranks map, 4 KiB pages), on as many ranks as there are cores, each on its own part, with nothing to wait
for inside; the other ranks sleep. Two kernels, the faster one counts, and of that the best round:

- the sum: n rows are added in blocks of 1 KiB, and the sum is stored to the first row (shared) or to all
  rows (private). Stores go to lines that were just read, so what is counted is what moves.
- a copy of one half of the rows to the other, counted as read + written. The lines written are read
  first, which is not counted.

The working set is that of the allreduce, n N, if that is at least half of the L3 cache; else n rows that fill
a quarter of it, because a vector that other cores have just written comes from there at best.
A fraction above 1 therefore says that data stayed in a nearer cache than the limit assumes.
"""

import time

import numpy as np
from numba import njit, types

from benchmarks.harness import l3_bytes
from lepton_mpi.world import MPI, World

# 8 rows of 16 MiB on 2 cores: 1 KiB 54 GB/s, 8 KiB 17 GB/s. Short blocks keep all rows' prefetchers going.
_BLOCK_BYTES = 1 << 10
_ROUNDS = 7
_ROUND_SECONDS = 1e-3
_TYPES = (types.float32, types.float64, types.int32, types.int64)


class MemoryLimit:
    """The limit on this host, for vectors of ``dtype``. Making one is collective over the world."""

    def __init__(self, world: World, dtype: np.dtype) -> None:
        self.world, self.dtype = world, np.dtype(dtype)
        self.workers = min(world.local_size, world.cores)
        self._works = world.local_rank < self.workers
        self._team = world.host_comm.Split(int(self._works), world.local_rank)
        self._rounds_done = world.host_array((1,), np.int64)
        self._bandwidths: dict[int, dict[str, float]] = {}
        self._sum_rows, self._copy_rows = world.first_of_host_first(_compiled)

    def seconds(self, byte_count: int, mode: str) -> float:
        """Least time for an allreduce of ``byte_count`` bytes in ``mode``. Collective over the host."""
        n, half_l3 = self.world.local_size, l3_bytes() // 2
        row_bytes = byte_count if n * byte_count >= half_l3 else half_l3 // 2 // n
        if row_bytes not in self._bandwidths:
            self._bandwidths[row_bytes] = self._measure(row_bytes)
        kind = "shared" if mode == "shared" else "private"
        return _bytes_moved(n, byte_count, kind) / self._bandwidths[row_bytes][kind]

    def _measure(self, row_bytes: int) -> dict[str, float]:
        """Bytes per second for each way of handing over."""
        n = max(self.world.local_size, 2)
        rows = self.world.host_array((n, row_bytes // self.dtype.itemsize), self.dtype)
        start, stop = (rows.shape[1] * (self.world.local_rank + i) // self.workers for i in (0, 1))
        if not self._works:
            return self._sleep_until_measured()
        self._sum_rows(rows, start, stop, n, 1)
        repeats = max(1, int(_ROUND_SECONDS * 50e9 / (2 * rows.nbytes)))
        moved = n // 2 * 2 * row_bytes
        copy = moved / self._best(lambda: self._copy_rows(rows, start, stop, repeats), repeats)
        result = {}
        for kind, targets in (("shared", 1), ("private", n)):
            sums = self._best(
                lambda targets=targets: self._sum_rows(rows, start, stop, targets, repeats), repeats
            )
            result[kind] = max(copy, _bytes_moved(n, row_bytes, kind) / sums)
        if self.world.local_rank == 0:
            self._rounds_done[0] += 1
        return self._agreed(result)

    def _best(self, kernel, repeats: int) -> float:
        """Seconds of the best round, each as long as its slowest rank."""
        seconds = np.empty(_ROUNDS)
        for number in range(_ROUNDS):
            self._team.Barrier()
            began = time.perf_counter()
            kernel()
            seconds[number] = time.perf_counter() - began
        self._team.Allreduce(MPI.IN_PLACE, seconds, MPI.MAX)
        return float(seconds.min()) / repeats

    def _sleep_until_measured(self) -> dict[str, float]:
        # Waiting inside MPI would take the cores away from those that work.
        known = len(self._bandwidths)
        while self._rounds_done[0] <= known:
            time.sleep(0.002)
        return self._agreed(None)

    def _agreed(self, result: dict[str, float] | None) -> dict[str, float]:
        return self.world.host_comm.bcast(result)


def _bytes_moved(n: int, byte_count: int, kind: str) -> int:
    return (n + 1 if kind == "shared" else 2 * n) * byte_count


def _compiled():
    """The kernels; compiled or loaded when this is first called."""
    sums = njit([types.void(t[:, ::1], *[types.intp] * 4) for t in _TYPES], cache=True, nogil=True)(
        sum_rows
    )
    copies = njit(
        [types.void(t[:, ::1], *[types.intp] * 3) for t in _TYPES], cache=True, nogil=True
    )(copy_rows)
    return sums, copies


def sum_rows(rows, start, stop, targets, repeats):
    """Replace [start, stop) of the first ``targets`` of n >= 2 rows by the sum of all, ``repeats`` times."""
    block = _BLOCK_BYTES // rows.itemsize
    total = np.empty(block, rows.dtype)
    for _ in range(repeats):
        for first in range(start, stop, block):
            last = min(first + block, stop)
            out, a, b = total[: last - first], rows[0, first:last], rows[1, first:last]
            for i in range(out.size):
                out[i] = a[i] + b[i]
            for row in range(2, rows.shape[0]):
                term = rows[row, first:last]
                for i in range(out.size):
                    out[i] += term[i]
            for row in range(targets):
                target = rows[row, first:last]
                for i in range(out.size):
                    target[i] = out[i]


def copy_rows(rows, start, stop, repeats):
    """Copy [start, stop) of the first half of the rows to the second half, ``repeats`` times."""
    half = rows.shape[0] // 2
    for _ in range(repeats):
        for row in range(half):
            source, target = rows[row, start:stop], rows[half + row, start:stop]
            for i in range(source.size):
                target[i] = source[i]
