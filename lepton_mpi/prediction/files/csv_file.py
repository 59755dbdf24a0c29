"""CSV in UTF-8, RFC 4180, with a header. The ranks write the text of their chunks side by side; rank 0 only puts it behind what is there.

Numbers have as many digits as their type needs to come back to the last bit: 9 of float32, 17 of float64; targets those of the model's
type.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lepton_mpi.prediction.fields import Field
from lepton_mpi.prediction.files.output import whole_file
from lepton_mpi.prepare.writing import disk_errors

# Rows that are formatted by one call: as fast as many more, and their objects stay in the cache.
_ROWS = 1024
_SPECIAL = frozenset(',"\r\n')


class CsvFormat:
    """See ``Format``. ``separator`` is a comma, or a tab; ``digits`` are those of a float."""

    def __init__(self, digits: int, separator: str = ",") -> None:
        self._digits, self._separator = digits, separator

    def check(self) -> None:
        """Needs no library."""

    def packed(self, fields: Sequence[Field], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The lines, as one array of bytes."""
        words, columns = list[str](), list[list[Any]]()
        for field, array in zip(fields, arrays, strict=True):
            if field.kind == "numbers":
                words += [f"%.{self._digits}g"] * len(field.columns)
                columns += [column.tolist() for column in array.T]
            else:
                words.append("%d" if field.kind == "number" else "%s")
                columns.append(self._cells(field, array))
        line, count = self._separator.join(words) + "\n", len(arrays[0])
        lines = []
        for start in range(0, count, _ROWS):
            parts = [column[start : start + _ROWS] for column in columns]
            values = tuple(chain.from_iterable(zip(*parts, strict=True)))
            lines.append((line * len(parts[0])) % values)
        return [np.frombuffer("".join(lines).encode("utf-8", "surrogateescape"), np.uint8)]

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

    def _cells(self, field: Field, array: np.ndarray) -> list[Any]:
        if field.kind == "number":
            return array.tolist()
        if field.kind == "choice":
            texts = [self._quoted(text) for text in field.texts]
            return [texts[code] for code in array.tolist()]
        return [self._quoted(cell.decode("utf-8", "replace")) for cell in array.tolist()]

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


def _close(file: BinaryIO) -> None:
    """What could not be written was said by ``flush``."""
    with suppress(OSError):
        file.close()
