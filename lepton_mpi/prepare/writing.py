"""Writes the file that ``data/file_format.py`` describes. One rank calls it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lepton_mpi.data.files import block_sums
from lepton_mpi.data.files.file_format import FORMAT
from lepton_mpi.durable import PatientFile, replace_durably
from lepton_mpi.errors import LauncherError
from lepton_mpi.wording import one_line

# Long enough to read at full speed, short enough that a batch of neighbours does not unpack much else.
_CHUNK_BYTES = 1 << 20


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """A file that is whole at the end of the block, or not there. Raises LauncherError if it cannot be written.

    What is written in the block is to stand in a block of ``disk_errors``.
    """
    temporary = partial_of(path)
    try:
        with disk_errors(path):
            # The format of HDF5 1.10: the oldest with checksums of its metadata, and h5py 3.11 reads it.
            raw = PatientFile(temporary)
            file = h5py.File(raw, "w", libver=("v110", "v110"))
        try:
            yield file
        except BaseException:
            with suppress(OSError, RuntimeError):  # the first error is the cause
                file.close()
                raw.close()
            raise
        with disk_errors(path):
            file.close()
            raw.close()
            replace_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Where a file is until it is whole; a kill leaves it there."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A block that writes to the file. Raises LauncherError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # h5py raises either when a disk is full
        reason = getattr(error, "strerror", None) or error
        raise LauncherError(f"cannot write {path}: {one_line(reason)}") from None


class RowWriter:
    """Rows of one data set, written chunk by chunk as they come.

    Parameters
    ----------
    file : h5py.File
    name : str
    shape : tuple of int
        Rows, and the shape of one.
    dtype : np.dtype
    layout : {"chunked", "contiguous"}
    compress : {"none", "gzip"}
    chunk_bytes : int
    """

    def __init__(
        self,
        file: h5py.File,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        layout: str,
        compress: str,
        chunk_bytes: int = _CHUNK_BYTES,
    ) -> None:
        self._rows_per_chunk = chunk_rows(shape, dtype, chunk_bytes)
        storage: dict[str, Any] = {}
        if layout == "chunked":
            storage = {"chunks": (self._rows_per_chunk, *shape[1:]), "fletcher32": True}
            if compress == "gzip":
                storage |= {"compression": "gzip", "shuffle": True}
        self._dataset = file.create_dataset(name, shape, dtype, **storage)
        self._file, self._sums = file, list[int]() if layout != "chunked" else None
        self._pending: list[np.ndarray] = []
        self._pending_rows, self._written = 0, 0

    def describe(self, kind: str, values: int | list[int]) -> None:
        """Say what the numbers are, if they are codes, and how many of them there are."""
        self._dataset.attrs["kind"] = np.bytes_(kind)
        self._dataset.attrs["values"] = np.asarray(values, np.int64)

    def append(self, rows: np.ndarray) -> None:
        """Add rows; whole chunks are written."""
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows >= self._rows_per_chunk:
            self._write(self._pending_rows - self._pending_rows % self._rows_per_chunk)

    def close(self) -> None:
        """Write what is left; as many rows must have come as the data set has."""
        self._write(self._pending_rows)
        assert self._written == len(self._dataset), (self._dataset.name, self._written)
        if self._sums:  # h5py keeps no checksums of what is in one piece
            sums = np.array(self._sums, np.uint32)
            made = self._file.create_dataset(
                block_sums.name_of(self._dataset.name),
                data=sums,
                chunks=sums.shape,
                fletcher32=True,
            )
            made.attrs["rows"] = np.int64(self._rows_per_chunk)

    def _write(self, count: int) -> None:
        if count:
            rows = np.concatenate(self._pending)
            self._dataset[self._written : self._written + count] = rows[:count]
            if self._sums is not None:
                self._sums += self._sums_of(rows[:count])
            self._pending, self._pending_rows = [rows[count:]], self._pending_rows - count
            self._written += count

    def _sums_of(self, rows: np.ndarray) -> list[int]:
        """Of every block of them, as they lie in the file."""
        stored = np.ascontiguousarray(rows, self._dataset.dtype)
        starts = range(0, len(stored), self._rows_per_chunk)
        return [block_sums.checksum(stored[at : at + self._rows_per_chunk]) for at in starts]


def chunk_rows(shape: tuple[int, ...], dtype: np.dtype, chunk_bytes: int = _CHUNK_BYTES) -> int:
    """Rows of a chunk of about so many bytes, at most all there are.

    >>> chunk_rows((60000, 28, 28), np.dtype("uint8")), chunk_rows((10, 4), np.dtype("float64"))
    (1337, 10)
    """
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    return max(1, min(shape[0], chunk_bytes // max(1, row_bytes)))


def write_facts(
    file: h5py.File,
    facts: dict[str, Any],
    arrays: dict[str, np.ndarray],
    class_names: tuple[str, ...],
    version: int,
) -> None:
    """Attributes, and everything that is not rows: ``arrays`` by name, ``facts`` as ``about/report``.

    ``version`` is the lowest whose readers read the file right.
    """
    file.attrs["format"] = np.bytes_(FORMAT)
    file.attrs["format_version"] = version
    if class_names:
        file.attrs["classes"] = fixed_texts(class_names)
    report = json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace")
    for name, values in {"about/report": np.frombuffer(report, np.uint8), **arrays}.items():
        # A checksum needs chunks, and data sets that are assigned would have the time in them.
        checked = (
            {"chunks": values.shape, "fletcher32": True} if values.size and values.ndim else {}
        )
        file.create_dataset(name, data=values, **checked)


def fixed_texts(texts: tuple[str, ...]) -> np.ndarray:
    """Texts of fixed length in UTF-8, shape (texts,): those of variable length lie in a heap of the file."""
    encoded = [text.encode() for text in texts]
    length = max(1, *map(len, encoded), 1)
    return np.array(encoded, h5py.string_dtype("utf-8", length))
