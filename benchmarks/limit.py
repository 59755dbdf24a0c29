"""What memory allows: the time in which this host can move the bytes that an allreduce must move.

    bytes that must move   one shared result   (n + 1) N    every input read once, the sum written once
                           private results     2 n N        every input read once and overwritten once
                           sum and update      (n + 2 + 2 s) N   every gradient read once, parameters and s
                                                             vectors of state read and overwritten once
    limit                  these bytes / bandwidth           "of limit" = limit / measured time

Bandwidth is measured in the same run and the same kind of memory (``World.host_array``: a memfd that all
ranks map), on as many ranks as there are cores, each on its own part, with nothing to wait
for inside; the other ranks sleep. Three kernels, the fastest one counts, and of that the best round:

- a sum of n rows in passes over blocks of 1 KiB, stored to one more row (shared) or to all rows (private);
- for 2, 4 and 8 rows the same in one pass, with ordinary and with streaming stores;
- a copy of one half of the rows to the other, counted as read + written. The lines written are read
  first, which is not counted.

For a sum and update three more, whose arithmetic is the least there can be, so that memory is what is measured. All of
them read and write what an update does, since bytes read and bytes written do not take the same time:

- a sum of the gradients in passes over blocks of 1 or 4 KiB, which is added to each of the other vectors;
- for 1, 2, 4 and 8 gradients the same with the sum in one pass;
- one vector after the other, which is what cores prefetch best.

The working set is that of the allreduce if n N is at least half of the L3 cache; else n rows that fill
a quarter of it, because a vector that other cores have just written comes from there at best. Of an update all
n + 1 + s vectors count, and 512 MiB of them are enough.
A fraction above 1 therefore says that data stayed in a nearer cache than the limit assumes.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import l3_bytes
from lepton_mpi.collectives.combining_kernels import SUM
from lepton_mpi.collectives.within_host.fold_kernels import ARITIES, LINE_BYTES, fold
from lepton_mpi.kernels.compiling import Kernel, kernel
from lepton_mpi.kernels.intrinsics import base_address
from lepton_mpi.world.mpi import MPI
from lepton_mpi.world.world import World

# 8 rows of 16 MiB on 2 cores: 1 KiB 54 GB/s, 8 KiB 17 GB/s. Short blocks keep all rows' prefetchers going.
_BLOCK_BYTES = 1 << 10
_ROUNDS = 7
_ROUND_SECONDS = 1e-3
_UPDATE_BLOCKS_BYTES = (1 << 10, 4 << 10)
# More would take seconds and memory that the measured case needs, and comes from memory alike.
_UPDATE_BYTES_MAX = 512 << 20


class MemoryLimit:
    """The limit on this host, for vectors of ``dtype``. Making one is collective over the world."""

    def __init__(self, world: World, dtype: np.dtype) -> None:
        self.world, self.dtype = world, np.dtype(dtype)
        self.workers = min(world.local_size, world.cores)
        self._works = world.local_rank < self.workers
        self._team = world.host_comm.Split(int(self._works), world.local_rank)
        self._rounds_done = world.host_array((1,), np.int64)
        self._bandwidths: dict[tuple[int, int | None], dict[str, float]] = {}

    def seconds(self, byte_count: int, mode: str) -> float:
        """Least time for an allreduce of ``byte_count`` bytes in ``mode``. Collective over the host."""
        n = self.world.local_size
        kind = "shared" if mode == "shared" else "private"
        bandwidth = self._bandwidth(_row_bytes(n, byte_count), None)[kind]
        return _bytes_moved(n, byte_count, kind) / bandwidth

    def update_seconds(self, byte_count: int, states: int) -> float:
        """Least time to sum gradients of ``byte_count`` bytes and update as many of parameters. Collective over the host.

        ``states`` is the number of vectors of state that the optimizer keeps.
        """
        n = self.world.local_size
        row_bytes = _row_bytes(n + 1 + states, byte_count)
        row_bytes = min(row_bytes, _UPDATE_BYTES_MAX // (n + 1 + states))
        return _update_bytes(n, byte_count, states) / self._bandwidth(row_bytes, states)["update"]

    def _bandwidth(self, row_bytes: int, states: int | None) -> dict[str, float]:
        """Bytes per second: of an update, or without ``states`` for each way of handing over."""
        if (row_bytes, states) not in self._bandwidths:
            self._bandwidths[row_bytes, states] = self._measure(row_bytes, states)
        return self._bandwidths[row_bytes, states]

    def _measure(self, row_bytes: int, states: int | None) -> dict[str, float]:
        n, line = self.world.local_size, LINE_BYTES // self.dtype.itemsize
        columns = -(-row_bytes // LINE_BYTES) * line
        vectors = max(n, 2) + 1 if states is None else n + 1 + states
        rows = self.world.host_array((vectors, columns), self.dtype)
        if not self._works:
            return self._sleep_until_measured()
        bounds = [columns // line * i // self.workers * line for i in range(self.workers + 1)]
        span = bounds[self.world.local_rank : self.world.local_rank + 2]
        repeats = max(1, int(_ROUND_SECONDS * 50e9 / (2 * rows.nbytes)))
        if states is None:
            result = self._allreduce(rows, *span, repeats)
        else:
            result = {"update": self._update(rows, *span, repeats)}
        if self.world.local_rank == 0:
            self._rounds_done[0] += 1
        return self._agreed(result)

    def _allreduce(self, rows: np.ndarray, start: int, stop: int, repeats: int) -> dict[str, float]:
        """Bytes per second for each way of handing over."""
        n, row_bytes = len(rows) - 1, rows[0].nbytes
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
            seconds = min(self._best(run, repeats) for run in runs)
            result[kind] = max(bandwidth, _bytes_moved(n, row_bytes, kind) / seconds)
        return result

    def _update(self, rows: np.ndarray, start: int, stop: int, repeats: int) -> float:
        """Bytes per second; the gradients are the first rows, one a rank."""
        n = self.world.local_size
        adding = [add_sum, add_passes, *([add_fold] if n in ARITIES else [])]
        seconds = [
            self._best(lambda a=add, b=block: a(rows, n, start, stop, b, repeats), repeats)
            for add in adding
            for block in _UPDATE_BLOCKS_BYTES
        ]
        return _update_bytes(n, rows[0].nbytes, len(rows) - n - 1) / min(seconds)

    def _best(self, run, repeats: int) -> float:
        """Seconds of the best round, each as long as its slowest rank."""
        seconds = np.empty(_ROUNDS)
        run()
        for number in range(_ROUNDS):
            self._team.Barrier()
            began = time.perf_counter()
            run()
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


def _row_bytes(vectors: int, byte_count: int) -> int:
    """Length at which ``vectors`` rows are measured for rows of ``byte_count`` bytes."""
    half_l3 = l3_bytes() // 2
    return byte_count if vectors * byte_count >= half_l3 else half_l3 // 2 // vectors


def _update_bytes(n: int, byte_count: int, states: int) -> int:
    return (n + 2 + 2 * states) * byte_count


def _bytes_moved(n: int, byte_count: int, kind: str) -> int:
    return (n + 1 if kind == "shared" else 2 * n) * byte_count


def _on_rows(rest: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Declares a kernel of a matrix of any type that is summed, and of the arguments ``rest``."""
    return kernel(*(f"void({rows}, {rest})" for rows in ("M", "i4[:,::1]", "i8[:,::1]")))


