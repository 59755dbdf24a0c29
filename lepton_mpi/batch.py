"""What the loader hands to a model."""

from collections.abc import Mapping
from math import prod
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["numbers", "tokens", "categories"]


class Input(NamedTuple):
    """What a named array of a batch holds.

    Attributes
    ----------
    kind : {"numbers", "tokens", "categories"}
        Numbers are of the batch's float type; tokens and categories int32, codes from 0 up.
    shape : tuple of int
        Of one row.
    values : int or tuple of int
        How many codes there are: one number for all elements of a row, or one for each of them; 0 for numbers.
    """

    kind: Kind
    shape: tuple[int, ...]
    values: int | tuple[int, ...] = 0

    @property
    def size(self) -> int:
        """Elements of a row."""
        return prod(self.shape)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many codes there are for each element of a row, in order; nothing for numbers."""
        if self.kind == "numbers":
            return ()
        return (self.values,) * self.size if isinstance(self.values, int) else self.values


class Batch(NamedTuple):
    """Rows for one call. All arrays hold until the next batch: their memory is used again.

    Attributes
    ----------
    x : shape (rows, *row shape), or with ``places`` (any, features)
        The input ``x``, or the first where the data have none of that name.
    y : int32, shape (rows,), classes; or of x's dtype, shape (rows, targets); or int32, shape (rows, length)
        The last are the next tokens; one that is negative does not count.
    rows : int64, shape (rows,), or None
        Number of each row in its data set, in training; with ``draw`` it names this row in this step. Not its place
        in the epoch's order: the number is what rows are read by, and stays however batches are cut.
    draw : int
        64 random bits of the step, the same on every rank, from -2**63 up; see ``data.order.draws``.
    places : int64, shape (rows,), or None
        Where in ``x`` the rows are; None, and for models without ``reads_in_place`` always None: they are all of x.
    named : mapping of str to array, or None
        All inputs, where the data have others than ``x``; read ``inputs``, which is never None.
    """

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray | None = None
    draw: int = 0
    places: np.ndarray | None = None
    named: Mapping[str, np.ndarray] | None = None

    @property
    def inputs(self) -> Mapping[str, np.ndarray]:
        """Every input by name, each of shape (rows, *row shape); of a batch without ``places``."""
        return {"x": self.x} if self.named is None else self.named

    def part(self, start: int, stop: int) -> "Batch":
        """Rows [start, stop) of a batch without ``places``; no copies."""
        named = None
        if self.named is not None:
            named = {name: array[start:stop] for name, array in self.named.items()}
        rows = None if self.rows is None else self.rows[start:stop]
        return Batch(self.x[start:stop], self.y[start:stop], rows, self.draw, None, named)


def flat_rows(batch: Batch, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Memory in which the rows of a batch lie, shape (any, features), and their places in it.

    ``places`` are those of a batch that has none: 0, 1, … for every row.
    """
    x = batch.x if batch.x.ndim == 2 else batch.x.reshape(len(batch.x), -1)
    return x, places if batch.places is None else batch.places
