"""The order of an epoch's rows, in memory that the ranks of a host share, made by all of them together.

    count     each rank: how many of its part of the numbers belong into each coarse bucket
    place     each rank: its part of the numbers into the buckets, behind those of the ranks before it
    sort      each rank: its part of the buckets; then the rows that have these numbers, and their classes

Between two of them the ranks wait for each other, and before the first, since others may still read the order before.
An order of few rows is made by each rank for itself, which takes less than waiting. See ``shuffle_kernels.py``.
"""

import numpy as np

from lepton_mpi.data.host import Host
from lepton_mpi.data.order import FullShuffle
from lepton_mpi.data.shuffle_kernels import (
    coarse_bits,
    count_numbers,
    place_numbers,
    sort_buckets,
    table_size,
)

# Memory of the host's is mapped in pages of this size, where it is as long (``world/pages.py``).
_LARGE_PAGE_BYTES = 2 << 20
# An order of so many takes a quarter of a millisecond; a few meetings of more ranks than cores take as long.
_SHARED_ROWS = 1 << 15
# What the shared memory is counted under.
_NAME = "order"
_NO_NAMES, _NO_CLASSES = np.empty(0, np.int64), np.empty(0, np.int32)


class HostOrder:
    """Making one and ``make`` are collective over the host, unless it is None.

    Parameters
    ----------
    shuffle : FullShuffle
    y : int32, shape (n,), classes; or shape (n, targets)
        Of all rows of the table.
    host : Host or None
        None for a rank that makes every order for itself.

    Attributes
    ----------
    epoch : int or None
        Whose order this is.
    rows : int64, shape (row_count,)
        Their numbers.
    classes : int32, shape (row_count,), or None
        Of these rows; None with targets.
    """

    def __init__(self, shuffle: FullShuffle, y: np.ndarray, host: Host | None = None) -> None:
        count, self._rank, self._ranks = shuffle.row_count, 0, 1
        self._shuffle, self._y, self._host = shuffle, y, None
        if host and host.local_size > 1 and count >= _SHARED_ROWS:
            self._host, self._rank, self._ranks = host, host.local_rank, host.local_size
        self._bits = coarse_bits(count, self._ranks)
        self.epoch: int | None = None
        # Kept, since fresh memory costs more than the order: Linux hands out every page of it anew.
        self.rows = self._array((count,), np.int64)
        self.classes = self._array((count,), y.dtype) if y.ndim == 1 else None
        self._coarse = self._array((count,), np.uint64)
        self._counts = self._array((self._ranks, 1 << self._bits), np.int64)
        self._table = np.empty(table_size(count), np.int32)

    def _array(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        array = self._host.host_array(shape, dtype, _NAME) if self._host else np.empty(shape, dtype)
        if array.nbytes <= _LARGE_PAGE_BYTES:
            array.fill(0)  # pages are touched here, and not one by one in the first epoch's steps
        return array

    @property
    def byte_count(self) -> int:
        """Of all its arrays, and ``is_shared`` by the ranks of the host or made by each of them."""
        arrays = (self.rows, self.classes, self._coarse, self._counts, self._table)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def is_shared(self) -> bool:
        """See ``byte_count``."""
        return self._host is not None

    def _meet(self) -> None:
        if self._host:
            self._host.clock.enter("waiting")
            self._host.host_barrier()
            self._host.clock.enter("input")

    def make(self, epoch: int) -> None:
        """Fill ``rows`` and ``classes`` with those of ``epoch``. What was there before must not be in use."""
        key, bits, rank = self._shuffle.key_of(epoch), self._bits, self._rank
        part, buckets = (self._part_of(total) for total in (self.rows.size, 1 << bits))
        self._meet()
        count_numbers(key, *part, bits, self._counts[rank])
        self._meet()
        totals = self._counts.sum(axis=0)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(totals)])
        places = starts[:-1] + self._counts[:rank].sum(axis=0)
        place_numbers(key, *part, bits, places, self._coarse)
        self._meet()
        chosen, has_classes = self._shuffle.chosen, self.classes is not None
        sort_buckets(
            *(key, bits, *buckets, starts, self._coarse, self._table),
            _NO_NAMES if chosen is None else chosen,
            self._y if has_classes else _NO_CLASSES,
            self.rows,
            self.classes if has_classes else _NO_CLASSES,
        )
        self._meet()
        self.epoch = epoch

    def _part_of(self, total: int) -> tuple[int, int]:
        """This rank's part of [0, total)."""
        rank, ranks = self._rank, self._ranks
        return total * rank // ranks, total * (rank + 1) // ranks
