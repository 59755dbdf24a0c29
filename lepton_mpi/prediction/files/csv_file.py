"""CSV in UTF-8, RFC 4180, with a header. The ranks write the text of their chunks side by side; rank 0 only puts it behind what is there.

Numbers have as many digits as their type needs to come back to the last bit: 9 of float32, 17 of float64; targets those of the model's
type.
"""

from collections.abc import Callable, Iterator, Sequence
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

# Of the numbers that become lines together: they stay in the cache.
_ROUNDED_BYTES = 1 << 20
_SPECIAL = frozenset(',"\r\n')


class _Texts(NamedTuple):
    """Cells: their bytes one behind the other, where each begins, and how long it is."""

    room: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))


class CsvFormat:
    """See ``Format``. ``separator`` is a comma, or a tab; ``digits`` are those of a float."""

    def __init__(self, digits: int, separator: str = ",") -> None:
        self._digits, self._separator = digits, separator

    def check(self) -> None:
        """Needs no library."""

    def packed(self, fields: Sequence[Field], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The lines, as one array of bytes."""
        lines = _Lines(fields, arrays, self._quoted)
        return [lines.written(len(arrays[0]), self._digits, ord(self._separator))]

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


class _Lines:
    """Fields as the kernels of a text file take them."""

    def __init__(
        self,
        fields: Sequence[Field],
        arrays: Sequence[np.ndarray],
        quoted: Callable[[str], str],
    ) -> None:
        self._columns: list[tuple[int, ...]] = []
        self._floats: list[np.ndarray] = []
        self._float_count, self._line_bytes = 0, 0
        self._kept: list[object] = []  # a column has addresses only
        for field, array in zip(fields, arrays, strict=True):
            if field.kind == "numbers":
                self._add_floats(array)
            elif field.kind == "number":
                self._add(text_kernels.INTEGERS, array, text_kernels.NUMBER_BYTES)
            elif field.kind == "choice":
                self._add_texts(_of_texts([quoted(text) for text in field.texts]), array)
            else:
                texts = [quoted(cell.decode("utf-8", "replace")) for cell in array.tolist()]
                self._add_texts(_of_texts(texts), np.arange(len(texts)))

    def _add_floats(self, array: np.ndarray) -> None:
        self._floats.append(array)
        for _ in range(array.shape[1]):
            self._columns.append((text_kernels.FLOATS, self._float_count, 0, 0, 0))
            self._float_count += 1
        self._line_bytes += (text_kernels.NUMBER_BYTES + 1) * array.shape[1]

    def _add_texts(self, texts: _Texts, codes: np.ndarray) -> None:
        self._kept.append(texts)
        addresses = (each.ctypes.data for each in (texts.starts, texts.lengths, texts.room))
        self._add(text_kernels.TEXTS, codes, texts.longest, *addresses)

    def _add(self, kind: int, values: np.ndarray, longest: int, *addresses: int) -> None:
        whole = np.ascontiguousarray(values, np.int64)
        self._kept.append(whole)
        self._columns.append((kind, whole.ctypes.data, *(addresses or (0, 0, 0))))
        self._line_bytes += longest + 1

    def written(self, row_count: int, digits: int, separator: int) -> np.ndarray:
        """All lines. Pages of the room that no line reaches are never taken from the system."""
        out, at = np.empty(row_count * self._line_bytes, np.uint8), 0
        columns = np.array(self._columns, np.int64).reshape(-1, text_kernels.COLUMN_WORDS)
        rows = max(1, _ROUNDED_BYTES // (16 * max(1, self._float_count)))
        shape = min(rows, row_count), self._float_count
        numbers, exponents = np.empty(shape, np.int64), np.empty(shape, np.int64)
        for start in range(0, row_count, rows):
            stop, first = min(start + rows, row_count), 0
            for array in self._floats:
                values = np.ascontiguousarray(array[start:stop], np.float64)
                _round(values, digits, first, numbers, exponents)
                first += values.shape[1]
            rounded = numbers[: stop - start], exponents[: stop - start]
            at = text_kernels.write_lines(
                *(columns, start, stop, digits, *rounded, separator, out, at)
            )
        return out[:at]


def _round(
    values: np.ndarray, digits: int, first: int, numbers: np.ndarray, exponents: np.ndarray
) -> None:
    """``round_floats``; what the kernel does not decide, Python does: correctly rounded, too."""
    text_kernels.round_floats(values, digits, *powers(), first, numbers, exponents)
    part = exponents[: len(values), first : first + values.shape[1]]
    for row, column in np.argwhere(part == text_kernels.UNDECIDED).tolist():
        number, _, exponent = f"{values[row, column]:.{digits - 1}e}".partition("e")
        numbers[row, first + column] = int(number.replace(".", ""))
        part[row, column] = int(exponent)


def _of_texts(texts: Sequence[str]) -> _Texts:
    parts = [text.encode("utf-8", "surrogateescape") for text in texts]
    lengths = np.array([len(part) for part in parts], np.int64)
    room = np.frombuffer(b"".join(parts), np.uint8)
    return _Texts(room, np.cumsum(lengths) - lengths, lengths)


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
