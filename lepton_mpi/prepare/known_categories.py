"""Codes of cells by the categories of a column that another file has fitted, and what is none of them.

A cell is the category of its text. If there is none of that text, it is the one of its number, so that 3, "3" and "3.0" are one category
whatever the file's format makes of the column; "True" is 1 there and "False" 0, as tables of pandas and Parquet have them.
Of categories that write one number, such as "01" and "1", a cell with neither text is unknown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Words
from lepton_mpi.wording import grouped, one_line

# Texts that a message names, and of each so many letters.
_SHOWN, _LETTERS = 6, 40
_TRUTH = {"true": 1, "false": 0}


@dataclass(frozen=True)
class Unknown:
    """Cells that are no category: how many, and a few of their texts, the first in the order of letters."""

    cells: int = 0
    texts: tuple[str, ...] = ()

    def __add__(self, other: "Unknown") -> "Unknown":
        return Unknown(
            self.cells + other.cells, tuple(sorted({*self.texts, *other.texts})[:_SHOWN])
        )

    @property
    def examples(self) -> str:
        """For a message, with a sign that there may be more."""
        more = " …" * (len(self.texts) == _SHOWN)
        return ", ".join(repr(one_line(text)[:_LETTERS]) for text in self.texts) + more


class CategoryCodes:
    """What a cell's code is: the place of its category in ``texts``."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._by_text = {text: code for code, text in enumerate(texts)}
        numbers = [_number(text) for text in texts]
        counts = Counter(numbers)
        self._by_number = {
            number: code
            for code, number in enumerate(numbers)
            if number is not None and counts[number] == 1
        }

    def of_text(self, text: str) -> float:
        """NaN for no category.

        >>> codes = CategoryCodes(("3", "a", "01", "1"))
        >>> [codes.of_text(text) for text in ("a", "3.0", "1", "1.0", "b")]
        [1, 0, 3, nan, nan]
        """
        code = self._by_text.get(text)
        return self._by_number.get(_number(text), np.nan) if code is None else code

    def of_number(self, value: float) -> float:
        """NaN for no category, and of NaN."""
        code = self._by_text.get(number_text(value))
        return self._by_number.get(value, np.nan) if code is None else code

    def of_cells(self, numbers: np.ndarray, words: Words | None) -> np.ndarray:
        """float64 (rows,), NaN for cells that are missing or unknown. ``numbers`` are those of cells that are no words."""
        values, places = np.unique(numbers, return_inverse=True)
        found = np.array([self.of_number(value) for value in values.tolist()], np.float64)[places]
        if words is None:
            return found
        of_texts = np.array([*map(self.of_text, words.texts), np.nan])
        return np.where(words.codes >= 0, of_texts[words.codes], found)


@lru_cache(maxsize=256)
def codes_for(texts: tuple[str, ...]) -> CategoryCodes:
    """Of these categories, made once."""
    return CategoryCodes(texts)


def are_unknown(codes: np.ndarray, numbers: np.ndarray, words: Words | None) -> np.ndarray:
    """Which cells are there and no category: bool (rows,); ``codes`` are ``of_cells`` of the others."""
    is_there = ~np.isnan(numbers)
    return np.isnan(codes) & (is_there if words is None else is_there | (words.codes >= 0))


def unknown_cells(odd: np.ndarray, numbers: np.ndarray, words: Words | None) -> Unknown:
    """Count and texts of the cells ``odd``, bool (rows,)."""
    codes = np.full(len(odd), -1) if words is None else words.codes
    texts = {words.texts[code] for code in np.unique(codes[odd & (codes >= 0)])} if words else set()
    texts |= {number_text(value) for value in np.unique(numbers[odd & (codes < 0)]).tolist()}
    return Unknown(int(odd.sum()), tuple(sorted(texts)[:_SHOWN]))


def unknown_notes(unknown: Mapping[str, Unknown]) -> list[str]:
    """A line for each column that has some."""
    return [
        f"column {column!r}: {grouped(found.cells)} cell{'s' * (found.cells != 1)} of categories that the model's rows had not, taken as "
        f"missing: {found.examples}"
        for column, found in unknown.items()
    ]


def unknown_facts(columns: Sequence[str], unknown: Mapping[int, Unknown]) -> dict[str, list[str]]:
    """These lines as a fact of the report, if there are any."""
    notes = unknown_notes({columns[feature]: found for feature, found in unknown.items()})
    return {"unknown": notes} if notes else {}


def together(parts: Iterable[Mapping[int, Unknown]]) -> dict[int, Unknown]:
    """By feature, in their order."""
    found: dict[int, Unknown] = {}
    for part in parts:
        for feature, unknown in part.items():
            found[feature] = found.get(feature, Unknown()) + unknown
    return dict(sorted(found.items()))


def number_text(value: float) -> str:
    """A number as a file has it: whole ones without a point.

    >>> [number_text(value) for value in (3.0, -0.5, 1e20)]
    ['3', '-0.5', '1e+20']
    """
    is_whole = abs(value) < 2**53 and value == int(value)
    return str(int(value)) if is_whole else repr(value)


def _number(text: str) -> int | float | None:
    number = plain_number(text)
    return _TRUTH.get(text.strip().lower()) if number is None else number
