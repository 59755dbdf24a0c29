"""The rows of one split, of one file or of several, one behind the other."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Protocol

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.data.files.array_names import prepare_line
from lepton_mpi.data.files.label_arrays import classes_of, width
from lepton_mpi.data.files.stored_rows import StoredRows
from lepton_mpi.data.kernels import all_finite
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

# Large enough to read at full speed, small enough to be mixed well, and to be checked while it is in the cache.
BLOCK_BYTES = 1 << 20


class RowTable(Protocol):
    """What rows are read from: a ``Table``, or the tokens of a text, of which a row is a window (``token_tables.py``).

    Attributes
    ----------
    specs : mapping of str to Input
    row_count : int
    """

    @property
    def specs(self) -> Mapping[str, Input]: ...
    @property
    def row_count(self) -> int: ...
    @property
    def first(self) -> StoredRows:
        """Of the first file and input, for messages."""

    def stored(self, name: str) -> Sequence[StoredRows]:
        """An input in each of the files."""

    def twin(self) -> "RowTable":
        """The same rows, for another thread."""

    def blocks(self, block_bytes: int = ...) -> np.ndarray:
        """Where runs of rows begin that are read together, and the end: int64, shape (blocks + 1,)."""

    def read(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """An input of rows [start, stop) into ``out``, which has room for each. Raises DataError."""

    def memory_shape(self, name: str) -> tuple[int, ...]:
        """Of an input of all rows in memory."""

    def memory_blocks(self) -> np.ndarray:
        """Where runs of that memory begin that are read together, and the end: int64, shape (blocks + 1,)."""

    def read_memory(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """A run [start, stop) of that memory into ``out``. Raises DataError."""

    def check_mapped(self, name: str, start: int, block: np.ndarray) -> None:
        """Look at a run of it that is mapped, as far as that is done before training. Raises DataError."""

    def read_y(self, start: int, stop: int, out: np.ndarray) -> None:
        """Classes or targets of rows [start, stop). Raises DataError."""

    def will_need(self, start: int, stop: int) -> None:
        """Have the system read the inputs of rows [start, stop) ahead of their use."""

    def place_of(self, row: int) -> str:
        """File, data set and row there, for a message."""


@dataclass(frozen=True)
class Table:
    """Inputs and classes or targets ``y`` of the files, in their order.

    Attributes
    ----------
    specs : mapping of str to Input
        What each input holds; the first is the one that blocks go by if several take as many bytes.
    inputs : mapping of str to list of StoredRows
        One of each for every file.
    y : list of StoredRows
        Likewise; empty for rows to be scored.
    class_count : int
        Classes that the files name, or 0.
    target_scale : TargetScale
        How targets are scaled when they are read.
    bases : mapping of str to float64, shape (elements of a row,)
        What is subtracted from inputs that are numbers when they are read, before they are rounded to the type of the
        batches; zeros where nothing is.
    """

    specs: Mapping[str, Input]
    inputs: Mapping[str, list[StoredRows]]
    y: list[StoredRows]
    class_count: int
    target_scale: TargetScale = field(default_factory=lambda: TargetScale.identity(1))
    bases: Mapping[str, np.ndarray] = field(default_factory=dict)
    _reading: dict[str, StoredRows] = field(default_factory=dict, repr=False)

    @cached_property
    def _ends(self) -> list[int]:
        """Where the rows of each file end: there may be thousands of files, and as many reads."""
        return list(accumulate(stored.row_count for stored in self._counted))

    @property
    def _counted(self) -> list[StoredRows]:
        """What tells the number of rows of each file."""
        return self.y or next(iter(self.inputs.values()))

    @property
    def row_count(self) -> int:
        return self._ends[-1]

    @property
    def first(self) -> StoredRows:
        """Of the first file and input, for messages."""
        return next(iter(self.inputs.values()))[0]

    def stored(self, name: str) -> list[StoredRows]:
        """An input in each of the files."""
        return self.inputs[name]

    def twin(self) -> "Table":
        """The same rows, for another thread."""
        inputs = {name: [s.twin() for s in files] for name, files in self.inputs.items()}
        y = [stored.twin() for stored in self.y]
        return Table(self.specs, inputs, y, self.class_count, self.target_scale, self.bases)

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> np.ndarray:
        """Where runs of rows begin that are read together, and the end: int64, shape (blocks + 1,).

        About ``block_bytes`` in the file, of whole chunks of the input that takes most of them, one at least, and of one
        file.
        """
        starts, first = [], 0
        for stored in zip(*self.inputs.values(), strict=True):
            row_bytes = [rows.dtype.itemsize * prod(rows.row_shape) for rows in stored]
            chunk_rows = stored[row_bytes.index(max(row_bytes))].chunk_rows
            chunks = max(1, round(block_bytes / (sum(row_bytes) * chunk_rows)))
            starts.append(first + np.arange(0, stored[0].row_count, chunks * chunk_rows))
            first += stored[0].row_count
        return np.concatenate([*starts, [first]]).astype(np.int64)

    def read(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """An input of rows [start, stop) into ``out``, shape (stop - start, elements of a row), less its base.

        Raises DataError for damage, for numbers that are not finite, and for codes that there are not.
        """
        base = self.bases.get(name)
        for stored, first, last, rows in self._parts(self.inputs[name], start, stop):
            self._turn_to(stored, name)
            if base is not None and base.any():
                self._read_less_base(stored, first, last, base, out[rows])
                continue
            # As they are: a code that is too large for int32 must not become another one.
            is_direct = out.dtype.kind == "f" or stored.dtype == out.dtype
            part = out[rows] if is_direct else np.empty(out[rows].shape, stored.dtype)
            stored.read(first, last, part)
            check(self.specs[name], stored, first, part)
            if not is_direct:
                out[rows] = part

    def memory_shape(self, name: str) -> tuple[int, ...]:
        """(rows, elements of a row)."""
        return self.row_count, self.specs[name].size

    def memory_blocks(self) -> np.ndarray:
        """Those of rows."""
        return self.blocks()

    def read_memory(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """As ``read``."""
        self.read(name, start, stop, out)

    def check_mapped(self, name: str, start: int, block: np.ndarray) -> None:
        """Rows of the one file that there is, from ``start`` on: numbers must be finite, codes must exist, checksums fit."""
        check(self.specs[name], self.inputs[name][0], start, block)
        self.inputs[name][0].check_sums(start, block)

    def read_y(self, start: int, stop: int, out: np.ndarray) -> None:
        """Classes, int32 of shape (stop - start,), or scaled targets, floats of shape (stop - start, targets).

        Of rows to be scored -1, or NaN. Raises DataError for damage, and for what is no class or not finite.
        """
        if not self.y:
            out.fill(np.nan if out.dtype.kind == "f" else -1)
            return
        for stored, first, last, rows in self._parts(self.y, start, stop):
            self._turn_to(stored, "y of rows")
            if out.dtype.kind == "f":
                self._read_targets(stored, first, last, out[rows])
                continue
            # As they are: a class that is too large for int32 must not become another one.
            labels = np.empty((last - first, width((1, *stored.row_shape))), stored.dtype)
            stored.read(first, last, labels)
            codes = _classes_of(stored, first, labels)
            self._check_classes(stored, first, codes)
            out[rows] = codes

    def _read_less_base(
        self, stored: StoredRows, first: int, last: int, base: np.ndarray, out: np.ndarray
    ) -> None:
        numbers = np.empty(out.shape)
        stored.read(first, last, numbers)
        check_finite(stored, first, numbers)
        with np.errstate(over="ignore"):
            np.subtract(numbers, base, out=out, casting="same_kind")
        check_finite(stored, first, out)

    def _read_targets(self, stored: StoredRows, first: int, last: int, out: np.ndarray) -> None:
        """In float64, so that large targets that differ by little keep their digits, and then as they are wanted."""
        targets = np.empty(out.shape)
        stored.read(first, last, targets)
        check_finite(stored, first, targets)
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = self.target_scale.scaled(targets)
        wrong = np.flatnonzero(~np.isfinite(out).all(axis=1))
        if wrong.size and self.target_scale.log.any():
            raise DataError(
                f"{stored.path}: {stored.name}: row {first + wrong[0]}: expected targets whose logarithm can be taken, "
                f"above -1, got {targets[wrong[0]].tolist()}"
            )
        check_finite(stored, first, out)

    def will_need(self, start: int, stop: int) -> None:
        """Have the system read the inputs of rows [start, stop) ahead of their use."""
        for files in self.inputs.values():
            for stored, first, last, _ in self._parts(files, start, stop):
                stored.will_need(first, last)

    def place_of(self, row: int) -> str:
        """File, data set and row there of ``y``, for a message."""
        ((stored, first, _, _),) = self._parts(self._counted, row, row + 1)
        return f"{stored.path}: {stored.name}: row {first}"

    def _parts(
        self, files: list[StoredRows], start: int, stop: int
    ) -> Iterator[tuple[StoredRows, int, int, slice]]:
        """Yield (file, first, last, place) for the files that rows [start, stop) lie in.

        first and last count in the file; place is a slice that counts from ``start``.
        """
        number, first = bisect_right(self._ends, start), start
        while first < stop:
            stored, end = files[number], self._ends[number]
            begin, last = end - stored.row_count, min(stop, end)
            if first < last:
                yield stored, first - begin, last - begin, slice(first - start, last - start)
            number, first = number + 1, last

    def _turn_to(self, stored: StoredRows, name: str) -> None:
        """Only the file that is being read keeps a chunk in memory: there may be thousands of them."""
        if (before := self._reading.get(name, stored)) is not stored:
            before.forget()
        self._reading[name] = stored

    def _check_classes(self, stored: StoredRows, first: int, labels: np.ndarray) -> None:
        limit = self.class_count or np.iinfo(np.int32).max
        wrong = np.flatnonzero((labels < 0) | (labels >= limit))
        if wrong.size:
            row, label = first + wrong[0], labels[wrong[0]]
            expected = f"a class from 0 to {self.class_count - 1}, got"
            if not self.class_count:
                expected = "a class from 0 up, got"
                if label >= limit:
                    expected = f"fewer classes than the {self.row_count} rows, got class"
            hint = ""
            if label < 0:
                words = f"--no-label={label} --missing drop"
                hint = f"; if it means none: {prepare_line(stored.path, words)}"
            raise DataError(
                f"{stored.path}: {stored.name}: row {row}: expected {expected} {label}{hint}"
            )


def _classes_of(stored: StoredRows, first: int, labels: np.ndarray) -> np.ndarray:
    """Classes of rows from ``first`` on, of labels of shape (rows, width). Raises DataError."""
    codes, wrong = classes_of(labels)
    if not wrong.any():
        return codes
    row = int(wrong.argmax())
    is_one = labels.shape[1] == 1
    expected = "a whole number, the class" if is_one else "one 1, at the class, and else 0"
    raise DataError(
        f"{stored.path}: {stored.name}: row {first + row}: expected {expected}, got "
        f"{one_line(labels[row].tolist()[:12]).strip('[]')}; --loss mse takes such numbers as targets"
    )


def check(spec: Input, stored: StoredRows, first: int, block: np.ndarray) -> None:
    """``block``, of shape (rows, any), holds rows ``first`` of ``stored`` and those behind it. Raises DataError."""
    if spec.kind != "numbers":
        check_codes(spec, stored, first, block)
    elif block.dtype.kind == "f":
        check_finite(stored, first, block)


def check_finite(stored: StoredRows, first: int, block: np.ndarray) -> None:
    """Whether all numbers of a block are finite; see ``check``."""
    if all_finite(block):
        return
    row, column = np.argwhere(~np.isfinite(block))[0]
    raise DataError(
        f"{stored.path}: {stored.name}: row {first + row}: expected finite numbers, got {block[row, column]}"
    )


def check_codes(
    spec: Input, stored: StoredRows, first: int, block: np.ndarray, what: str = "row"
) -> None:
    """Whether all numbers of a block are codes that there are; see ``check``. ``what`` is what ``first`` counts."""
    limits = np.broadcast_to(np.asarray(spec.values), block.shape[1:])
    if not len(block) or ((block.min(axis=0) >= 0) & (block.max(axis=0) < limits)).all():
        return
    row, column = np.argwhere((block < 0) | (block >= limits))[0]
    raise DataError(
        f"{stored.path}: {stored.name}: {what} {first + row}: expected a code from 0 to {limits[column] - 1}, got "
        f"{block[row, column]}"
    )
