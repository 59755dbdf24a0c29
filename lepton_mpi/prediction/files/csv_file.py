"""CSV in UTF-8, RFC 4180, with a header. The ranks write the text of their chunks side by side; rank 0 only puts it behind what is there.

Numbers have as many digits as their type needs to come back to the last bit: 9 of float32, 17 of float64; targets those of the model's
type.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lepton_mpi.prediction.fields import Field
from lepton_mpi.prediction.files import text_kernels
from lepton_mpi.prediction.files.output import whole_file
from lepton_mpi.prepare.writing import disk_errors

# Of the numbers that are lines together: they stay in the cache.
_ROOM_BYTES = 1 << 20
_SPECIAL = frozenset(',"\r\n')


class _Cells(NamedTuple):
    """A column: in which bytes its cells are, where each begins, and how long it is."""

    room: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


class CsvFormat:
    """See ``Format``. ``separator`` is a comma, or a tab; ``digits`` are those of a float."""

    def __init__(self, digits: int, separator: str = ",") -> None:
        self._digits, self._separator = digits, separator

    def check(self) -> None:
        """Needs no library."""

    def packed(self, fields: Sequence[Field], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The lines, as one array of bytes."""
        rows = max(1, _ROOM_BYTES // (text_kernels.CELL_BYTES * _column_count(fields)))
        parts = [
            self._lines(fields, [array[start : start + rows] for array in arrays])
            for start in range(0, len(arrays[0]), rows)
        ]
        return [np.concatenate(parts) if parts else np.zeros(0, np.uint8)]

    def _lines(self, fields: Sequence[Field], arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Those of a few rows."""
        columns = [
            cells
            for field, array in zip(fields, arrays, strict=True)
            for cells in self._columns(field, array)
        ]
        lengths = np.full(len(arrays[0]), len(columns))  # what is behind the cells
        for cells in columns:
            lengths += cells.lengths
        ends = np.cumsum(lengths)
        out = np.empty(ends[-1], np.uint8)
        places, separator = ends - lengths, ord(self._separator)
        for number, (room, starts, of_cells) in enumerate(columns, 1):
            behind = ord("\n") if number == len(columns) else separator
            text_kernels.append_cells(room, starts, of_cells, behind, out, places)
        return out

    def _columns(self, field: Field, array: np.ndarray) -> Iterator[_Cells]:
        """The cells of a field, column by column."""
        if field.kind == "numbers":
            for column in array.T:
                yield _of_floats(np.ascontiguousarray(column, np.float64), self._digits)
        elif field.kind == "number":
            room, lengths = _room(len(array))
            text_kernels.print_integers(np.ascontiguousarray(array, np.int64), room, lengths)
            yield _Cells(room.reshape(-1), np.arange(0, room.size, room.shape[1]), lengths)
        elif field.kind == "choice":
            cells = _of_texts([self._quoted(text) for text in field.texts])
            yield _Cells(cells.room, cells.starts[array], cells.lengths[array])
        else:
            texts = [cell.decode("utf-8", "replace") for cell in array.tolist()]
            yield _of_texts([self._quoted(text) for text in texts])

    @contextmanager
    def open(self, path: Path, fields: Sequence[Field]) -> Iterator["_Writer"]:
        """The file, with its header."""
        names = [self._quoted(name) for field in fields for name in field.columns]
        with whole_file(path) as temporary:
            with disk_errors(path):
                file = temporary.open("wb")
            try:
                with disk_errors(path):
                    file.write((self._separator.join(names) + "\n").encode())
                yield _Writer(file)
                with disk_errors(path):
                    file.flush()
            finally:
                _close(file)

    def _quoted(self, text: str) -> str:
        if _SPECIAL.isdisjoint(text) and self._separator not in text:
            return text
        return '"' + text.replace('"', '""') + '"'


class _Writer:
    """See ``Writer``."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Lines, behind the others."""
        self._file.write(arrays[0].data)


def _column_count(fields: Sequence[Field]) -> int:
    return max(1, sum(len(field.columns) for field in fields))


def _room(count: int) -> tuple[np.ndarray, np.ndarray]:
    """For so many numbers, and their lengths."""
    return np.empty((count, text_kernels.CELL_BYTES), np.uint8), np.empty(count, np.int64)


def _of_floats(values: np.ndarray, digits: int) -> _Cells:
    """What the kernel does not decide, Python does: correctly rounded, too."""
    room, lengths = _room(len(values))
    text_kernels.print_floats(values, digits, *powers(), room, lengths)
    for row in np.flatnonzero(lengths == text_kernels.UNDECIDED).tolist():
        text = f"%.{digits}g" % values[row]
        lengths[row] = len(text)
        room[row, : len(text)] = np.frombuffer(text.encode(), np.uint8)
    return _Cells(room.reshape(-1), np.arange(0, room.size, room.shape[1]), lengths)


def _of_texts(texts: Sequence[str]) -> _Cells:
    parts = [text.encode("utf-8", "surrogateescape") for text in texts]
    lengths = np.array([len(part) for part in parts], np.int64)
    room = np.frombuffer(
        bytearray(b"".join(parts)), np.uint8
    )  # kernels take what may be written to
    return _Cells(room, np.cumsum(lengths) - lengths, lengths)


@cache
def powers() -> tuple[np.ndarray, np.ndarray]:
    """Powers of ten, each the sum of two float64."""
    exact = [
        Fraction(10) ** power
        for power in range(-text_kernels.POWER_MAX, text_kernels.POWER_MAX + 1)
    ]
    high = [float(each) for each in exact]
    low = [float(each - Fraction(part)) for each, part in zip(exact, high, strict=True)]
    return np.array(high), np.array(low)


def _close(file: BinaryIO) -> None:
    """What could not be written was said by ``flush``."""
    with suppress(OSError):
        file.close()
