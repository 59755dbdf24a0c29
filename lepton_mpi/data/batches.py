"""From rows to a batch: which rows of which memory (``Read``), gathered, converted and normalised into one place."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.augmentation import Augmentation, image_size
from lepton_mpi.data.augmentation_kernels import gather_augmented
from lepton_mpi.data.kernels import gather_labels, gather_rows, gather_targets
from lepton_mpi.data.tables import Table

# They should still be in the core's own cache when the last of them is used.
_TOGETHER_BYTES = 256 << 10
_new = tuple.__new__


class Read(NamedTuple):
    """Rows that form a batch.

    Attributes
    ----------
    x : uint8, float32 or float64, shape (any, features)
        Memory that holds their features: all rows of a table, or a window of it.
    places : int64, shape (rows,)
        Where in ``x`` each one is.
    y : int32, shape (n,), or floats, shape (n, targets)
        Classes or targets of all rows of the table.
    numbers : int64, shape (rows,)
        Number of each in the table: its place in ``y``, and what its random numbers depend on.
    classes : int32, shape (rows,), or None
        ``y[numbers]``, where that is at hand.
    """

    x: np.ndarray
    places: np.ndarray
    y: np.ndarray
    numbers: np.ndarray
    classes: np.ndarray | None = None


@dataclass(frozen=True)
class Rows:
    """Rows of one purpose: a table and which of its rows count.

    Attributes
    ----------
    table : Table
        Where they are stored.
    features, dtype : int, np.dtype
        Length of a row's features and their type in memory.
    y : int32, shape (n,), classes; or float32 or float64, shape (n, targets)
        Of the whole table, in memory that the host shares.
    x : uint8, float32 or float64, shape (n, features), or None
        Likewise; None where rows are streamed.
    chosen : int64, shape (row_count,), or None
        The rows that count, ascending; None for all.
    """

    table: Table
    features: int
    dtype: np.dtype
    y: np.ndarray
    x: np.ndarray | None = None
    chosen: np.ndarray | None = None

    @property
    def row_count(self) -> int:
        return len(self.y) if self.chosen is None else self.chosen.size

    @property
    def indices(self) -> np.ndarray:
        """The rows that count, ascending int64, shape (row_count,); made anew where all do."""
        return np.arange(len(self.y)) if self.chosen is None else self.chosen

    def numbers(self, start: int, stop: int) -> np.ndarray:
        """Numbers of the rows that count in places [start, stop) among them."""
        return np.arange(start, stop) if self.chosen is None else self.chosen[start:stop]

    def read_of(self, numbers: np.ndarray) -> Read:
        """How rows ``numbers``, int64 (r,), are read, if they are in memory."""
        return Read(self.x, numbers, self.y, numbers)


class BatchReader:
    """Gathers rows into a batch of its own, which the next call overwrites.

    Parameters
    ----------
    data : DataSet
        Of ``loader.py``.
    rows_max : int
        Longest batch that will be asked for.
    augmentation : Augmentation, optional
        What ``read_for_training`` does to rows.
    in_place : bool
        Whether rows for training need not be gathered if they can be used as they lie.

    Attributes
    ----------
    rows_max : int
    is_in_place : bool
        Whether they can, and are.
    """

    def __init__(
        self,
        data,
        rows_max: int,
        augmentation: Augmentation | None = None,
        in_place: bool = False,
    ) -> None:
        self._shift, self._scale = data.remaining_normalisation
        self.is_in_place = in_place and not augmentation and data.is_ready
        self.rows_max = rows_max
        self._row_shape, self._changes = data.feature_shape, None
        if augmentation:
            size = image_size(data.feature_shape)
            self._changes = *size, augmentation.flip, augmentation.crop, augmentation.noise
        self._x = np.empty((rows_max, self._shift.size), self._shift.dtype)
        has_targets = data.target_count > 0
        self._gather_y = gather_targets if has_targets else gather_labels
        self._y = (
            np.empty((rows_max, data.target_count), self._x.dtype)
            if has_targets
            else np.empty(rows_max, np.int32)
        )

    @property
    def rows_together(self) -> int:
        """Rows of several micro-batches that are worth gathering by one call."""
        if self.is_in_place:
            return self.rows_max
        return min(self.rows_max, _TOGETHER_BYTES // self._shift.nbytes)

    def read(self, read: Read) -> tuple[np.ndarray, np.ndarray]:
        """The rows as they are: x (r, *row shape), y int32 (r,) or x's dtype (r, targets)."""
        x, y = self._room_for(read), self.read_y(read)
        gather_rows(read.x, read.places, self._shift, self._scale, self._x)
        return x, y

    def read_for_training(self, read: Read, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows as they are trained on in the step of ``draw``: augmented, if that is asked for."""
        if self._changes is None:
            return self.read(read)
        x, y = self._room_for(read), self.read_y(read)
        normaliser, out = (self._shift, self._scale), self._x
        gather_augmented(read.x, read.places, read.numbers, draw, *normaliser, *self._changes, out)
        return x, y

    def read_y(self, read: Read) -> np.ndarray:
        """Classes or targets alone."""
        if read.classes is not None:
            return read.classes
        count = read.places.size
        assert count <= len(self._y), (count, len(self._y))  # kernels check no bounds
        self._gather_y(read.y, read.numbers, self._y)
        return self._y[:count]

    def _room_for(self, read: Read) -> np.ndarray:
        """Where its rows will be."""
        count = read.places.size
        assert count <= len(self._x), (count, len(self._x))
        return self._x[:count].reshape(count, *self._row_shape)


class MicroBatchReader:
    """This rank's micro-batches in turn, of which several are gathered by one call: calls cost as much as short rows.

    Parameters
    ----------
    reads : iterator of (read, cuts)
        See ``reads.TrainingReads``.
    reader : BatchReader
    """

    def __init__(self, reads, reader: BatchReader) -> None:
        self._reads, self._reader = iter(reads), reader
        self._parts: list[Batch] = []
        self._next = 0

    def next(self, draw: int) -> Batch:
        """The next micro-batch, of the step of ``draw``. It holds until the next call."""
        if self._next == len(self._parts):
            read, cuts = next(self._reads)
            x, places, _, numbers, y = read
            if self._reader.is_in_place:
                if y is None:
                    y = self._reader.read_y(read)
                if len(cuts) == 1:
                    return _new(
                        Batch, (x, y, numbers, draw, places)
                    )  # as Batch(…), in half the time
                self._parts = [Batch(x, y[i:j], numbers[i:j], draw, places[i:j]) for i, j in cuts]
            else:
                x, y = self._reader.read_for_training(read, draw)
                self._parts = [Batch(x[i:j], y[i:j], numbers[i:j], draw) for i, j in cuts]
            self._next = 0
        self._next += 1
        return self._parts[self._next - 1]
