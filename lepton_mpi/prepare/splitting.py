"""Which split a row is in: by its input, by a column, or at random; a function of the seed, never of the ranks."""

import numpy as np

from lepton_mpi.data.files.array_names import split_of_word
from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.kernels import counter_random
from lepton_mpi.prepare.labels import Labels
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Words
from lepton_mpi.prepare.survey import Survey

DEFAULT = (0.8, 0.1, 0.1)
# Streams of the random numbers; class c uses the first plus c.
_ROWS, _GROUPS = 1_000_000, 3


def given_splits(found: Survey) -> np.ndarray:
    """Split that the input or a column says for each row, int8, -1 where nothing does."""
    if found.split_cells is not None:
        words = found.split_cells
        known = [SPLITS.index(split_of_word(text)) for text in words.texts]
        return np.array(known, np.int8)[words.codes]
    each = [SPLITS.index(split) if split else -1 for split in found.row_splits]
    return np.repeat(np.array(each, np.int8), found.row_counts)


def split_rows(
    kept: np.ndarray,
    given: np.ndarray,
    labels: Labels,
    group: Words | None,
    options: Options,
    is_final: bool,
) -> tuple[np.ndarray, str]:
    """Split of every row, int8, -1 where not kept; and how it came about, in words.

    Rows without a split are divided by the fractions. If the inputs say which rows are for testing but not which are
    for validation, those for training are divided, so that nothing is fitted on validation rows; unless what is given
    ``is_final``.
    """
    splits = np.where(kept, given, -1).astype(np.int8)
    there = {int(split) for split in np.unique(given[kept])}
    fractions = np.array(options.split or DEFAULT)
    free, how = kept & (given < 0), []
    if there - {-1}:
        how.append("as in the source")
        if 2 in there:
            fractions[2] = 0
        if 1 in there:
            fractions[1] = 0
        elif 0 in there and -1 not in there and not is_final:
            free = kept & (given == 0)
    if not fractions.any():  # all was for splits that are there: the rest joins them
        fractions = np.array(options.split or DEFAULT)
    fractions = fractions / fractions.sum()
    if free.any() and (fractions[0] < 1 or (given[free] < 0).any()):
        method = (
            _by_group if group is not None else _by_class if _stratifies(labels, options) else _all
        )
        splits[free] = method(free, labels, group, fractions, options.seed)
        what = {
            _by_group: f"by {options.group}",
            _by_class: "stratified by class",
            _all: "at random",
        }
        how.append(f"{what[method]}, seed {options.seed}")
    return splits, ", training rows divided ".join(how) if len(how) > 1 else "".join(how)


def _stratifies(labels: Labels, options: Options) -> bool:
    return labels.codes is not None and not options.no_stratify


def _by_class(free, labels: Labels, group, fractions, seed: int) -> np.ndarray:
    """Of each class its part goes to each split; what rounding leaves goes by largest remainder over all classes."""
    rows = np.flatnonzero(free)
    out = np.zeros(len(rows), np.int8)
    codes = labels.codes[rows]
    present = np.unique(codes)
    counts = _apportioned(np.array([(codes == c).sum() for c in present]), fractions)
    for code, parts in zip(present, counts, strict=True):
        of_class = np.flatnonzero(codes == code)
        shuffled = of_class[counter_random.permutation(seed, _ROWS + int(code), len(of_class))]
        out[shuffled] = np.repeat(np.arange(3, dtype=np.int8), parts)
    return out


def _all(free, labels, group, fractions, seed: int) -> np.ndarray:
    rows = np.flatnonzero(free)
    out = np.zeros(len(rows), np.int8)
    (parts,) = _apportioned(np.array([len(rows)]), fractions)
    out[counter_random.permutation(seed, _ROWS, len(rows))] = np.repeat(
        np.arange(3, dtype=np.int8), parts
    )
    return out


def _apportioned(sizes: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Whole numbers near ``sizes[i] * fractions[j]``, whose rows add up to ``sizes``; int64 (len(sizes), 3).

    Every split gets the round of its fraction of all rows, up to one row a class; a class with any rows keeps one for
    training. A class that rounding has taken a row of for validation comes last when it takes one for testing.

    >>> _apportioned(np.array([50, 50, 50]), np.array([0.8, 0.1, 0.1])).tolist()
    [[40, 5, 5], [40, 5, 5], [40, 5, 5]]
    >>> _apportioned(np.array([6, 6]), np.array([0.8, 0.1, 0.1])).tolist()
    [[5, 1, 0], [5, 0, 1]]
    """
    exact = np.outer(sizes, fractions)
    parts = np.floor(exact + 1e-9).astype(np.int64)
    wanted = np.round(sizes.sum() * fractions).astype(np.int64)
    given = np.zeros(len(sizes), np.int64)  # rows that rounding gave away: of each class in turn
    for split in (1, 2):
        short = wanted[split] - parts[:, split].sum()
        remainder = exact[:, split] - parts[:, split]
        room = sizes - parts[:, 1:].sum(axis=1) > 1
        order = [
            i
            for i in np.lexsort((np.arange(len(sizes)), -remainder, given))
            if room[i] and remainder[i] > 1e-9
        ]
        chosen = order[: max(0, short)]
        parts[chosen, split] += 1
        given[chosen] += 1
    parts[:, 0] = sizes - parts[:, 1:].sum(axis=1)
    return parts


def _by_group(free, labels, group: Words, fractions, seed: int) -> np.ndarray:
    """Whole groups, in random order, each to the split that lacks most of its part."""
    rows = np.flatnonzero(free)
    codes = group.codes[rows]
    sizes = np.bincount(codes, minlength=len(group.texts))
    wanted, filled = fractions * len(rows), np.zeros(3)
    split_of = np.zeros(len(sizes), np.int8)
    for number in counter_random.permutation(seed, _GROUPS, len(sizes)):
        lack = np.where(fractions > 0, (wanted - filled) / np.maximum(wanted, 1), -np.inf)
        split_of[number] = int(np.argmax(lack))
        filled[split_of[number]] += sizes[number]
    return split_of[codes]
