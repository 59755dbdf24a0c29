"""What every engine of ``benchmarks/loader.py`` shares: its options, the state of the page cache, the clock, the row.

    file in its state of the cache | barrier | began: rows, rows, … ended | checked
    rank 0                                     *------------------*
    rank 1                                     *-----------------*
                                               <------------------>   the slowest rank counts

- A peer on a warm file is timed over the beginning of a shuffled epoch, ``--seconds`` of it, after a few batches that are not
  timed; what it prepares before an epoch (the order, worker processes, an open file) is left out.
- On a dropped file it is timed from its first batch on, over the epoch, or 5 s of a longer one: what is read unasked for
  while nobody looks would else count as speed, and a file of 1 GiB may be in memory after a few batches.
- lepton_mpi is timed over whole epochs, everything included, until ``--seconds`` are over.
- The memory of the row is that of the timed part: peaks are reset before it.

Needs NumPy only: peers run where there is no MPI.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.engines import page_cache
from benchmarks.engines.loader_rows import BATCH_ROWS, Seen, SeenRows, count_wrong
from benchmarks.harness import Row

CACHES = ("warm", "dropped")
_WARM_UP_BATCHES, _DROP_TRIES = 8, 10
COLD_SECONDS = 5.0
# What a page or two of metadata, read while the file is opened, may be off by.
_STATE_TOLERANCE = 0.02


class Ranks(Protocol):
    """The processes that share an epoch."""

    rank: int
    size: int

    def barrier(self) -> None:
        """Wait for all."""

    def allgather(self, value: Any) -> list:
        """Everybody's value, by rank."""


@dataclass(frozen=True)
class DataFile:
    """A file as the engines are told of it: FOLDER/LAYOUT-SAMPLE_BYTES-ROWS.h5."""

    path: Path

    @classmethod
    def named(cls, folder: Path, layout: str, sample_bytes: int, row_count: int) -> "DataFile":
        """The file of this content in ``folder``.

        >>> DataFile.named(Path("/tmp"), "gzip", 1024, 64).row_count
        64
        """
        return cls(folder / f"{layout}-{sample_bytes}-{row_count}.h5")

    @property
    def layout(self) -> str:
        return self.path.stem.split("-")[0]

    @property
    def sample_bytes(self) -> int:
        return int(self.path.stem.split("-")[1])

    @property
    def row_count(self) -> int:
        return int(self.path.stem.split("-")[2])


def parser() -> argparse.ArgumentParser:
    """Options that every engine's program has."""
    made = argparse.ArgumentParser()
    made.add_argument("--files", nargs="+", type=lambda text: DataFile(Path(text)), required=True)
    made.add_argument("--caches", nargs="+", choices=CACHES, default=list(CACHES))
    made.add_argument("--seconds", type=float, default=1.0)
    made.add_argument("--json", required=True)
    return made


def set_cache(ranks: Ranks, path: Path, state: str) -> None:
    """Bring the file into a state of the page cache, "warm" or "dropped". Collective; nobody may have it mapped."""
    ranks.barrier()
    if ranks.rank == 0 and state == "dropped":
        for _ in range(_DROP_TRIES):  # pages that the disk is still reading ahead stay
            page_cache.drop(path)
            if page_cache.cached_share(path) == 0:
                break
            time.sleep(0.05)
    elif ranks.rank == 0 and page_cache.cached_share(path) < 1:
        page_cache.warm(path)
    ranks.barrier()


def cache_problem(share: float, state: str) -> str:
    """Why the file is not in the state asked for; empty if it is.

    >>> cache_problem(1.0, "warm"), cache_problem(0.5, "dropped")
    ('', 'expected a file that is dropped, got 50% of it in the page cache')
    """
    wanted = 1.0 if state == "warm" else 0.0
    is_right = abs(share - wanted) <= _STATE_TOLERANCE
    return (
        ""
        if is_right
        else f"expected a file that is {state}, got {share:.0%} of it in the page cache"
    )


def own_share(order: np.ndarray, ranks: Ranks) -> np.ndarray:
    """The rows of this rank, as torch's DistributedSampler deals them out: every n-th."""
    return order[ranks.rank :: ranks.size]


