"""What memory allows: the time in which this host can move the bytes that an allreduce must move.

    bytes that must move   one shared result   (n + 1) N    every input read once, the sum written once
                           private results     2 n N        every input read once and overwritten once
    limit                  these bytes / bandwidth           "of limit" = limit / measured time

Bandwidth is measured in the same run and the same kind of memory (``World.host_array``: a memfd that all
ranks map, 4 KiB pages), on as many ranks as there are cores, each on its own part, with nothing to wait
for inside; the other ranks sleep. Three kernels, the fastest one counts, and of that the best round:

- a sum of n rows in passes over blocks of 1 KiB, stored to one more row (shared) or to all rows (private);
- for 2, 4 and 8 rows the same in one pass, with ordinary and with streaming stores;
- a copy of one half of the rows to the other, counted as read + written. The lines written are read
  first, which is not counted.

The working set is that of the allreduce if n N is at least half of the L3 cache; else n rows that fill
a quarter of it, because a vector that other cores have just written comes from there at best.
A fraction above 1 therefore says that data stayed in a nearer cache than the limit assumes.
"""

import time

import numpy as np
from numba import njit, types

from benchmarks.harness import l3_bytes
from lepton_mpi.collectives.fold_kernels import LINE_BYTES, SUM, fold
from lepton_mpi.intrinsics import base_address
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
        self._kernels = world.first_of_host_first(_compiled)

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
        line = LINE_BYTES // self.dtype.itemsize
        columns = -(-row_bytes // LINE_BYTES) * line
        rows = self.world.host_array((n + 1, columns), self.dtype)
        if not self._works:
            return self._sleep_until_measured()
        bounds = [columns // line * i // self.workers * line for i in range(self.workers + 1)]
        start, stop = bounds[self.world.local_rank : self.world.local_rank + 2]
        sum_rows, fold_rows, copy_rows = self._kernels
        repeats = max(1, int(_ROUND_SECONDS * 50e9 / (2 * rows.nbytes)))
        copy = self._best(lambda: copy_rows(rows[:n], start, stop, repeats), repeats)
        bandwidth = n // 2 * 2 * row_bytes / copy
        result = {}
        for kind in ("shared", "private"):
            targets = np.arange(n, n + 1) if kind == "shared" else np.arange(n)
            runs = [lambda t=targets: sum_rows(rows, start, stop, t, repeats)]
            if n in (2, 4, 8):
                runs.append(lambda t=targets: fold_rows(rows, start, stop, t, False, repeats))
            if n in (2, 4, 8) and kind == "shared":
                runs.append(lambda t=targets: fold_rows(rows, start, stop, t, True, repeats))
            seconds = min(self._best(kernel, repeats) for kernel in runs)
            result[kind] = max(bandwidth, _bytes_moved(n, row_bytes, kind) / seconds)
        if self.world.local_rank == 0:
            self._rounds_done[0] += 1
        return self._agreed(result)

    def _best(self, kernel, repeats: int) -> float:
        """Seconds of the best round, each as long as its slowest rank."""
        seconds = np.empty(_ROUNDS)
        kernel()
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
    span = [types.intp] * 2
    signatures = {
        sum_rows: (*span, types.int64[::1], types.intp),
        fold_rows: (*span, types.int64[::1], types.boolean, types.intp),
        copy_rows: (*span, types.intp),
    }
    return [
        njit([types.void(t[:, ::1], *rest) for t in _TYPES], cache=True, nogil=True)(kernel)
        for kernel, rest in signatures.items()
    ]


def sum_rows(rows, start, stop, targets, repeats):
    """Store the sum of [start, stop) of all rows but the last to the rows ``targets``, ``repeats`` times."""
    block = _BLOCK_BYTES // rows.itemsize
    total = np.empty(block, rows.dtype)
    for _ in range(repeats):
        for first in range(start, stop, block):
            last = min(first + block, stop)
            out, a, b = total[: last - first], rows[0, first:last], rows[1, first:last]
            for i in range(out.size):
                out[i] = a[i] + b[i]
            for row in range(2, rows.shape[0] - 1):
                term = rows[row, first:last]
                for i in range(out.size):
                    out[i] += term[i]
            for row in targets:
                target = rows[row, first:last]
                for i in range(out.size):
                    target[i] = out[i]


def fold_rows(rows, start, stop, targets, streaming, repeats):
    """The same for 2, 4 or 8 rows, in one pass; start and stop are multiples of 64 bytes."""
    n, row_bytes = rows.shape[0] - 1, rows.shape[1] * rows.itemsize
    addresses = np.empty(n + targets.size, np.int64)
    for k in range(n + targets.size):
        row = k if k < n else targets[k - n]
        addresses[k] = base_address(rows) + row * row_bytes + start * rows.itemsize
    for _ in range(repeats):
        fold(rows, addresses, n, SUM, streaming, targets.size, (stop - start) * rows.itemsize)


def copy_rows(rows, start, stop, repeats):
    """Copy [start, stop) of the first half of the rows to the second half, ``repeats`` times."""
    half = rows.shape[0] // 2
    for _ in range(repeats):
        for row in range(half):
            source, target = rows[row, start:stop], rows[half + row, start:stop]
            for i in range(source.size):
                target[i] = source[i]
