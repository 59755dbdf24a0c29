"""One file per format. A reader cuts its files into blocks of rows, and reads any block by itself.

A reader is a function ``open_…(inputs, options, world) -> Source``, collective over ``world``; ``opening.py`` chooses
one by the names of the inputs. All of them yield the same form, a ``Block``; tables (CSV, Parquet, a matrix) come to it
by ``columns.py``, which knows the roles of columns: features, label, group, split, and ``cells.py``.

What a reader promises: the blocks, their order and their bounds depend on inputs and options alone, not on the number
of ranks; ``read`` may be called for any block, at any time, again and again, and raises DataError naming file and place.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lepton_mpi.data.files.class_names import NOTHING, Offered

if TYPE_CHECKING:
    from lepton_mpi.prepare.readers.label_files import LabelFile


@dataclass(frozen=True)
class Words:
    """Cells that are texts, of one column of one block.

    Attributes
    ----------
    codes : int32, shape (rows,)
        Place of each cell in ``texts``; -1 where it is missing.
    texts : tuple of str
        All different.
    """

    codes: np.ndarray
    texts: tuple[str, ...]

    @staticmethod
    def of(cells: Sequence[str | None]) -> "Words":
        """Number the texts in the order in which they first come; None is missing."""
        index: dict[str, int] = {}
        codes = [-1 if cell is None else index.setdefault(cell, len(index)) for cell in cells]
        return Words(np.array(codes, np.int32), tuple(index))

    def kept(self, stays: Sequence[bool]) -> "Words":
        """The same with cells missing whose text does not stay."""
        if all(stays):
            return self
        codes = np.where(stays, np.cumsum(stays) - 1, -1)
        texts = tuple(text for text, stay in zip(self.texts, stays, strict=True) if stay)
        return Words(np.append(codes, -1).astype(np.int32)[self.codes], texts)


@dataclass(frozen=True)
class Block:
    """Some rows of a part.

    Attributes
    ----------
    x : array, shape (rows, *row shape)
        In the type that the source has; of tables float64, NaN where a cell is missing or a text.
    words : dict of int to Words
        Of tables: the features of which some cells here are texts.
    y : Words, or array
        Words: the class of each row. Else int64 of shape (rows,), where the source names the classes; or float64 of
        shape (rows, targets), for regression, NaN where missing.
    group, split : Words or None
        Cells of ``--group`` and ``--split-column``.
    lines : int64, shape (rows,), or None
        Line of each row in its file, from 1; None where the file has no lines, and its rows are counted from
        ``first_row``.
    notes : tuple of str
        What happened to some rows here, in words that are counted over all blocks.
    units : dict of str to dict of str to (int, str)
        Of columns whose texts were read as numbers: for each unit its first row and text.
    """

    x: np.ndarray
    y: "Words | np.ndarray"
    words: dict[int, Words]
    group: Words | None = None
    split: Words | None = None
    lines: np.ndarray | None = None
    first_row: int = 0
    notes: tuple[str, ...] = ()
    units: Mapping[str, Mapping[str, tuple[int, str]]] = field(default_factory=dict)

    @property
    def flat(self) -> np.ndarray:
        """``x`` of shape (rows, features); a block of a table may have no row, as one of empty lines."""
        return self.x.reshape(len(self.x), int(np.prod(self.x.shape[1:], dtype=np.int64)))

    def place(self, row: int) -> str:
        """Where a row stands, for a message."""
        if self.lines is None:
            return f"row {self.first_row + row}"
        return f"line {self.lines[row]}"


class Part(Protocol):
    """One file, or one array or folder of it."""

    name: str  # for messages, as the user would find it
    split: str | None  # train, validation or test, if the input says which
    block_count: int

    def read(self, index: int) -> Block:
        """Block ``index`` of this part. Raises DataError."""

    def close(self) -> None:
        """Let go of the file, which a later ``read`` opens again."""


class RowPart(ABC):
    """A part whose blocks are runs of rows; see ``Part``. A subclass says what ``read_rows`` reads.

    Parameters
    ----------
    name, split
        As in ``Part``.
    row_count, row_bytes, block_bytes : int
        What decides the blocks.
    """

    def __init__(
        self, name: str, split: str | None, row_count: int, row_bytes: int, block_bytes: int
    ) -> None:
        self.name, self.split = name, split
        self._bounds = block_bounds(row_count, row_bytes, block_bytes)

    @property
    def block_count(self) -> int:
        return len(self._bounds)

    def read(self, index: int) -> Block:
        """Block ``index``. Raises DataError."""
        return self.read_rows(*self._bounds[index])

    @abstractmethod
    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop). Raises DataError."""

    def close(self) -> None:  # noqa: B027  most have no file
        """Let go of the file, if there is one."""


@dataclass(frozen=True)
class Source:
    """All inputs together.

    Attributes
    ----------
    parts : tuple of Part
        In the order of their rows.
    row_shape : tuple of int
    columns : tuple of str
        Names of the features of a table; else empty, and the rows are arrays.
    label : str
        What the label is called, for messages.
    class_names : tuple of str
        If the source names the classes: those of y = 0, 1, ….
    categorical : set of int
        Features of a table that are categories by the user's word.
    dates : set of int
        Features of a table that are dates.
    vocabulary : tuple of str
        Of text: the tokens by id.
    compared_as : np.dtype or None
        Of arrays of several types: the one in which their rows are compared.
    overlapping : bool
        Rows share content by design, as windows of a text do, so duplicates mean nothing.
    notes : tuple of str
        What was found or decided that the user should see.
    decimal : str
        Sign before the decimals of numbers in texts.
    offered : Offered
        Names of the classes by a list beside the labels, used where they are as many, see ``prepare/naming.py``.
    labels : tuple of LabelFile
        Where labels are files of their own: those of each part; ``y`` of the blocks means nothing then.
    has_labels : bool
        False for rows to be scored: ``y`` of the blocks means nothing then.
    reading : dict
        Options that make another file be read as this table was.
    known : dict of int to tuple of str, or None
        Of ``--like``: the categories of the features, whatever texts there are; others are missing if
        ``unknown_is_missing``.
    """

    parts: tuple[Part, ...]
    format: str
    row_shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    label: str = "the label"
    class_names: tuple[str, ...] = ()
    categorical: frozenset[int] = frozenset()
    dates: frozenset[int] = frozenset()
    vocabulary: tuple[str, ...] = ()
    compared_as: np.dtype | None = None
    overlapping: bool = False
    notes: tuple[str, ...] = ()
    decimal: str = "."
    offered: Offered = NOTHING
    labels: tuple["LabelFile", ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[int, tuple[str, ...]] | None = None
    has_labels: bool = True
    unknown_is_missing: bool = False

    @property
    def is_table(self) -> bool:
        return bool(self.columns)

    def close(self) -> None:
        """Let go of all files."""
        for part in self.parts:
            part.close()


def block_bounds(row_count: int, row_bytes: int, block_bytes: int) -> list[tuple[int, int]]:
    """Ranges of rows, each of about ``block_bytes``.

    >>> block_bounds(5, 400, 1000)
    [(0, 2), (2, 4), (4, 5)]
    """
    rows = max(1, block_bytes // max(1, row_bytes))
    return [(start, min(start + rows, row_count)) for start in range(0, row_count, rows)]