def batches_of(indices: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of 64, the last maybe shorter."""
    for start in range(0, len(indices), BATCH_ROWS):
        yield indices[start : start + BATCH_ROWS]


class WorldRanks:
    """The ranks of a ``World`` as ``Ranks``."""

    def __init__(self, world) -> None:
        self.rank, self.size = world.rank, world.size
        self.barrier, self.allgather = world.comm.Barrier, world.comm.allgather


@dataclass(frozen=True)
class Timing:
    """Rows that a rank was given in the timed part, its seconds, and all that it was given in the epoch.

    ``memory`` is that of before the timed part, as ``memory_bytes`` has it: worker processes may be gone after it.
    """

    rows: int
    seconds: float
    seen: Seen
    is_whole: bool
    memory: tuple[int, int] = (0, 0)


def time_prefix(
    ranks: Ranks, batches: Iterator, share_rows: int, seconds: float, state: str = "warm"
) -> Timing:
    """Time the beginning of an epoch of which this rank has ``share_rows`` rows. Collective.

    ``batches`` yields (x float32 (n, features), y (n,)). Looking at them is not counted.
    """
    seen = SeenRows(share_rows)
    if state == "warm":
        for _ in range(min(_WARM_UP_BATCHES, -(-share_rows // BATCH_ROWS) // 4)):
            seen.add(*next(batches))
    memory = memory_bytes()
    ranks.barrier()
    before, began, is_whole, looking = seen.count, time.perf_counter(), False, 0.0
    while (passed := time.perf_counter() - began - looking) < seconds:
        batch = next(batches, None)
        if batch is None:
            is_whole = True
            break
        looks = time.perf_counter()
        seen.add(*batch)
        looking += time.perf_counter() - looks
    is_whole = is_whole or seen.count >= share_rows
    return Timing(seen.count - before, passed, seen.seen(), is_whole, memory)


def rate(timings: Sequence[Timing]) -> float:
    """Samples a second over all ranks: the slowest counts."""
    return sum(t.rows for t in timings) / max(max(t.seconds for t in timings), 1e-9)


def loader_row(
    engine: str, file: DataFile, cache: str, ranks: int, samples_per_second: float, **more
) -> Row:
    """The row of a case; ``time_us`` is the time of a whole epoch at this speed."""
    epoch_us = file.row_count / samples_per_second * 1e6
    return {
        "engine": engine,
        "way": "",
        "form": "",
        "layout": file.layout,
        "cache": cache,
        "ranks": ranks,
        "sample_bytes": file.sample_bytes,
        "row_count": file.row_count,
        "file_bytes": file.path.stat().st_size,
        "time_us": epoch_us,
        "min_us": epoch_us,
        "wrong": 0,
        **more,
    }


def timed_row(
    engine: str, file: DataFile, cache: str, ranks: Ranks, timing: Timing, **more
) -> Row | None:
    """The row of what ``time_prefix`` measured, on rank 0; None on the others. Collective."""
    memory = tuple(map(max, timing.memory, memory_bytes()))
    timings, memories = ranks.allgather(timing), ranks.allgather(memory)
    if ranks.rank:
        return None
    parts = [t.seen for t in timings]
    is_whole = all(t.is_whole for t in timings)
    return loader_row(
        engine,
        file,
        cache,
        ranks.size,
        rate(timings),
        share_of_epoch=sum(len(part.numbers) for part in parts) / file.row_count,
        wrong=count_wrong(parts, file.row_count, is_whole),
        peak_rss=sum(peak for peak, _ in memories),
        pss=sum(pss for _, pss in memories),
        **more,
    )


# -- memory --------------------------------------------------------------------------------------


def reset_peak() -> None:
    """Let the peak of this process's memory begin anew, where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def memory_bytes() -> tuple[int, int]:
    """(peak of the resident memory, its proportional part now) of this process and its children, in bytes."""
    found = [
        (_kilobytes(p, "status", "VmHWM"), _kilobytes(p, "smaps_rollup", "Pss")) for p in _own()
    ]
    return sum(peak for peak, _ in found) * 1024, sum(pss for _, pss in found) * 1024


def _own() -> list[str]:
    return ["self", *(str(child.pid) for child in multiprocessing.active_children())]


def _kilobytes(process: str, name: str, key: str) -> int:
    try:
        lines = Path("/proc", process, name).read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
