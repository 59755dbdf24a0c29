"""Arrays and data frames of a program as blocks, cell by cell as a file with the same cells is read.

A frame is anything with ``columns`` and a column by ``frame[name]``: of pandas, of polars, or a mapping in a class of its own. Neither
library is imported. A number in a column of categories is its text, whole numbers without a decimal point.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prediction.subject import Subject
from lepton_mpi.prepare.known_categories import number_text
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Block, Words
from lepton_mpi.prepare.readers.cells import Cells, block_of
from lepton_mpi.prepare.readers.columns import Roles, choose_roles

# Rows that become a block: as many as of a block of a file of 30 columns, so that a call of many rows takes little memory.
BLOCK_ROWS = 8192
_WHERE = "frame"


def is_frame(rows: Any) -> bool:
    """Whether rows have columns with names."""
    return hasattr(rows, "columns") and hasattr(rows, "__getitem__")


class FrameBlocks:
    """A frame in blocks. Raises ConfigurationError for columns that are not there.

    ``categories`` are the features that are known to be categories; ``options`` are those with which a file would be read.
    """

    def __init__(self, frame: Any, categories: Collection[int], options: Options) -> None:
        names = [str(name) for name in frame.columns]
        self.roles = self._roles = choose_roles(names, options, _WHERE)
        self._missing = frozenset(options.words_for_missing)
        columns = self._roles.feature_names
        # A column of dates may be several features, and is never one of categories.
        self._are_texts = {self._roles.features[feature] for feature in categories}
        self._columns = [
            (number, names[number], frame[given])
            for number, given in enumerate(frame.columns)
            if number in self._roles.features
        ]
        self._width, self.row_count = len(names), len(frame)
        self.columns = columns

    def block(self, start: int, stop: int) -> Block:
        """Rows [start, stop). Raises DataError."""
        cells = Cells(np.full((stop - start, self._width), np.nan), {}, None, start)
        for number, name, column in self._columns:
            part = _array(column[start:stop])
            if part.shape != (stop - start,):
                raise DataError(
                    f"{_WHERE}: column {name!r}: expected a column of {self.row_count} cells, got shape {part.shape}; "
                    "no two columns may have one name"
                )
            self._set(cells, number, name, part)
        return block_of(cells, self._roles, _WHERE)

    def _set(self, cells: Cells, number: int, name: str, part: np.ndarray) -> None:
        as_texts = number in self._are_texts or number in self._roles.texts
        if part.dtype.kind == "M":
            cells.numbers[:, number] = self._seconds(part, number, name)
        elif part.dtype.kind in "biuf":
            values = part.astype(np.float64)
            cells.numbers[:, number] = values
            if as_texts:
                cells.words[number] = Words.of([_text(value) for value in values.tolist()])
        elif part.dtype.kind in "OUST":
            self._set_objects(cells, number, part.tolist(), as_texts)
        else:
            raise DataError(
                f"{_WHERE}: column {name!r}: expected numbers or texts, got {part.dtype}"
            )

    def _seconds(self, part: np.ndarray, number: int, name: str) -> np.ndarray:
        roles: Roles = self._roles
        if number not in roles.dates:
            raise DataError(f"{_WHERE}: column {name!r}: expected numbers or texts, got dates")
        exact = part.astype("datetime64[us]")
        seconds = exact.astype(np.int64) / 1e6 - roles.since
        return np.where(np.isnat(exact), np.nan, seconds)

    def _set_objects(self, cells: Cells, number: int, part: list[Any], as_texts: bool) -> None:
        """Python's objects: numbers, texts, and whatever stands for nothing."""
        values, texts = np.full(len(part), np.nan), list[str | None]()
        for row, cell in enumerate(part):
            text = None
            if isinstance(cell, str | bytes):
                text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
                text = None if not text or text in self._missing else text
                value = None if as_texts or text is None else plain_number(text)
                if value is not None:
                    values[row], text = value, None
            elif not _is_missing(cell):
                values[row] = cell = _number(cell)
                text = _text(cell) if as_texts else None
            texts.append(text)
        cells.numbers[:, number] = values
        if as_texts or any(text is not None for text in texts):
            cells.words[number] = Words.of(texts)


class ArrayBlocks:
    """An array in blocks. Raises DataError for another shape than that of the model's rows.

    Of a table: (rows, columns of the file that was trained on), in their order; of objects where some are categories.
    """

    def __init__(self, rows: Any, subject: Subject) -> None:
        self._x = np.asarray(rows)
        shape, names = subject.encoding.row_shape, subject.encoding.columns
        size = int(np.prod(shape))
        if self._x.ndim < 1 or self._x.shape[1:] not in (shape, (size,), *([()] * (size == 1))):
            named = f", {', '.join(names[:12])}{' …' * (len(names) > 12)}" if names else ""
            raise DataError(
                f"array: expected shape (rows, {', '.join(map(str, shape))}){named}, as the model was trained on, got "
                f"{self._x.shape}"
            )
        if self._x.dtype.kind not in "iufb":
            raise DataError(f"array: expected numbers, got {self._x.dtype}")
        if subject.encoding.transformation.categories:
            feature = min(subject.encoding.transformation.categories)
            raise DataError(
                f"array: expected texts in column {names[feature]!r}, which is categories: give a data frame, or an array of objects"
            )
        self._shape, self.row_count = shape, len(self._x)

    def block(self, start: int, stop: int) -> Block:
        """Rows [start, stop)."""
        x = np.ascontiguousarray(self._x[start:stop]).reshape(stop - start, *self._shape)
        if x.dtype.kind == "b":
            x = x.astype(np.uint8)
        if x.dtype.kind == "f" and x.dtype.itemsize not in (4, 8):
            x = x.astype(np.float64)
        return Block(x, np.zeros(len(x), np.int64), {}, first_row=start)


class Named:
    """An array of objects as a frame: its columns are those of the file that was trained on, in their order."""

    def __init__(self, rows: np.ndarray, names: tuple[str, ...]) -> None:
        if rows.ndim != 2 or rows.shape[1] != len(names):
            raise DataError(
                f"array: expected shape (rows, {len(names)}), with the columns {', '.join(names[:12])}, got {rows.shape}"
            )
        self.columns, self._rows = names, rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self._rows[:, self.columns.index(name)]

    def __len__(self) -> int:
        return len(self._rows)


def _array(column: Any) -> np.ndarray:
    found = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
    return np.asarray(found)


def _is_missing(cell: Any) -> bool:
    """None, NaN, and what pandas has for it, which is not equal to itself or has no answer."""
    if cell is None:
        return True
    try:
        return bool(cell != cell)
    except (TypeError, ValueError):
        return True


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise DataError(
            f"{_WHERE}: expected numbers and texts in cells, got {type(cell).__name__}"
        ) from None


def _text(value: float) -> str | None:
    """As a file has it; none of NaN."""
    return None if value != value else number_text(value)
