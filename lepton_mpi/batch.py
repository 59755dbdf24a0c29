"""What the loader hands to a model."""

from typing import Literal, NamedTuple

import numpy as np


class Input(NamedTuple):
    """What a named array of a batch holds.

    Attributes
    ----------
    kind : {"numbers", "tokens", "categories"}
        Numbers are of the batch's float type; tokens and categories int32, codes from 0 up.
    shape : tuple of int
        Of one row.
    values : int or tuple of int
        How many codes there are: of all tokens, or of each category; 0 for numbers.
    """

    kind: Literal["numbers", "tokens", "categories"]
    shape: tuple[int, ...]
    values: int | tuple[int, ...] = 0


class Batch(NamedTuple):
    """Rows for one call. All arrays hold until the next batch: their memory is used again.

    Attributes
    ----------
    x : shape (rows, *row shape), or with ``places`` (any, features)
    y : int32, shape (rows,), classes; or of x's dtype, shape (rows, targets)
    rows : int64, shape (rows,), or None
        Number of each row in its data set, in training; with ``draw`` it names this row in this step. Not its place
        in the epoch's order: the number is what rows are read by, and stays however batches are cut.
    draw : int
        64 random bits of the step, the same on every rank, from -2**63 up; see ``data.order.draws``.
    places : int64, shape (rows,), or None
        Where in ``x`` the rows are; None, and for models without ``reads_in_place`` always None: they are all of x.
    """

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray | None = None
    draw: int = 0
    places: np.ndarray | None = None


def flat_rows(batch: Batch, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Memory in which the rows of a batch lie, shape (any, features), and their places in it.

    ``places`` are those of a batch that has none: 0, 1, … for every row.
    """
    x = batch.x if batch.x.ndim == 2 else batch.x.reshape(len(batch.x), -1)
    return x, places if batch.places is None else batch.places
