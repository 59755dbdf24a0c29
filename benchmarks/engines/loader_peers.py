"""The peers of ``benchmarks/loader.py`` that read HDF5 files or a NumPy memmap, each in processes of its own.

    h5py-index        x[np.sort(indices)] for each batch of 64: what most training loops over HDF5 do
    h5py-row          x[index], one row after the other
    torch-dataloader  torch's DataLoader with 2 workers over such rows, see loader_torch.py
    memmap            np.take from a NumPy memmap of the data set; contiguous files only
    sequential-read   no rows: os.preadv of 8 MiB pieces, each process its part of the file. The limit of all others

All but the last give float32 batches, (x - shift) * scale, with labels. What is done for them: labels are read into memory
beforehand; the conversion takes the fastest way that NumPy has, into memory that is used again; h5py's cache of chunks
has its default size or 256 MiB, whichever is faster in a trial, and is full when the clock starts on a warm file;
so are the pages of the memmap.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from benchmarks.engines.loader_case import (
    CACHES,
    COLD_SECONDS,
    DataFile,
    Ranks,
    batches_of,
    cache_problem,
    loader_row,
    own_share,
    parser,
    rate,
    reset_peak,
    set_cache,
    time_prefix,
    timed_row,
)
from benchmarks.engines.loader_rows import BATCH_ROWS, convert
from benchmarks.engines.page_cache import cached_share
from benchmarks.engines.plain_ranks import PlainRanks, run_on_plain_ranks
from benchmarks.harness import Row, write_rows

SEED, EPOCH = 0, 1
_DEFAULT, _LARGE = "", "256 MiB of chunks"
_LARGE_CACHE_BYTES = 256 << 20
_LARGE_CACHE_SLOTS = 100_003  # a prime, about 100 times the chunks, as HDF5's manual has it
_READ_BYTES = 8 << 20
_TRIAL_SHARE = 0.4

Batches = Iterator[tuple[np.ndarray, np.ndarray]]
# From (file, ranks, form, state of the cache) to this rank's batches of an epoch, inside of a block.
Open = Callable[[DataFile, Ranks, str, str], AbstractContextManager[Batches]]


def open_hdf5(path, form: str):
    """The file, with the cache of chunks that ``form`` names."""
    import h5py

    cache = {"rdcc_nbytes": _LARGE_CACHE_BYTES, "rdcc_nslots": _LARGE_CACHE_SLOTS} if form else {}
    return h5py.File(path, "r", locking=False, **cache)


def fill_chunk_cache(x, form: str) -> None:
    """Read a row of as many chunks of the data set ``x`` as the cache holds."""
    if not x.chunks:
        return
    chunk_bytes = int(np.prod(x.chunks)) * x.dtype.itemsize
    cache_bytes = _LARGE_CACHE_BYTES if form else 1 << 20
    for start in range(0, len(x), x.chunks[0])[: cache_bytes // chunk_bytes]:
        x[start]


@contextmanager
def h5py_index(file: DataFile, ranks: Ranks, form: str, state: str) -> Iterator[Batches]:
    """By lists of rows."""
    with open_hdf5(file.path, form) as opened:
        x, y = opened["train/x"], opened["train/y"][:]
        if state == "warm":
            fill_chunk_cache(x, form)
        out = np.empty((BATCH_ROWS, file.sample_bytes), np.float32)

        def batches() -> Batches:
            for indices in batches_of(_order(file, ranks)):
                ascending = np.sort(indices)
                yield convert(x[ascending], out[: len(indices)]), y[ascending]

        yield batches()


@contextmanager
def h5py_row(file: DataFile, ranks: Ranks, form: str, state: str) -> Iterator[Batches]:
    """Row by row."""
    with open_hdf5(file.path, form) as opened:
        x, y = opened["train/x"], opened["train/y"][:]
        if state == "warm":
            fill_chunk_cache(x, form)
        raw = np.empty((BATCH_ROWS, *x.shape[1:]), x.dtype)
        out = np.empty((BATCH_ROWS, file.sample_bytes), np.float32)

        def batches() -> Batches:
            for indices in batches_of(_order(file, ranks)):
                for place, index in enumerate(indices):
                    raw[place] = x[index]
                yield convert(raw[: len(indices)], out[: len(indices)]), y[indices]

        yield batches()


@contextmanager
def memmap(file: DataFile, ranks: Ranks, form: str, state: str) -> Iterator[Batches]:
    """From the place of the data set in the file."""
    with open_hdf5(file.path, form) as opened:
        x, y = opened["train/x"], opened["train/y"][:]
        offset, shape = x.id.get_offset(), (len(x), file.sample_bytes)
    mapped = np.memmap(file.path, np.uint8, "r", offset, shape)
    if state == "warm":
        mapped.reshape(-1)[:: os.sysconf("SC_PAGESIZE")].sum()
    raw, out = np.empty((BATCH_ROWS, shape[1]), np.uint8), np.empty((BATCH_ROWS, shape[1]), "f4")

    def batches() -> Batches:
        for indices in batches_of(_order(file, ranks)):
            count = len(indices)
            # "clip" is what makes take write into the place given; the indices are right anyway.
            np.take(mapped, indices, axis=0, out=raw[:count], mode="clip")
            yield convert(raw[:count], out[:count]), y[indices]

    yield batches()


@contextmanager
def torch_dataloader(file: DataFile, ranks: Ranks, form: str, state: str) -> Iterator[Batches]:
    """See there; imported late, since the others run where there is no torch."""
    from benchmarks.engines.loader_torch import open_batches

    with open_batches(file, ranks, form, state) as batches:
        yield batches


ENGINES: dict[str, Open] = {
    "h5py-index": h5py_index,
    "h5py-row": h5py_row,
    "torch-dataloader": torch_dataloader,
    "memmap": memmap,
}
LIMIT = "sequential-read"


def measure(ranks: PlainRanks, options: argparse.Namespace) -> None:
    """Measure every case; rank 0 writes the rows. Collective."""
    rows: list[Row] = []
    for file in options.files:
        for state in CACHES:
            if state not in options.caches:
                continue
            measure_case = read_through if options.engine == LIMIT else measure_peer
            row = measure_case(file, state, ranks, options)
            if row is not None:
                rows.append(row | {"version": version(options.engine)})
                write_rows(options.json, rows)


def measure_peer(
    file: DataFile, state: str, ranks: Ranks, options: argparse.Namespace
) -> Row | None:
    """The row of a peer, on rank 0."""
    open_batches = ENGINES[options.engine]
    forms = [_DEFAULT] if file.layout == "contiguous" else [_DEFAULT, _LARGE]
    speeds = []
    for form in forms if len(forms) > 1 else ():
        set_cache(ranks, file.path, state)
        with open_batches(file, ranks, form, state) as batches:
            timing = time_prefix(
                ranks, batches, _share_rows(file, ranks), options.seconds * _TRIAL_SHARE, state
            )
        speeds.append(rate(ranks.allgather(timing)))
    form = forms[int(np.argmax(speeds))] if speeds else forms[0]
    set_cache(ranks, file.path, state)
    problem = cache_problem(cached_share(file.path), state)
    reset_peak()
    with open_batches(file, ranks, form, state) as batches:
        seconds = max(options.seconds, COLD_SECONDS) if state == "dropped" else options.seconds
        timing = time_prefix(ranks, batches, _share_rows(file, ranks), seconds, state)
        # Inside, while its processes are there to be counted.
        return timed_row(
            options.engine, file, state, ranks, timing, form=form, cache_problem=problem
        )


def read_through(
    file: DataFile, state: str, ranks: Ranks, options: argparse.Namespace
) -> Row | None:
    """The row of a plain read of the whole file, on rank 0: each rank reads its part, several times if it is short."""
    length = file.path.stat().st_size
    start, stop = (length * number // ranks.size for number in (ranks.rank, ranks.rank + 1))
    piece, times = bytearray(_READ_BYTES), []
    problem = ""
    # Cold reads of a disk vary less than they cost.
    for _ in range(3 if state == "warm" else 1):
        set_cache(ranks, file.path, state)
        problem = problem or cache_problem(cached_share(file.path), state)
        descriptor = os.open(file.path, os.O_RDONLY)
        ranks.barrier()
        began, place = time.perf_counter(), start
        while place < stop:
            view = memoryview(piece)[: stop - place]
            place += os.preadv(descriptor, [view], place)
        times.append(time.perf_counter() - began)
        os.close(descriptor)
    seconds = min(max(each) for each in zip(*ranks.allgather(times), strict=True))
    if ranks.rank:
        return None
    return loader_row(
        LIMIT, file, state, ranks.size, file.row_count / seconds, cache_problem=problem
    )


def version(engine: str) -> str:
    """Of the library that the engine is."""
    if engine == "torch-dataloader":
        import torch

        return torch.__version__
    if engine.startswith("h5py"):
        import h5py

        return f"{h5py.__version__}, HDF5 {h5py.version.hdf5_version}"
    return np.__version__


def _order(file: DataFile, ranks: Ranks) -> np.ndarray:
    order = np.random.default_rng((SEED, EPOCH)).permutation(file.row_count)
    return own_share(order, ranks)


def _share_rows(file: DataFile, ranks: Ranks) -> int:
    return len(own_share(np.empty(file.row_count, np.uint8), ranks))


if __name__ == "__main__":
    made = parser()
    made.add_argument("--engine", choices=(*ENGINES, LIMIT), required=True)
    made.add_argument("--ranks", type=int, default=1)
    given = made.parse_args()
    raise SystemExit(run_on_plain_ranks(given.ranks, measure, given))
