"""The rows of one purpose as training sees them: where they are stored, what of them is in memory, and which count."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.data.files.stored_rows import StoredRows
from lepton_mpi.data.tables import RowTable
from lepton_mpi.data.windows import Windows
from lepton_mpi.vectors import digest_of

# Of a text that are looked at to know it again: 256 KiB of short tokens.
_STRETCHES, _STRETCH_TOKENS = 128, 1024
# Of other rows: all of a small table, else 64 times 64 KiB.
_WHOLE_BYTES, _PARTS, _PART_BYTES = 16 << 20, 64, 64 << 10
# Memory of every input of some rows, in the order of the inputs.
Slot = tuple[np.ndarray, ...]


class Read(NamedTuple):
    """Rows that form a batch.

    Attributes
    ----------
    x : uint8, uint16, int32, float32 or float64, shape (any, elements of a row)
        Memory that holds the first input of these rows: that of all rows of a table, or of some that were read. Of a text
        its tokens, shape (any,).
    places : int64, shape (rows,)
        Where in ``x`` each one is, or begins.
    y : int32, shape (n,), or floats, shape (n, targets)
        Classes or targets of all rows of the table.
    numbers : int64, shape (rows,)
        Number of each in the table: its place in ``y``, and what its random numbers depend on.
    classes : int32, shape (rows,), or None
        ``y[numbers]``, where that is at hand.
    more : tuple of arrays
        Memory of the other inputs, in which the rows have the same places.
    windows : Windows or None
        Of a text: which tokens the rows are.
    """

    x: np.ndarray
    places: np.ndarray
    y: np.ndarray
    numbers: np.ndarray
    classes: np.ndarray | None = None
    more: Slot = ()
    windows: Windows | None = None


@dataclass(frozen=True)
class InputRows:
    """One input of all rows of a table.

    Attributes
    ----------
    name, spec : str, Input
    dtype : np.dtype
        In memory: numbers are uint8, or of the batches' type; codes uint8, uint16 or int32.
    memory : shape (n, elements of a row), or of a text (tokens,), or None
        Shared by the host; None where rows are streamed.
    more_read : int
        Elements that are read with a row and are none of its own: of a text the token behind it.
    """

    name: str
    spec: Input
    dtype: np.dtype
    memory: np.ndarray | None = None
    more_read: int = 0

    @property
    def width(self) -> int:
        """Elements that are read of a row."""
        return self.spec.size + self.more_read

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize


@dataclass(frozen=True)
class Rows:
    """Rows of one purpose: a table and which of its rows count.

    Attributes
    ----------
    table : RowTable
        Where they are stored.
    inputs : sequence of InputRows
        In the order of ``DataSet.inputs``.
    y : int32, shape (n,), classes; or float32 or float64, shape (n, targets)
        Of the whole table, in memory that the host shares. Of a text shape (n, 0): a row's next tokens are its own memory.
    chosen : int64, shape (row_count,), or None
        The rows that count, ascending; None for all.
    windows : Windows or None
        Of a text: which tokens a row is.
    mapped : StoredRows or None
        Of rows that are mapped from a file: what says whether that is still as it was.
    """

    table: RowTable
    inputs: Sequence[InputRows]
    y: np.ndarray
    chosen: np.ndarray | None = None
    windows: Windows | None = None
    mapped: StoredRows | None = None

    @property
    def x(self) -> np.ndarray | None:
        """Memory of the first input; None where rows are streamed."""
        return self.inputs[0].memory

    @property
    def more(self) -> Slot:
        """Memory of the other inputs."""
        return tuple(rows.memory for rows in self.inputs[1:] if rows.memory is not None)

    @property
    def row_bytes(self) -> int:
        """Of all inputs of a row, in memory."""
        return sum(rows.row_bytes for rows in self.inputs)

    @property
    def row_count(self) -> int:
        return len(self.y) if self.chosen is None else self.chosen.size

    @property
    def indices(self) -> np.ndarray:
        """The rows that count, ascending int64, shape (row_count,); made anew where all do."""
        return np.arange(len(self.y)) if self.chosen is None else self.chosen

    def numbers(self, start: int, stop: int) -> np.ndarray:
        """Numbers of the rows that count in places [start, stop) among them."""
        return np.arange(start, stop) if self.chosen is None else self.chosen[start:stop]

    def read_of(self, numbers: np.ndarray) -> Read:
        """How rows ``numbers``, int64 (r,), are read, if they are in memory."""
        places = self.places_in_memory(numbers)
        return Read(self.x, places, self.y, numbers, None, self.more, self.windows)

    def places_in_memory(self, numbers: np.ndarray) -> np.ndarray:
        """``Read.places`` of rows ``numbers``, if they are in memory."""
        return numbers if self.windows is None else self.windows.place(numbers)[0]

    def read_of_slot(self, slot: Slot, places: np.ndarray, numbers: np.ndarray) -> Read:
        """How rows ``numbers`` are read, which are in these places of ``slot``."""
        if self.windows is None:
            return Read(slot[0], places, self.y, numbers, None, slot[1:])
        tokens, width = slot[0].reshape(-1), slot[0].shape[1]
        return Read(tokens, places * width, self.y, numbers, windows=self.windows)

    def weights(self, numbers: np.ndarray) -> np.ndarray:
        """What each of rows ``numbers`` weighs: int64 (r,); 1, or of a text the next tokens that count."""
        if self.windows is None:
            return np.ones(len(numbers), np.int64)
        return self.windows.weights(numbers)

    @property
    def even_weight(self) -> int | None:
        """What every row weighs; None if some weigh less than others."""
        if self.windows is None:
            return 1
        return self.windows.length if self.windows.is_even else None

    def facts(self) -> dict[str, Any]:
        """What tells these rows from others of the same number, for whoever goes on with them.

        The digest of all classes or targets, which are in memory anyway, tells files that were exchanged or come in another
        order. Of a text, whose tokens may be too many to be looked at, it is that of some stretches of it.
        """
        if self.windows is None:
            return {"y_digest": digest_of(self.y)}
        windows = self.windows
        counts = np.array(windows.token_counts, "<i8")
        stretches = [tokens.astype("<i4") for tokens in self._stretches(sum(windows.token_counts))]
        digest = digest_of(counts, windows.documents.astype("<i8"), *stretches)
        return {"y_digest": digest, "context": windows.length, "stride": windows.stride}

    def features_digest(self) -> str:
        """What tells these rows from others with the same classes or targets: a digest of all their inputs, as they are read.

        Of a table of more than 16 MiB, of 64 stretches of it, spread evenly. Empty for a text, of which ``facts`` has it. Reads the file.
        Raises DataError.
        """
        count, row_bytes = self.table.row_count, max(1, self.row_bytes)
        if self.windows is not None:
            return ""
        length = max(
            1, (_WHOLE_BYTES if count * row_bytes <= _WHOLE_BYTES else _PART_BYTES) // row_bytes
        )
        starts = range(0, count, length)
        if count * row_bytes > _WHOLE_BYTES:
            starts = np.unique(
                np.linspace(0, max(0, count - length), _PARTS, dtype=np.int64)
            ).tolist()
        table, blake = self.table.twin(), hashlib.blake2b(digest_size=16)
        for start in starts:
            stop = min(start + length, count)
            for rows in self.inputs:
                part = np.empty((stop - start, rows.width), rows.dtype)
                table.read(rows.name, start, stop, part)
                blake.update(part.astype(part.dtype.newbyteorder("<"), copy=False).data)
        return blake.hexdigest()

    def _stretches(self, token_count: int) -> Iterator[np.ndarray]:
        """Some tokens of a text: all of a short one."""
        name, table = self.inputs[0].name, self.table.twin()
        for start in np.unique(np.linspace(0, token_count, _STRETCHES, dtype=np.int64)).tolist():
            stop = min(start + _STRETCH_TOKENS, token_count)
            tokens = np.empty(stop - start, np.int32)
            table.read_memory(name, start, stop, tokens)
            yield tokens

    def new_slot(self, count: int) -> Slot:
        """Memory for ``count`` rows."""
        return tuple(np.empty((count, rows.width), rows.dtype) for rows in self.inputs)

    def read_into(self, slot: Slot, table: RowTable, start: int, stop: int, first: int) -> None:
        """Rows [start, stop) of the table into those of ``slot`` from ``first`` on; ``table`` is the thread's own."""
        for rows, out in zip(self.inputs, slot, strict=True):
            table.read(rows.name, start, stop, out[first : first + stop - start])
