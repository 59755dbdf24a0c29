"""Columns that look like no feature: they count or number the rows, name them, or spell one text in several ways.

They are warned of, and stay: only the user knows what a column means.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.prepare.readers import Source

if TYPE_CHECKING:
    from lepton_mpi.prepare.labels import Labels
    from lepton_mpi.prepare.survey import Survey

# Rows of a block that rule out most columns, and columns of a block that are looked at further.
_FIRST_ROWS, _COLUMNS_MAX = (2, 16, 64), 32
# So many equal pairs of rows are to be expected of a column before it is no chance that there is none.
_PAIRS_MIN = 12
# Different texts of a column of names.
_NAMES_MIN = 10
# Columns and texts that the report names.
_SHOWN = 40


def counting_in(x: np.ndarray) -> dict[int, tuple[float, float]]:
    """First and last number of each column of a block that rises by 1 from row to row."""
    if len(x) < 2:
        return {j: (value, value) for j, value in enumerate(x[0].tolist())} if len(x) else {}
    with np.errstate(over="ignore", invalid="ignore"):
        likely = np.flatnonzero(x[1] - x[0] == 1).tolist()
        return {j: (x[0, j], x[-1, j]) for j in likely if (np.diff(x[:, j]) == 1).all()}


def counting_columns(
    blocks: Sequence[tuple[str, int, Mapping[int, tuple[float, float]]]],
) -> tuple[int, ...]:
    """Columns that count in every file from its first row to its last.

    Parameters
    ----------
    blocks
        Name of the file, number of rows, and ``counting_in`` of each block, in their order.
    """
    blocks = [block for block in blocks if block[1]]
    counting = set.intersection(*(set(found) for _, _, found in blocks))
    for (name, _, before), (next_name, _, after) in pairwise(blocks):
        if name == next_name:
            counting = {j for j in counting if after[j][0] - before[j][1] == 1}
    return tuple(sorted(counting)) if sum(rows for _, rows, _ in blocks) > 2 else ()


def different_in(x: np.ndarray) -> dict[int, np.ndarray]:
    """Columns of a block of which all numbers are whole and different, sorted int64 (rows,) each; at most ``_COLUMNS_MAX``.

    The first rows rule out nearly all columns, so that a block costs little beside its reading.
    """
    if not len(x) or x.dtype.kind not in "fiu":
        return {}
    with np.errstate(invalid="ignore"):
        likely = np.flatnonzero(x[0] == np.floor(x[0]))
        for rows in _FIRST_ROWS:
            first = np.sort(np.ascontiguousarray(x[:rows, likely].T), axis=1)
            is_whole = (first == np.floor(first)).all(axis=1)
            likely = likely[is_whole & (first[:, 1:] != first[:, :-1]).all(axis=1)]
        found: dict[int, np.ndarray] = {}
        for column in likely[:_COLUMNS_MAX].tolist():
            numbers = np.sort(x[:, column])
            is_whole = (numbers == np.floor(numbers)).all() and abs(numbers[[0, -1]]).max() < 2**53
            if is_whole and (numbers[1:] != numbers[:-1]).all():
                found[column] = numbers.astype(np.int64)
    return found


class Numbered:
    """Finds columns that are different in every row of a file, as ids are, whatever order the rows have.

    That is no chance if columns of numbers drawn at random from the same range would have many equal pairs: of n numbers from
    R, n(n-1)/2R pairs are equal on average, and none with a probability of exp(-n(n-1)/2R) (the birthday problem).
    """

    def __init__(self) -> None:
        self._files: dict[str, dict[int, list[np.ndarray]]] = {}
        self._left: set[int] | None = None

    def add(self, name: str, different: Mapping[int, np.ndarray]) -> None:
        """``different_in`` of the next block, which is of the file ``name`` and has rows."""
        self._left = {*different} if self._left is None else self._left & {*different}
        of_file = self._files.setdefault(name, {})
        for columns in self._files.values():
            for column in {*columns} - self._left:
                del columns[column]
        for column in self._left:
            of_file.setdefault(column, []).append(different[column])

    def columns(self) -> tuple[int, ...]:
        """Those columns of the files that were added."""
        return tuple(sorted(column for column in self._left or () if self._numbers_rows(column)))

    def _numbers_rows(self, column: int) -> bool:
        pairs = 0.0
        for of_file in self._files.values():
            numbers = np.sort(np.concatenate(of_file[column]))
            if (numbers[1:] == numbers[:-1]).any():
                return False
            count, width = len(numbers), int(numbers[-1]) - int(numbers[0]) + 1
            pairs += count * (count - 1) / (2 * width)
        return pairs > _PAIRS_MIN


def are_names(texts: Sequence[str], rows: int) -> bool:
    """Whether a column of ``rows`` cells with these different texts names the rows rather than their kinds."""
    return len(texts) > max(_NAMES_MIN, rows // 2)


def spelt_alike(texts: Sequence[str]) -> list[str]:
    """Texts that differ from another one only in upper and lower case, or in blanks.

    >>> spelt_alike(["True", "TRUE", "no", "New York", "New  York"])
    ['New  York', 'New York', 'TRUE', 'True']
    """
    spellings: dict[str, list[str]] = {}
    for text in texts:
        spellings.setdefault(" ".join(text.casefold().split()), []).append(text)
    return sorted(text for alike in spellings.values() if len(alike) > 1 for text in alike)


def odd_columns(source: Source, found: "Survey", labels: "Labels") -> dict[str, Any]:
    """Names of all such features, for the report; of texts that are spelt alike the first ones, by column."""
    names = dict(enumerate(source.columns))
    spelt = {"": labels.class_names}
    spelt |= {names[feature]: texts for feature, texts in found.categories.items()}
    alike = {name: spelt_alike(texts)[:_SHOWN] for name, texts in spelt.items()}
    return {
        "counting": [names.get(feature, f"feature {feature}") for feature in found.counting],
        "numbered": [names.get(feature, f"feature {feature}") for feature in found.numbered],
        "names": [
            names[feature]
            for feature, texts in found.categories.items()
            if feature not in source.categorical and are_names(texts, found.row_count)
        ],
        "alike": {name: texts for name, texts in alike.items() if texts},
    }


def warnings_of(facts: Mapping[str, Any]) -> list[str]:
    """What to say of ``odd_columns``, with the way to leave them out; reports of earlier versions say less."""
    ways = {
        "counting": "count the rows, which may tell the label",
        "numbered": "differ in every row as ids do, which may tell the label",
        "names": "have nearly as many texts as there are rows, as names and ids do",
    }
    told = []
    for kind, what in ways.items():
        if found := facts.get(kind):
            way = f"; --drop-columns {','.join(found[:_SHOWN])}" if facts["columns"] else ""
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            told.append(f"{', '.join(map(repr, found[:_SHOWN]))}{more} {what}{way}")
    for name, texts in facts.get("alike", {}).items():
        where = f"column {name!r}" if name else "classes"
        told.append(f"{where}: differ in case or blanks alone: {', '.join(map(repr, texts))}")
    return told
