"""Rows in memory, once per host, and the batches gathered from them.

All ranks of a host fill the host's memory together, each its part of the file, and all read from it
afterwards: any row of an epoch's order can be gathered by any rank, and the host holds one copy.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from lepton_mpi.data import hdf5, order
from lepton_mpi.data.kernels import gather_labels, gather_rows, gather_targets
from lepton_mpi.errors import DataError
from lepton_mpi.look_ahead_kernels import FIRST_PART, tell_rows


@dataclass(frozen=True)
class Rows:
    """Rows of one purpose: a table shared by the host and the indices of its rows that count.

    Attributes
    ----------
    x : uint8, float32 or float64, shape (n, features)
    y : int64, shape (n,), classes; or float32 or float64, shape (n, targets)
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
    """Everything that training needs of a file; the same on every rank.

    Rows have classes, which have names, or else targets, which are counted.
    """

    path: Path
    feature_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalisation: tuple[np.ndarray, np.ndarray]
    splits: dict[str, Rows]
    target_count: int = 0

    @property
    def class_count(self) -> int | None:
        """Number of classes; None for targets."""
        return len(self.class_names) or None

    @property
    def output_count(self) -> int:
        """Numbers that a model gives for a row: one for each class, or for each target."""
        return self.class_count or self.target_count

    @property
    def outputs_text(self) -> str:
        """As in ``10 classes`` or ``1 target``."""
        kind = "classes" if self.class_count else "targets" if self.target_count > 1 else "target"
        return f"{self.output_count} {kind}"


class Host(Protocol):
    """What the loader needs of the world: this host's memory and this rank's place in it."""

    local_rank: int
    local_size: int

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Array shared by the ranks of this host."""

    def agreeing(self) -> AbstractContextManager:
        """A block in which an error of one rank is raised on all of them."""

    def host_barrier(self) -> None:
        """Wait for all ranks of this host."""


def load(
    name: str,
    dtype: np.dtype,
    held_out: dict[str, float],
    seed: int,
    host: Host,
    y_kind: hdf5.YKind = "auto",
    unpack_first: bool = True,
) -> DataSet:
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
    host
        The host's memory and this rank's place in it.
    y_kind
        Whether rows have classes or targets; "auto" takes floats as targets.
    unpack_first
        Whether all packed chunks are unpacked by the process that looks at the file first, see ``probe.py``.

    Raises
    ------
    DataError
        On every rank.
    """
    path = hdf5.locate(name)
    with host.agreeing():
        if host.local_rank == 0:
            hdf5.probe_file(path, unpack=unpack_first)
    with host.agreeing(), hdf5.open_file(path, y_kind) as file:
        shapes = {
            s: (source.row_count, hdf5.row_dtype(source, dtype))
            for s, source in file.sources.items()
        }
        label_names = {s: source.y.name for s, source in file.sources.items()}
        feature_count = int(np.prod(file.feature_shape, dtype=np.int64))
        if file.sources["train"].row_count == 0:
            raise DataError(
                f"{path}: {file.sources['train'].x.name}: expected rows to train on, got none"
            )
        targets = file.target_count
    tables = {
        split: (
            host.host_array((rows, feature_count), kind),
            host.host_array((rows, targets), dtype)
            if targets
            else host.host_array((rows,), np.dtype(np.int64)),
        )
        for split, (rows, kind) in shapes.items()
    }
    with host.agreeing(), hdf5.open_file(path, y_kind) as file:
        for split, (x, y) in tables.items():
            start, stop = order.share(0, len(y), host.local_size, host.local_rank)
            hdf5.read_rows(file, file.sources[split], start, stop, x[start:stop], y[start:stop])
    host.host_barrier()
    labels = {label_names[split]: y for split, (_, y) in tables.items()}
    with host.agreeing():
        class_count = 0 if targets else len(file.class_names) or _class_count(path, labels)
    splits = {split: Rows(x, y, np.arange(len(y))) for split, (x, y) in tables.items()}
    for purpose in ("test", "validation"):
        if purpose not in splits:
            train = splits["train"]
            kept, out = order.hold_out(train.row_count, held_out[purpose], seed, purpose)
            splits["train"] = Rows(train.x, train.y, train.indices[kept])
            splits[purpose] = Rows(train.x, train.y, train.indices[out])
    with host.agreeing():
        if splits["train"].row_count == 0:
            raise DataError(
                f"{path}: expected rows to train on, got none: all are held out, see --test-split"
            )
        with np.errstate(over="ignore"):
            shift, scale = (np.asarray(values, dtype) for values in file.normalisation)
        if not (np.isfinite(shift).all() and np.isfinite(scale).all()):
            raise DataError(
                f"{path}: normalisation: expected numbers within {dtype}, got larger ones"
            )
    class_names = file.class_names or tuple(str(number) for number in range(class_count))
    return DataSet(path, file.feature_shape, class_names, (shift, scale), splits, targets)


def renormalised(data: DataSet, normalisation: tuple[np.ndarray, np.ndarray]) -> DataSet:
    """The same rows with another shift and scale, each of shape (features,)."""
    return replace(data, normalisation=normalisation)


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
        has_targets = data.target_count > 0
        self._gather_y = gather_targets if has_targets else gather_labels
        self._y = (
            np.empty((rows_max, data.target_count), self._x.dtype)
            if has_targets
            else np.empty(rows_max, np.int32)
        )
        self._ahead = np.zeros(FIRST_PART + rows_max, np.int64)

    def read(self, rows: Rows, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``indices`` (int64, shape (r,)) of the table: x (r, *row shape), y int32 (r,) or x's dtype (r, targets)."""
        assert len(indices) <= len(self._y), (len(indices), len(self._y))  # kernels check no bounds
        count = self._gather_y(rows.y, indices, self._y)
        gather_rows(rows.x, indices, self._shift, self._scale, self._x)
        return self._x[:count].reshape(count, *self._row_shape), self._y[:count]

    def look_ahead(self, rows: Rows, indices: np.ndarray) -> np.ndarray:
        """Where rows lie that will be read next, at most ``rows_max``, so that a model can have them fetched meanwhile.

        Returns what ``look_ahead_kernels.ask_ahead`` takes, overwritten by the next call.
        """
        ahead = self._ahead[: FIRST_PART + len(indices)]
        tell_rows(rows.x, indices, ahead)
        return ahead


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
