"""Rows in memory, once per host, and the batches gathered from them.

All ranks of a host fill the host's memory together, each its part of the file, and all read from it
afterwards: any row of an epoch's order can be gathered by any rank, and the host holds one copy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lepton_mpi.data import hdf5, order
from lepton_mpi.data.kernels import gather_labels, gather_rows
from lepton_mpi.errors import DataError

# (shape, dtype) -> array shared by the ranks of this host
Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]


@dataclass(frozen=True)
class Rows:
    """Rows of one purpose: a table shared by the host and the indices of its rows that count.

    Attributes
    ----------
    x : uint8, float32 or float64, shape (n, features)
    y : int64, shape (n,)
    indices : int64, shape (row_count,)
    """

    x: np.ndarray
    y: np.ndarray
    indices: np.ndarray

    @property
    def row_count(self) -> int:
        return self.indices.size


@dataclass(frozen=True)
class DataSet:
    """Everything that training needs of a file; the same on every rank."""

    path: Path
    feature_shape: tuple[int, ...]
    class_count: int
    class_names: tuple[str, ...]
    normalisation: tuple[np.ndarray, np.ndarray]
    splits: dict[str, Rows]


@dataclass(frozen=True)
class Loading:
    """What the loader needs to know about the host and the run."""

    allocate: Allocate
    local_rank: int
    local_size: int
    agreeing: Callable  # context manager: a DataError inside is raised on every rank
    barrier: Callable[[], None]


def load(name: str, dtype: np.dtype, held_out: dict[str, float], seed: int, how: Loading) -> DataSet:
    """Read a file into the host's memory and split its rows. Collective over the world.

    Parameters
    ----------
    name
        Path, or name of an embedded data set.
    dtype
        float32 or float64, of the batches.
    held_out
        Fractions for ``validation`` and ``test``, used where the file has no such split.
    seed
        Decides which rows are held out.
    how
        The host's memory and this rank's place in it.

    Raises
    ------
    DataError
        On every rank.
    """
    path = hdf5.locate(name)
    with how.agreeing():
        with hdf5.open_file(path) as file:
            shapes = {s: (source.row_count, hdf5.row_dtype(source, dtype)) for s, source in file.sources.items()}
            label_names = {s: source.y.name for s, source in file.sources.items()}
            feature_count = int(np.prod(file.feature_shape, dtype=np.int64))
            if file.sources["train"].row_count == 0:
                raise DataError(f"{path}: {file.sources['train'].x.name}: expected rows to train on, got none")
    tables = {
        split: (how.allocate((rows, feature_count), kind), how.allocate((rows,), np.dtype(np.int64)))
        for split, (rows, kind) in shapes.items()
    }
    with how.agreeing(), hdf5.open_file(path) as file:
        for split, (x, y) in tables.items():
            start, stop = order.share(0, len(y), how.local_size, how.local_rank)
            hdf5.read_rows(file, file.sources[split], start, stop, x[start:stop], y[start:stop])
    how.barrier()
    labels = {label_names[split]: y for split, (_, y) in tables.items()}
    with how.agreeing():
        class_count = len(file.class_names) or _class_count(path, labels)
    splits = {split: Rows(x, y, np.arange(len(y))) for split, (x, y) in tables.items()}
    for purpose in ("test", "validation"):
        if purpose not in splits:
            train = splits["train"]
            kept, out = order.hold_out(train.row_count, held_out[purpose], seed, purpose)
            splits["train"] = Rows(train.x, train.y, train.indices[kept])
            splits[purpose] = Rows(train.x, train.y, train.indices[out])
    shift, scale = (np.asarray(values, dtype) for values in file.normalisation)
    return DataSet(path, file.feature_shape, class_count, file.class_names, (shift, scale), splits)


class BatchReader:
    """Gathers rows into a batch of its own, which the next call overwrites.

    Parameters
    ----------
    data : DataSet
    rows_max : int
        Longest batch that will be asked for.
    """

    def __init__(self, data: DataSet, rows_max: int) -> None:
        self._shift, self._scale = data.normalisation
        self._row_shape = data.feature_shape
        self._x = np.empty((rows_max, self._shift.size), self._shift.dtype)
        self._y = np.empty(rows_max, np.int32)

    def read(self, rows: Rows, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``indices`` (int64, shape (r,)) of the table: x (r, *row shape), y int32 (r,)."""
        count = gather_labels(rows.y, indices, self._y)
        gather_rows(rows.x, indices, self._shift, self._scale, self._x)
        return self._x[:count].reshape(count, *self._row_shape), self._y[:count]


def _class_count(path: Path, labels: dict[str, np.ndarray]) -> int:
    """One more than the highest class of the training rows, which come first; at least 2."""
    (train_name, train), *others = labels.items()
    count = max(2, int(train.max()) + 1)
    if count > max(2, train.size):
        raise DataError(
            f"{path}: {train_name}: row {train.argmax()}: expected fewer classes than the {train.size} rows, "
            f"got class {count - 1}"
        )
    for name, y in others:
        if y.max(initial=0) >= count:
            raise DataError(
                f"{path}: {name}: row {y.argmax()}: expected a class of {train_name}, from 0 to {count - 1}, "
                f"got {y.max()}"
            )
    return count
