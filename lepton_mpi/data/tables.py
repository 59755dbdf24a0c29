"""The rows of one split, of one file or of several, one behind the other."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np

from lepton_mpi.data.files.stored_rows import StoredRows
from lepton_mpi.data.kernels import all_finite
from lepton_mpi.errors import DataError

# Large enough to read at full speed, small enough to be mixed well, and to be checked while it is in the cache.
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Table:
    """Features ``x`` and classes or targets ``y`` of the files, in their order.

    Attributes
    ----------
    x, y : list of StoredRows
        One of each for every file.
    class_count : int
        Classes that the files name, or 0.
    """

    x: list[StoredRows]
    y: list[StoredRows]
    class_count: int
    _reading: dict[str, StoredRows] = field(default_factory=dict, repr=False)

    @cached_property
    def _ends(self) -> list[int]:
        """Where the rows of each file end: there may be thousands of files, and as many reads."""
        return list(accumulate(stored.row_count for stored in self.x))

    @property
    def row_count(self) -> int:
        return self._ends[-1]

    @property
    def is_bytes(self) -> bool:
        """Whether all features are uint8, which are kept as they are: a quarter of the memory."""
        return all(stored.dtype == np.uint8 for stored in self.x)

    def twin(self) -> "Table":
        """The same rows, for another thread."""
        x, y = ([stored.twin() for stored in files] for files in (self.x, self.y))
        return Table(x, y, self.class_count)

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> np.ndarray:
        """Where runs of rows begin that are read together, and the end: int64, shape (blocks + 1,).

        About ``block_bytes`` in the file, of whole chunks, one at least, and of one file.
        """
        starts, first = [], 0
        for stored in self.x:
            row_bytes = stored.dtype.itemsize * int(np.prod(stored.row_shape, dtype=np.int64))
            chunks = max(1, round(block_bytes / (row_bytes * stored.chunk_rows)))
            starts.append(first + np.arange(0, stored.row_count, chunks * stored.chunk_rows))
            first += stored.row_count
        return np.concatenate([*starts, [first]]).astype(np.int64)

    def read_x(self, start: int, stop: int, out: np.ndarray) -> None:
        """Features of rows [start, stop) into ``out``, shape (stop - start, features).

        Raises DataError for damage, and for numbers that are not finite.
        """
        for stored, first, last, rows in self._parts(self.x, start, stop):
            self._turn_to(stored, "x")
            stored.read(first, last, out[rows])
            if out.dtype.kind == "f":
                check_finite(stored, first, out[rows])

    def read_y(self, start: int, stop: int, out: np.ndarray) -> None:
        """Classes, int32 of shape (stop - start,), or targets, floats of shape (stop - start, targets).

        Raises DataError for damage, and for what is no class or not finite.
        """
        for stored, first, last, rows in self._parts(self.y, start, stop):
            self._turn_to(stored, "y")
            if out.dtype.kind == "f":
                stored.read(first, last, out[rows])
                check_finite(stored, first, out[rows])
                continue
            # As they are: a class that is too large for int32 must not become another one.
            labels = np.empty((last - first, 1), stored.dtype)
            stored.read(first, last, labels)
            self._check_classes(stored, first, labels.reshape(-1))
            out[rows] = labels.reshape(-1)

    def will_need(self, start: int, stop: int) -> None:
        """Have the system read the features of rows [start, stop) ahead of their use."""
        for stored, first, last, _ in self._parts(self.x, start, stop):
            stored.will_need(first, last)

    def place_of(self, row: int) -> str:
        """File, data set and row there of ``y``, for a message."""
        ((stored, first, _, _),) = self._parts(self.y, row, row + 1)
        return f"{stored.path}: {stored.name}: row {first}"

    def _parts(
        self, files: list[StoredRows], start: int, stop: int
    ) -> Iterator[tuple[StoredRows, int, int, slice]]:
        """Yield (file, first, last, place) for the files that rows [start, stop) lie in.

        first and last count in the file; place is a slice that counts from ``start``.
        """
        number, first = bisect_right(self._ends, start), start
        while first < stop:
            stored, end = files[number], self._ends[number]
            begin, last = end - stored.row_count, min(stop, end)
            if first < last:
                yield stored, first - begin, last - begin, slice(first - start, last - start)
            number, first = number + 1, last

    def _turn_to(self, stored: StoredRows, name: str) -> None:
        """Only the file that is being read keeps a chunk in memory: there may be thousands of them."""
        if (before := self._reading.get(name, stored)) is not stored:
            before.forget()
        self._reading[name] = stored

    def _check_classes(self, stored: StoredRows, first: int, labels: np.ndarray) -> None:
        limit = self.class_count or np.iinfo(np.int32).max
        wrong = np.flatnonzero((labels < 0) | (labels >= limit))
        if wrong.size:
            row, label = first + wrong[0], labels[wrong[0]]
            expected = f"a class from 0 to {self.class_count - 1}, got"
            if not self.class_count:
                expected = "a class from 0 up, got"
                if label >= limit:
                    expected = f"fewer classes than the {self.row_count} rows, got class"
            raise DataError(f"{stored.path}: {stored.name}: row {row}: expected {expected} {label}")


def check_finite(stored: StoredRows, first: int, block: np.ndarray) -> None:
    """``block``, of shape (rows, any), holds rows ``first`` of ``stored`` and those behind it. Raises DataError."""
    if all_finite(block):
        return
    row, column = np.argwhere(~np.isfinite(block))[0]
    raise DataError(
        f"{stored.path}: {stored.name}: row {first + row}: expected finite numbers, got {block[row, column]}"
    )
