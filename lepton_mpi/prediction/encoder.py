"""A block of raw rows as the model's inputs in memory; nothing of it is fitted."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.rows import Read
from lepton_mpi.errors import DataError
from lepton_mpi.prediction.subject import Subject, without_labels
from lepton_mpi.prepare.categories import check_units
from lepton_mpi.prepare.known_categories import (
    Unknown,
    are_unknown,
    codes_for,
    together,
    unknown_cells,
    unknown_notes,
)
from lepton_mpi.prepare.readers import Block
from lepton_mpi.run import evaluation

_SHOWN, _LETTERS = 6, 40


@dataclass(frozen=True)
class Encoded:
    """Rows to predict: ``kept`` are their places in the block, and ``memory`` is that of each input."""

    kept: np.ndarray
    memory: tuple[np.ndarray, ...]

    @property
    def row_count(self) -> int:
        return len(self.kept)


class Encoder:
    """Cells to numbers as the training file has them, and these to batches.

    A missing cell is filled as there; where that file was made without ``--missing`` it is an error, and with ``--missing
    drop`` the row is left out. ``unknown_is_missing`` says the same of categories that the model does not know, which are counted:
    ``unknown``, by feature.
    """

    def __init__(self, subject: Subject, unknown_is_missing: bool) -> None:
        self._encoding, self._data = subject.encoding, subject.found.data
        self._unknown_is_missing = unknown_is_missing
        self._missing = str(subject.encoding.options.get("missing", "error"))
        self._reader = BatchReader(self._data, evaluation.batch_rows(self._data))
        self._known = subject.encoding.transformation.categories
        self.unknown: dict[int, Unknown] = {}

    def encoded(self, block: Block, name: str) -> Encoded:
        """The rows of a block of the input called ``name``. Raises DataError that names the row and the column."""
        x = block.flat
        self._check_cells(block, x, name)
        kept = self._rows_kept(block, x, name)
        fitted = self._encoding.transformation
        cells = fitted.encoded(block)
        if len(kept) < len(cells):
            cells = cells[kept]
        memory, numbers = [], 0
        for spec in self._data.inputs.values():
            if spec.kind == "numbers":
                rows = fitted.finished(cells)
                self._check_filled(rows, kept, block, name)
                base = self._data.bases[numbers : numbers + spec.size]
                memory.append(_as_numbers(rows, base, self._data.dtype))
                numbers += spec.size
            else:
                codes = fitted.codes(cells)
                self._check_filled(codes, kept, block, name)
                memory.append(np.ascontiguousarray(codes, np.int32))
            assert memory[-1].shape[1] == spec.size, (memory[-1].shape, spec)
        return Encoded(kept, tuple(memory))

    def batches(self, rows: Encoded) -> Iterator[Batch]:
        """The rows, cut from the first on; a batch lasts until the next."""
        y, size = without_labels(self._data, rows.row_count), evaluation.rows_of_call(self._reader)
        for start, stop in batch_bounds(rows.row_count, size):
            numbers = np.arange(start, stop)
            first, *more = rows.memory
            yield self._reader.read(Read(first, numbers, y, numbers, None, tuple(more)))

    def _check_cells(self, block: Block, x: np.ndarray, name: str) -> None:
        """Refuse cells of another kind than the feature's. Raises DataError."""
        check_units([SimpleNamespace(name=name, units=block.units)])  # type: ignore[list-item]
        if x.dtype.kind == "f" and np.isinf(x).any():
            row, feature = np.argwhere(np.isinf(x))[0]
            raise self._wrong(name, block, row, feature, "a finite number", str(x[row, feature]))
        for feature in sorted({*block.words, *self._known}):
            numbers, words = x[:, feature], block.words.get(feature)
            if feature in self._known:
                codes = codes_for(self._known[feature]).of_cells(numbers, words)
                odd = are_unknown(codes, numbers, words)
            else:
                odd = block.words[feature].codes >= 0
            if not odd.any():
                continue
            if feature not in self._known or not self._unknown_is_missing:
                self._refuse(name, block, int(odd.argmax()), feature, x)
            self.unknown = together([self.unknown, {feature: unknown_cells(odd, numbers, words)}])

    def notes_on(self, unknown: Iterable[Mapping[int, Unknown]]) -> list[str]:
        """A line for each column of which cells were taken as missing; ``unknown`` are those of all ranks."""
        columns, found = self._encoding.columns, together(unknown)
        return unknown_notes({columns[feature]: cells for feature, cells in found.items()})

    def _refuse(self, name: str, block: Block, row: int, feature: int, x: np.ndarray) -> None:
        words, known = block.words.get(feature), self._encoding.transformation.categories
        code = -1 if words is None else int(words.codes[row])
        got = f"{x[row, feature]:g}" if code < 0 or words is None else words.texts[code]
        if feature not in known:
            raise self._wrong(name, block, row, feature, "a number", repr(got[:_LETTERS]))
        texts = known[feature]
        shown = ", ".join(text[:_LETTERS] for text in texts[:_SHOWN])
        more = " …" * (len(texts) > _SHOWN)
        expected = f"one of the {len(texts)} categories that the model knows, {shown}{more}"
        hint = "; --unknown missing takes others as missing"
        raise self._wrong(name, block, row, feature, expected, repr(got[:_LETTERS]) + hint)

    def _rows_kept(self, block: Block, x: np.ndarray, name: str) -> np.ndarray:
        """Places of the rows that are predicted. Raises DataError for missing cells that nothing fills."""
        everything = np.arange(len(x))
        if x.dtype.kind != "f" or self._missing not in ("error", "drop"):
            return everything
        holes = np.isnan(x)
        for feature, words in block.words.items():
            holes[:, feature] &= words.codes < 0
        if not holes.any():
            return everything
        if self._missing == "drop":
            return np.flatnonzero(~holes.any(axis=1))
        row, feature = np.argwhere(holes)[0]
        hint = "; the training file was made without --missing, so nothing says what to fill in"
        raise self._wrong(name, block, row, feature, "a value", f"none{hint}")

    def _check_filled(self, rows: np.ndarray, kept: np.ndarray, block: Block, name: str) -> None:
        if rows.dtype.kind == "f" and np.isnan(rows).any():
            row = int(kept[np.argwhere(np.isnan(rows))[0][0]])
            raise DataError(
                f"{name}: {block.place(row)}: expected values in all cells, got a missing or an unknown one for which the training "
                "file has no fill; make that with --missing mean, median or constant=VALUE"
            )

    def _wrong(
        self, name: str, block: Block, row: int, feature: int, expected: str, got: str
    ) -> DataError:
        columns = self._encoding.columns
        where = f"column {columns[feature]!r}" if columns else f"number {feature} of the row"
        return DataError(f"{name}: {block.place(row)}, {where}: expected {expected}, got {got}")


def batch_bounds(row_count: int, size: int) -> Iterator[tuple[int, int]]:
    """Batches of ``size`` rows, and of powers of two for the rest: models keep memory for every length that they have met.

    >>> list(batch_bounds(23, 8))
    [(0, 8), (8, 16), (16, 20), (20, 22), (22, 23)]
    """
    start = 0
    while start < row_count:
        left = row_count - start
        stop = start + (size if left >= size else 1 << (left.bit_length() - 1))
        yield start, stop
        start = stop


def _as_numbers(rows: np.ndarray, base: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """In the type in which rows lie in memory: bytes, or that of the batches, less their base."""
    if base.any():
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(rows.astype(np.float64) - base, dtype)
    # Kernels take memory that may be written to, which a mapped file's may not.
    with np.errstate(over="ignore"):
        return np.require(rows, np.uint8 if rows.dtype == np.uint8 else dtype, ("C", "W"))
