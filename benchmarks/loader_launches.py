"""Which launches ``benchmarks/loader.py`` starts, what becomes of their rows, and the lines that close it."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from benchmarks.engines.loader_case import DataFile
from benchmarks.engines.loader_peers import ENGINES, LIMIT
from benchmarks.harness import Launch, Row, mpi_command, over_launches
from benchmarks.peers.environment import (
    SET_UP_LIMIT_SECONDS,
    TORCH_WITH_HDF5,
    try_out,
)
from lepton_mpi.wording import size_text

OURS = "lepton_mpi"
# The layouts that a way can read.
WAYS = {
    "memory": ("contiguous", "chunked", "gzip"),
    "mapped": ("contiguous",),
    "streamed": ("contiguous", "chunked", "gzip"),
}
PEERS = tuple(ENGINES)
_LAUNCH_LIMIT_SECONDS = 900.0
# Least ratio of our speed to a peer's, and the files and ranks that it is asked for.
MARKS = {"h5py-index": 5.0, "torch-dataloader": 3.0}
MARK_RANKS, MARK_BYTES, MARK_OF_COPY = 2, 1 << 30, 0.6
_WHOLE_ROWS = 0.99  # a file of 1 GiB in whole rows is a little shorter


def ours(way: str, files: Sequence[DataFile], ranks: int, caches: Sequence[str], seconds: float):
    """The launch of one of our ways; None if it can read none of the files."""
    fitting = [file for file in files if file.layout in WAYS[way]]
    # What is in memory does not depend on the page cache either.
    states = [state for state in caches if way != "memory" or state == caches[0]]
    words = ("-m", "benchmarks.engines.loader", "--way", way, *_words(fitting, states, seconds))
    launch = Launch(
        f"{OURS} {way} n={ranks}",
        mpi_command(ranks, *words),
        limit_seconds=_LAUNCH_LIMIT_SECONDS,
    )
    return launch if fitting else None


def our_training(file: DataFile, ranks: int, state: str):
    """The launch of a training that streams a file."""
    words = ("-m", "benchmarks.engines.loader_training", *_words([file], [state], 0.0))
    return Launch(
        f"{OURS} training n={ranks}",
        mpi_command(ranks, *words),
        limit_seconds=_LAUNCH_LIMIT_SECONDS,
    )


def peer(engine: str, files: Sequence[DataFile], ranks: int, caches: Sequence[str], seconds: float):
    """The launch of a peer, or of the plain read that is the limit; None if it can read none of the files."""
    fitting = [file for file in files if engine != "memmap" or file.layout == "contiguous"]
    python = TORCH_WITH_HDF5.python if engine == "torch-dataloader" else sys.executable
    words = ("--engine", engine, "--ranks", str(ranks), *_words(fitting, caches, seconds))
    launch = Launch(
        f"{engine} n={ranks}",
        (python, "-m", "benchmarks.engines.loader_peers", *words),
        {"OMP_NUM_THREADS": "1"},
        _LAUNCH_LIMIT_SECONDS,
    )
    return launch if fitting else None


def launches(
    files: Sequence[DataFile],
    ranks: int,
    caches: Sequence[str],
    seconds: float,
    ways: Iterable[str],
    peers: Iterable[str],
) -> list[Launch]:
    """One of each, the limit first."""
    made = [peer(LIMIT, files, ranks, caches, seconds)]
    made += [ours(way, files, ranks, caches, seconds) for way in ways]
    made += [peer(engine, files, ranks, caches, seconds) for engine in peers]
    return [launch for launch in made if launch]


def set_up(engine: str, file: DataFile) -> str | None:
    """Make the peer's environment if need be, and try it out on ``file``.

    Returns its version, or None after printing why it has to be left out.
    """
    trial = peer(engine, [file], 1, ["warm"], 0.01)
    environment = TORCH_WITH_HDF5 if engine == "torch-dataloader" else None
    return try_out(engine, environment, replace(trial, limit_seconds=SET_UP_LIMIT_SECONDS))


def combine(measured: Iterable[Row]) -> list[Row]:
    """Medians over launches, with speeds and what the limit is; in the order of cases, then of engines."""
    measured = list(measured)
    rows = over_launches(measured, lambda row: (*case_of(row), row["engine"], row["way"]))
    limits = {case_of(row): row["time_us"] for row in rows if row["engine"] == LIMIT}
    for row in rows:
        row["samples_per_second"] = row["row_count"] / row["time_us"] * 1e6
        row["gbs"] = row["samples_per_second"] * row["sample_bytes"] / 1e9
        # Of what is in memory the limit is a copy, which its own launch has measured.
        if row["way"] != "memory":
            row["limit_us"] = limits.get(case_of(row))
        row["of_limit"] = row["limit_us"] and row["limit_us"] / row["time_us"]
    return sorted(rows, key=_place)


def case_of(row: Row) -> tuple:
    """What must be the same of rows that are compared."""
    return row["sample_bytes"], row["row_count"], row["layout"], row["cache"], row["ranks"]


def ratio_lines(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each row of ours: how many times as fast as each peer, also where that is less than once."""
    for row in rows:
        ratios = [f"{ratio:.2f} x {name}" for name, ratio in ratios_of(row, rows).items()]
        if ratios:
            yield f"{_title(row)}: {', '.join(ratios)}"


def ratios_of(row: Row, rows: Iterable[Row]) -> dict[str, float]:
    """Our speed over that of each peer on the same case, by peer; nothing for a row of another engine."""
    if row["engine"] != OURS:
        return {}
    return {
        other["engine"]: other["time_us"] / row["time_us"]
        for other in rows
        if other["engine"] in PEERS and case_of(other) == case_of(row)
    }


def mark_lines(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each mark on each row that it is about."""
    for row in rows:
        if row["engine"] != OURS or row["ranks"] != MARK_RANKS or not _is_of_mark_size(row):
            continue
        for name, ratio in ratios_of(row, rows).items():
            if name in MARKS:
                yield _mark(f"x {name}", MARKS[name], ratio, row)
        if row["way"] == "memory" and row["of_limit"] is not None:
            yield _mark("of copy bandwidth", MARK_OF_COPY, row["of_limit"], row)


def _mark(what: str, least: float, value: float, row: Row) -> str:
    verdict = "met" if value >= least else "NOT MET"
    return f"{verdict:<8} {what} >= {least:g}, {_title(row)}: {value:.2f}"


def _is_of_mark_size(row: Row) -> bool:
    return row["row_count"] * row["sample_bytes"] >= MARK_BYTES * _WHOLE_ROWS


def _title(row: Row) -> str:
    sample, size = size_text(row["sample_bytes"]), size_text(row["file_bytes"])
    return f"{row['way']}, {sample} a sample, {size} {row['layout']}, {row['cache']}, n = {row['ranks']}"


def _place(row: Row) -> tuple:
    engine = (LIMIT, OURS, *PEERS).index(row["engine"])
    return row["sample_bytes"], row["layout"], row["row_count"], row["cache"], row["ranks"], engine


def _words(files: Sequence[DataFile], caches: Sequence[str], seconds: float) -> tuple[str, ...]:
    paths = (str(file.path) for file in files)
    return "--files", *paths, "--caches", *caches, "--seconds", str(seconds)
