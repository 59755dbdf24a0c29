"""The rows of one purpose as training sees them: where they are stored, what of them is in memory, and which count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.data.tables import Table

# Memory of every input of some rows, in the order of the inputs.
Slot = tuple[np.ndarray, ...]


class Read(NamedTuple):
    """Rows that form a batch.

    Attributes
    ----------
    x : uint8, uint16, int32, float32 or float64, shape (any, elements of a row)
        Memory that holds the first input of these rows: that of all rows of a table, or of a window of it.
    places : int64, shape (rows,)
        Where in ``x`` each one is.
    y : int32, shape (n,), or floats, shape (n, targets)
        Classes or targets of all rows of the table.
    numbers : int64, shape (rows,)
        Number of each in the table: its place in ``y``, and what its random numbers depend on.
    classes : int32, shape (rows,), or None
        ``y[numbers]``, where that is at hand.
    more : tuple of arrays
        Memory of the other inputs, in which the rows have the same places.
    """

    x: np.ndarray
    places: np.ndarray
    y: np.ndarray
    numbers: np.ndarray
    classes: np.ndarray | None = None
    more: Slot = ()


@dataclass(frozen=True)
class InputRows:
    """One input of all rows of a table.

    Attributes
    ----------
    name, spec : str, Input
    dtype : np.dtype
        In memory: numbers are uint8, or of the batches' type; codes uint8, uint16 or int32.
    memory : shape (n, elements of a row), or None
        Shared by the host; None where rows are streamed.
    """

    name: str
    spec: Input
    dtype: np.dtype
    memory: np.ndarray | None = None

    @property
    def row_bytes(self) -> int:
        return self.spec.size * self.dtype.itemsize


@dataclass(frozen=True)
class Rows:
    """Rows of one purpose: a table and which of its rows count.

    Attributes
    ----------
    table : Table
        Where they are stored.
    inputs : sequence of InputRows
        In the order of ``DataSet.inputs``.
    y : int32, shape (n,), classes; or float32 or float64, shape (n, targets)
        Of the whole table, in memory that the host shares.
    chosen : int64, shape (row_count,), or None
        The rows that count, ascending; None for all.
    """

    table: Table
    inputs: Sequence[InputRows]
    y: np.ndarray
    chosen: np.ndarray | None = None

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
        return Read(self.x, numbers, self.y, numbers, None, self.more)

    def new_slot(self, count: int) -> Slot:
        """Memory for ``count`` rows."""
        return tuple(np.empty((count, rows.spec.size), rows.dtype) for rows in self.inputs)

    def read_into(self, slot: Slot, table: Table, start: int, stop: int, first: int) -> None:
        """Rows [start, stop) of the table into those of ``slot`` from ``first`` on; ``table`` is the thread's own."""
        for rows, out in zip(self.inputs, slot, strict=True):
            table.read(rows.name, start, stop, out[first : first + stop - start])
