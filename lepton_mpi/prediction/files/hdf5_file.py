"""HDF5, a data set a field, chunked and with checksums. Wide data sets have the names of their columns in an attribute ``columns``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lepton_mpi.prediction.fields import Field
from lepton_mpi.prediction.files.npz_file import as_stored
from lepton_mpi.prepare.writing import disk_errors, fixed_texts, new_file

_CHUNK_BYTES = 1 << 20


class Hdf5Format:
    """See ``Format``."""

    def check(self) -> None:
        """Needs no library more than training."""

    def packed(self, fields: Sequence[Field], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The arrays; choices and texts in UTF-8."""
        return [
            fixed_texts(tuple(field.values))[array]
            if field.kind == "choice" and field.values.dtype.kind == "U"
            else as_stored(field, array)
            for field, array in zip(fields, arrays, strict=True)
        ]

    @contextmanager
    def open(self, path: Path, fields: Sequence[Field]) -> Iterator["_Writer"]:
        """The file."""
        with new_file(path) as file:
            with disk_errors(path):
                writer = _Writer(file, fields)
            yield writer
            with disk_errors(path):
                writer.close()


class _Column:
    """Rows of a data set, of which whole chunks are written."""

    def __init__(self, file: h5py.File, field: Field) -> None:
        width = (len(field.columns),) if field.kind == "numbers" else ()
        dtype = _dtype_of(field)
        row_bytes = 16 if field.kind == "text" else dtype.itemsize * int(np.prod(width))
        self._rows = max(1, _CHUNK_BYTES // max(1, row_bytes))
        # Texts of any length lie in a heap, of which there is no checksum.
        is_checked = {} if field.kind == "text" else {"fletcher32": True}
        self._dataset = file.create_dataset(
            field.name,
            (0, *width),
            dtype,
            maxshape=(None, *width),
            chunks=(self._rows, *width),
            **is_checked,
        )
        if field.kind == "numbers":
            self._dataset.attrs["columns"] = fixed_texts(field.columns)
        self._waiting: list[np.ndarray] = []
        self._count = 0

    def append(self, array: np.ndarray) -> None:
        self._waiting.append(array)
        self._count += len(array)
        if self._count >= self._rows:
            self.write(self._count - self._count % self._rows)

    def write(self, count: int) -> None:
        """The first ``count`` rows of those that wait."""
        if not count:
            return
        rows = np.concatenate(self._waiting)
        start = len(self._dataset)
        self._dataset.resize(start + count, axis=0)
        self._dataset[start:] = rows[:count]
        self._waiting, self._count = [rows[count:]], self._count - count

    def close(self) -> None:
        self.write(self._count)


class _Writer:
    """See ``Writer``."""

    def __init__(self, file: h5py.File, fields: Sequence[Field]) -> None:
        self._columns = [_Column(file, field) for field in fields]

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Rows of each field."""
        for column, array in zip(self._columns, arrays, strict=True):
            column.append(array)

    def close(self) -> None:
        """What is less than a chunk."""
        for column in self._columns:
            column.close()


def _dtype_of(field: Field) -> np.dtype[Any]:
    if field.kind == "text":
        dtype: np.dtype[Any] = h5py.string_dtype()
        return dtype
    if field.kind == "choice":
        values = field.values
        return values.dtype if values.dtype.kind != "U" else fixed_texts(tuple(values)).dtype
    return field.dtype if field.kind == "numbers" else np.dtype(np.int64)
