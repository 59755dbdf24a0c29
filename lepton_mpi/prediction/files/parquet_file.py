"""Parquet, by pyarrow (the extra ``parquet``); row groups have the same rows for any number of ranks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.errors import LauncherError
from lepton_mpi.extras import pip_install
from lepton_mpi.prediction.fields import Field
from lepton_mpi.prediction.files.npz_file import as_stored
from lepton_mpi.prediction.files.output import whole_file
from lepton_mpi.prepare.writing import disk_errors

_GROUP_ROWS = 1 << 16


class ParquetFormat:
    """See ``Format``."""

    def check(self) -> None:
        """Raise LauncherError without pyarrow."""
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise LauncherError(
                f"Parquet is written by pyarrow: {pip_install('parquet')}"
            ) from None

    def packed(self, fields: Sequence[Field], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The arrays; choices as codes."""
        return [
            np.ascontiguousarray(array) if field.kind == "choice" else as_stored(field, array)
            for field, array in zip(fields, arrays, strict=True)
        ]

    @contextmanager
    def open(self, path: Path, fields: Sequence[Field]) -> Iterator["_Writer"]:
        """The file."""
        from pyarrow import parquet

        schema = _schema(fields)
        with whole_file(path) as temporary:
            with disk_errors(path):
                file = parquet.ParquetWriter(temporary, schema)
            writer = _Writer(file, schema, fields)
            try:
                yield writer
                with disk_errors(path):
                    writer.write_all()
            finally:
                with disk_errors(path):
                    file.close()


def _schema(fields: Sequence[Field]) -> Any:
    import pyarrow

    columns = []
    for field in fields:
        kind = pyarrow.string()
        if field.kind == "numbers":
            kind = pyarrow.from_numpy_dtype(field.dtype)
        elif field.kind == "number" or (field.kind == "choice" and field.values.dtype.kind == "i"):
            kind = pyarrow.int64()
        columns += [(name, kind) for name in field.columns]
    return pyarrow.schema(columns)


class _Writer:
    """See ``Writer``."""

    def __init__(self, file: Any, schema: Any, fields: Sequence[Field]) -> None:
        self._file, self._schema, self._fields = file, schema, fields
        self._waiting: list[Any] = []
        self._count = 0

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Rows of each field; whole row groups are written."""
        import pyarrow

        columns = []
        for field, array in zip(self._fields, arrays, strict=True):
            if field.kind == "numbers":
                columns += [pyarrow.array(np.ascontiguousarray(part)) for part in array.T]
            elif field.kind == "choice":
                values = pyarrow.array(field.values)
                columns.append(values.take(pyarrow.array(array)))
            elif field.kind == "text":
                texts = [cell.decode("utf-8", "replace") for cell in array.tolist()]
                columns.append(pyarrow.array(texts, pyarrow.string()))
            else:
                columns.append(pyarrow.array(array))
        self._waiting.append(pyarrow.table(columns, schema=self._schema))
        self._count += len(arrays[0])
        while self._count >= _GROUP_ROWS:
            self._write(_GROUP_ROWS)

    def write_all(self) -> None:
        """What is less than a row group."""
        if self._count:
            self._write(self._count)

    def _write(self, count: int) -> None:
        import pyarrow

        rows = pyarrow.concat_tables(self._waiting).combine_chunks()
        self._file.write_table(rows.slice(0, count), row_group_size=count)
        self._waiting, self._count = [rows.slice(count)], self._count - count
