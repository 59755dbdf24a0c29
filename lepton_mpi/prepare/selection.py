"""Which rows stay, in which split, and why the others do not. Every rank computes the same for all rows."""

from dataclasses import dataclass

import numpy as np

from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.errors import DataError
from lepton_mpi.kernels import counter_random
from lepton_mpi.prepare.labels import Labels
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.splitting import given_splits, split_rows
from lepton_mpi.prepare.survey import Survey

# Stream of the random numbers; class c uses this plus c.
_BALANCE = 10_000


@dataclass(frozen=True)
class Selection:
    """The fate of every row.

    Attributes
    ----------
    splits : int8, shape (rows,)
        Number of the split in SPLITS; -1 where the row is dropped.
    repeats : int32, shape (rows,)
        How often the row is written: 0 if dropped, above 1 only by ``--balance oversample``. Whatever is fitted counts
        them: what a model is trained on has mean 0, and not what was read.
    dropped : dict of str to int
        Rows by the reason.
    duplicates : int
        Rows that stand in the data before, dropped or not.
    leaked : int
        Kept rows of validation and test that stand in training too.
    how_split : str
    """

    splits: np.ndarray
    repeats: np.ndarray
    dropped: dict[str, int]
    duplicates: int
    leaked: int
    how_split: str

    def counts(self) -> dict[str, int]:
        """Rows written, by split."""
        return {name: int(self.repeats[self.splits == i].sum()) for i, name in enumerate(SPLITS)}


def select(found: Survey, labels: Labels, source: Source, options: Options) -> Selection:
    """Missing, duplicates, split, balance, in this order. Raises DataError."""
    dropped: dict[str, int] = {}
    kept = ~found.label_missing
    dropped["without a label"] = int(found.label_missing.sum())
    if options.missing == "drop":
        dropped["with missing values"] = int((kept & found.missing).sum())
        kept &= ~found.missing
    given = given_splits(found)
    first = _first_of_equals(found.hashes, kept, given)
    repeated = kept & ~first & (not source.overlapping)
    if options.drop_duplicates:
        dropped["duplicates"] = int(repeated.sum())
        kept &= ~repeated
    is_final = found.split_cells is not None or source.overlapping
    splits, how = split_rows(kept, given, labels, found.group, options, is_final)
    repeats = (splits >= 0).astype(np.int32)
    if options.balance != "none" and labels.codes is not None:
        chosen = _balanced(splits == 0, labels, options)
        out = (splits == 0) & (chosen == 0)
        dropped["for balance"] = int(out.sum())
        splits[out] = -1
        repeats = np.where(splits == 0, chosen, repeats).astype(np.int32)
    if not (splits == 0).any() and options.like is None:
        gone = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise DataError(
            f"{source.parts[0].name}: expected rows to train on, got none of {found.row_count}"
            + (f"; dropped: {gone}" if gone else "")
            + (
                "; rows to score: --like FILE, with the file that was trained on"
                if not gone
                else ""
            )
        )
    leaked = 0 if source.overlapping else _leaked(found.hashes, splits)
    return Selection(
        splits, repeats, {r: n for r, n in dropped.items() if n}, int(repeated.sum()), leaked, how
    )


def _first_of_equals(hashes: np.ndarray, kept: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Whether a row is the first of those equal to it; rows that the input puts into training come first."""
    rows = np.flatnonzero(kept)
    group = _equal_rows(hashes[rows])
    order = np.lexsort((rows, given[rows], group))
    first = np.zeros(len(kept), bool)
    begins = np.ones(len(rows), bool)
    begins[1:] = np.diff(group[order]) != 0
    first[rows[order[begins]]] = True
    return first


def _equal_rows(hashes: np.ndarray) -> np.ndarray:
    """A number for each row, the same for rows with the same hash."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    in_order = hashes[order]
    differs = np.concatenate([[False], (in_order[1:] != in_order[:-1]).any(axis=1)])[: len(order)]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(differs)
    return number


def _leaked(hashes: np.ndarray, splits: np.ndarray) -> int:
    rows = np.flatnonzero(splits >= 0)
    group = _equal_rows(hashes[rows])
    in_train = np.zeros(group.max(initial=-1) + 1, bool)
    in_train[group[splits[rows] == 0]] = True
    return int((in_train[group] & (splits[rows] > 0)).sum())


def _balanced(train: np.ndarray, labels: Labels, options: Options) -> np.ndarray:
    """How often each training row is written so that all classes that have rows have the same number."""
    repeats = np.zeros(len(train), np.int32)
    rows_of = [np.flatnonzero(train & (labels.codes == c)) for c in range(len(labels.class_names))]
    counts = [len(rows) for rows in rows_of if len(rows)]
    wanted = (max if options.balance == "oversample" else min)(counts, default=0)
    for number, rows in enumerate(rows_of):
        if len(rows):
            each, more = divmod(wanted, len(rows))
            chosen = counter_random.permutation(options.seed, _BALANCE + number, len(rows))[:more]
            repeats[rows] = each
            repeats[rows[chosen]] += 1
    return repeats
