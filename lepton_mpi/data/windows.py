"""Windows of a text: which tokens a row is, which of its next tokens count, and what rows weigh. Pure arithmetic.

A text is one stream of tokens for each file of a split. Row k of a file begins at token ``k * stride``::

    stream     0  1  2  3  4  5  6  7  8  9         length 4, stride 4: 3 rows
    row 0      x  x  x  x
               ·  y  y  y  y                        y is x, one token later: the same memory
    row 1                  x  x  x  x
                           ·  y  y  y  y
    row 2                     x  x  x  x            moved back to end with the stream: of its next tokens 6, 7, 8 and 9
                              ·  -  -  -  y         only 9 has not counted before

So with a stride of at most ``length`` every token but the first of a stream counts, once in rows that do not overlap. A row
never reaches into another file. The first token of a document does not count either, since it does not follow from the
document before; a row may reach over documents all the same, so that none is short. What does not count has y = -1.
A stream that is shorter than ``length + 1`` has no rows.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Rows of one split.

    Attributes
    ----------
    token_counts : tuple of int
        Tokens of each file; positions count through all of them.
    length, stride : int
        Tokens of a row, and from one row to the next.
    documents : int64, shape (documents,)
        Positions where a document begins, ascending.
    """

    token_counts: tuple[int, ...]
    length: int
    stride: int
    documents: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @cached_property
    def counts(self) -> list[int]:
        """Rows of each file."""
        return [self._rows_of(tokens) for tokens in self.token_counts]

    @property
    def row_count(self) -> int:
        return sum(self.counts)

    @cached_property
    def _ends(self) -> np.ndarray:
        """Where the rows of each file end: int64, shape (files,)."""
        return np.cumsum(np.array(self.counts, np.int64))

    @cached_property
    def bases(self) -> np.ndarray:
        """Position of the first token of each file: int64, shape (files,)."""
        return np.cumsum(np.array([0, *self.token_counts[:-1]], np.int64))

    def _rows_of(self, tokens: int) -> int:
        last = tokens - 1 - self.length  # where the last row begins
        return 0 if last < 0 else -(-last // self.stride) + 1

    def place(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(starts, skipped) of rows ``numbers``, int64 (rows,) each.

        starts: position of the first token; skipped: how many of the next tokens, from the first on, have counted in the
        row before.
        """
        files = np.zeros(len(numbers), np.int64)
        if len(self.token_counts) > 1:
            files = np.searchsorted(self._ends, numbers, "right")
        ends = self._ends[files]
        of_file = numbers - (ends - np.array(self.counts, np.int64)[files])
        natural = of_file * self.stride
        starts = np.minimum(natural, np.array(self.token_counts, np.int64)[files] - 1 - self.length)
        # Those of the row before reach up to its begin and its length.
        covered = natural - self.stride + self.length - starts
        is_moved = (starts < natural) & (of_file > 0)
        return starts + self.bases[files], np.where(is_moved, np.maximum(covered, 0), 0)

    def weights(self, numbers: np.ndarray) -> np.ndarray:
        """Next tokens that count of rows ``numbers``: int64 (rows,)."""
        starts, skipped = self.place(numbers)
        weights = self.length - skipped
        if self.documents.size:
            ends = np.searchsorted(self.documents, starts + self.length, "right")
            weights -= ends - np.searchsorted(self.documents, starts + skipped, "right")
        return weights

    @cached_property
    def is_even(self) -> bool:
        """Whether all rows weigh the same."""
        moved = (
            (tokens - 1 - self.length) % self.stride
            for tokens, rows in zip(self.token_counts, self.counts, strict=True)
            if rows > 1
        )
        return not self.documents.size and not any(moved)
