"""torch's DataLoader over the rows of an HDF5 file, as its users write it: opened in the worker, two workers, batches of 64.

The data set gives rows as they are stored, and the default collation stacks them in the worker: a quarter of the bytes
that go from process to process if float32 did. The batch is converted where it arrives. On several ranks the rows are
dealt out by torch's DistributedSampler, else by ``shuffle=True``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

from benchmarks.engines.loader_case import DataFile, Ranks
from benchmarks.engines.loader_peers import SEED, Batches, fill_chunk_cache, open_hdf5
from benchmarks.engines.loader_rows import BATCH_ROWS, convert

_WORKERS = 2


class Hdf5Rows(Dataset):
    """Rows of ``train/x`` as uint8, with their labels, which each worker has in memory."""

    def __init__(self, file: DataFile, form: str, state: str) -> None:
        self._file, self._form, self._state = file, form, state
        self._x = self._y = None

    def __len__(self) -> int:
        return self._file.row_count

    def __getitem__(self, index: int):
        return self._x[index], self._y[index]

    def open(self) -> None:
        """In the worker: HDF5's state must not be shared with another process."""
        opened = open_hdf5(self._file.path, self._form)
        self._x, self._y = opened["train/x"], opened["train/y"][:]
        if self._state == "warm":
            fill_chunk_cache(self._x, self._form)


def _open_in_worker(_: int) -> None:
    get_worker_info().dataset.open()


@contextmanager
def open_batches(file: DataFile, ranks: Ranks, form: str, state: str) -> Iterator[Batches]:
    """This rank's batches of an epoch."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks.size))
    torch.manual_seed(SEED)
    rows = Hdf5Rows(file, form, state)
    sampler = (
        DistributedSampler(rows, ranks.size, ranks.rank, shuffle=True, seed=SEED)
        if ranks.size > 1
        else None
    )
    loader = DataLoader(
        rows,
        BATCH_ROWS,
        shuffle=sampler is None,
        sampler=sampler,
        num_workers=_WORKERS,
        worker_init_fn=_open_in_worker,
        # The default of a program of its own; this process was itself made by "spawn", and would pass that on.
        multiprocessing_context="fork",
    )
    out = np.empty((BATCH_ROWS, file.sample_bytes), np.float32)
    given = iter(loader)
    # Its processes have started when the first batch is there; from a file that is dropped, that batch counts.
    first = [next(given)] if state == "warm" else []

    def batches() -> Batches:
        for x, y in chain(first, given):
            yield convert(x.numpy(), out[: len(x)]), y.numpy()

    try:
        yield batches()
    finally:
        # Else they would live on, and read ahead, for as long as somebody has the iterator.
        given._shutdown_workers()