@_on_rows("i8, i8, i8[::1], i8")
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


@_on_rows("i8, i8, i8[::1], b1, i8")
def fold_rows(rows, start, stop, targets, streaming, repeats):
    """The same for 2, 4 or 8 rows, in one pass; start and stop are multiples of 64 bytes."""
    n, row_bytes = rows.shape[0] - 1, rows.shape[1] * rows.itemsize
    addresses = np.empty(n + targets.size, np.int64)
    for k in range(n + targets.size):
        row = k if k < n else targets[k - n]
        addresses[k] = base_address(rows) + row * row_bytes + start * rows.itemsize
    for _ in range(repeats):
        fold(rows, addresses, n, SUM, streaming, targets.size, (stop - start) * rows.itemsize)


@_on_rows("i8, i8, i8")
def copy_rows(rows, start, stop, repeats):
    """Copy [start, stop) of the first half of the rows to the second half, ``repeats`` times."""
    half = rows.shape[0] // 2
    for _ in range(repeats):
        for row in range(half):
            source, target = rows[row, start:stop], rows[half + row, start:stop]
            for i in range(source.size):
                target[i] = source[i]


@_on_rows("i8, i8, i8, i8, i8")
def add_sum(rows, n, start, stop, block_bytes, repeats):
    """Add the sum of [start, stop) of the first n rows to each of the others, block by block, ``repeats`` times."""
    block = block_bytes // rows.itemsize
    total = np.empty(block, rows.dtype)
    for _ in range(repeats):
        for first in range(start, stop, block):
            last = min(first + block, stop)
            out, term = total[: last - first], rows[0, first:last]
            for i in range(out.size):
                out[i] = term[i]
            for row in range(1, n):
                term = rows[row, first:last]
                for i in range(out.size):
                    out[i] += term[i]
            for row in range(n, rows.shape[0]):
                target = rows[row, first:last]
                for i in range(out.size):
                    target[i] += out[i]


@_on_rows("i8, i8, i8, i8, i8")
def add_fold(rows, n, start, stop, block_bytes, repeats):
    """The same for 1, 2, 4 or 8 rows, with the sum of a block in one pass."""
    row_bytes, block = rows.shape[1] * rows.itemsize, block_bytes // rows.itemsize
    total, addresses = np.empty(block, rows.dtype), np.empty(n + 1, np.int64)
    addresses[n] = base_address(total)
    for _ in range(repeats):
        for first in range(start, stop, block):
            last = min(first + block, stop)
            for row in range(n):
                addresses[row] = base_address(rows) + row * row_bytes + first * rows.itemsize
            fold(rows, addresses, n, SUM, False, 1, (last - first) * rows.itemsize)
            out = total[: last - first]
            for row in range(n, rows.shape[0]):
                target = rows[row, first:last]
                for i in range(out.size):
                    target[i] += out[i]


@_on_rows("i8, i8, i8, i8, i8")
def add_passes(rows, n, start, stop, block_bytes, repeats):
    """The same traffic with one row after the other: the first n are read, the others read and overwritten.

    What is added is a sum over blocks, and of no use.
    """
    block = block_bytes // rows.itemsize
    total = np.zeros(block, rows.dtype)
    for _ in range(repeats):
        for row in range(rows.shape[0]):
            for first in range(start, stop, block):
                part = rows[row, first : min(first + block, stop)]
                out = total[: part.size]
                if row < n:
                    for i in range(out.size):
                        out[i] += part[i]
                else:
                    for i in range(out.size):
                        part[i] += out[i]
