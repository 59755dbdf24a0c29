"""Whether the first record of a table is a header, told from the records below it. Pure.

Each cell of the first record is compared with its column below. A name above values (numbers, dates) speaks for a header;
a text that comes again below it speaks against one; a number above numbers may be either: names of numbers are whole, all
different and rising (0, 1, 2, …, wavelengths, years), and mostly do not fit in with what stands below them.
What cannot be told is asked about, since a wrong guess makes a row of the names, or names of a row.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.written_dates import seconds_of
from lepton_mpi.prepare.written_numbers import NEARLY_ALL, written_number

_WHOLE = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class Guess:
    """``is_header`` is None where it cannot be told; ``why`` is for the report, or for the question."""

    is_header: bool | None
    why: str


def guess_header(
    first: Sequence[str], below: Sequence[Sequence[str]], missing_words: Sequence[str]
) -> Guess:
    """What the first record is.

    Parameters
    ----------
    first : texts
        Its cells.
    below : records
        Some records behind it, each as long as it.
    missing_words : texts
        Cells that hold nothing, beside empty ones.

    >>> guess_header(["a", "b"], [["1", "x"], ["2", "y"]], ()).is_header
    True
    >>> guess_header(["1", "x"], [["2", "x"], ["3", "y"]], ()).is_header
    False
    >>> guess_header(["0", "1", "2"], [["0.5", "-1.5", "1"], ["0.1", "2.5", "0"]], ()).is_header
    True
    """
    columns = [
        _Column.of(cell.strip(), [record[place] for record in below], missing_words)
        for place, cell in enumerate(first)
    ]
    values = [column for column in columns if column.kind == "value above values"]
    above_values = [column for column in columns if column.kind == "name above values"]
    repeated = [column for column in columns if column.kind == "text that comes again"]
    names = [column for column in columns if column.kind == "name above texts"]
    if not values:
        return _of_texts(above_values, repeated, names, bool(below))
    if above_values:
        return _of_both(above_values, values, columns)
    if repeated or not all(column.is_whole for column in values):
        return Guess(False, "line like those below")
    return _of_numbers(values, len(columns))


@dataclass(frozen=True)
class _Column:
    """A cell of the first record and what stands below it."""

    cell: str
    kind: str
    is_whole: bool = False
    has_fractions: bool = False  # most numbers below
    is_outside: bool = False  # of the range of the numbers below

    @staticmethod
    def of(cell: str, below: list[str], missing_words: Sequence[str]) -> "_Column":
        cells = [text.strip() for text in below]
        cells = [text for text in cells if text and text not in missing_words]
        if not cell or cell in missing_words:
            return _Column(cell, "nothing")
        are_values = sum(map(is_value, cells)) >= NEARLY_ALL * len(cells) and bool(cells)
        if not is_value(cell):
            if are_values:
                return _Column(cell, "name above values")
            return _Column(cell, "text that comes again" if cell in cells else "name above texts")
        if are_values and not is_number(cell) and not any(map(_is_date, cells)):
            return _Column(cell, "name above values")  # as of a table with a column for each day
        if not are_values:
            return _Column(cell, "value above texts" if cells else "nothing")
        return _Column(cell, "value above values", *_fit(cell, cells))


def _fit(cell: str, cells: list[str]) -> tuple[bool, bool, bool]:
    """Whether the cell is whole, most numbers below are not, and it lies outside of their range."""
    numbers = [number for number in map(plain_number, cells) if number is not None]
    fractions = sum("." in text or "," in text or "e" in text.lower() for text in cells)
    own = plain_number(cell)
    outside = own is not None and bool(numbers) and not min(numbers) <= own <= max(numbers)
    return bool(_WHOLE.fullmatch(cell)), 2 * fractions > len(cells), outside


def is_value(text: str) -> bool:
    """Whether a cell is a number or a date, however it is written, and so no name."""
    return is_number(text) or _is_date(text)


def is_number(text: str) -> bool:
    """Whether a cell is a number, however it is written."""
    text = text.strip()
    if plain_number(text) is not None or text.lower() in ("nan", "inf", "-inf", "infinity"):
        return True
    if any(written_number(text, decimal) is not None for decimal in ".,"):
        return not text[-1].isalpha()  # "4 cm" may stand in a column of names, as "2nd" does
    return False


def _is_date(text: str) -> bool:
    if not any(letter.isdigit() for letter in text) or is_number(text):
        return False
    return any(seconds_of(text, order) is not None for order in ("dmy", "mdy"))


def _of_texts(above_values: list, repeated: list, names: list, has_rows: bool) -> Guess:
    """No cell of the record is a number above numbers."""
    texts = [column.cell for column in (*above_values, *repeated, *names)]
    if above_values and len(repeated) <= len(above_values):
        return Guess(True, "names above values")
    if 2 * len(repeated) > len(texts) or not texts:
        return Guess(False, "line like those below")
    if repeated:
        return Guess(None, f"{repeated[0].cell!r} comes again below it, other cells do not")
    if len(set(texts)) == len(texts):
        return Guess(True, "texts that do not come again" if has_rows else "texts")
    return Guess(None, "texts above texts, some of them twice")


def _of_both(above_values: list, values: list, columns: list) -> Guess:
    """Names above values beside numbers above numbers."""
    above_fractions = sum(column.is_whole and column.has_fractions for column in values)
    if _rises(values) and (2 * above_fractions >= len(values) or _all_outside(values)):
        return Guess(True, "names above values, whole numbers among them")
    if _rises(values) and len(values) >= 3 and _steps(values):
        return Guess(True, "names above values, numbers in equal steps among them")
    return Guess(
        None,
        f"{above_values[0].cell!r} stands above values as a name would, {values[0].cell!r} as a value would",
    )


def _of_numbers(values: list, width: int) -> Guess:
    """Whole numbers above numbers, and no name above values."""
    if not _rises(values):
        return Guess(False, "line like those below")
    above_fractions = sum(column.has_fractions for column in values)
    question = Guess(None, f"{_shown(values)} may be names or values")
    if int(values[0].cell) in (0, 1) and _steps(values) == 1 and len(values) >= 2:
        if above_fractions >= min(2, len(values)) or (above_fractions and len(values) >= 3):
            return Guess(True, f"{_shown(values)} above values")
        inside = not any(column.is_outside for column in values)
        return Guess(False, "line like those below") if width <= 2 and inside else question
    if above_fractions >= 3 and above_fractions == len(values):
        return Guess(True, "whole numbers above fractions")
    if _all_outside(values) and len(values) >= 3:
        return question
    if 2 <= above_fractions == len(values):
        return question
    return Guess(False, "line like those below")


def _rises(values: list) -> bool:
    """Whether all are whole and each is larger than the one before."""
    if not all(column.is_whole for column in values):
        return False
    numbers = [int(column.cell) for column in values]
    return all(a < b for a, b in pairwise(numbers))


def _steps(values: list) -> int:
    """The step if all are equal, else 0."""
    numbers = [int(column.cell) for column in values]
    steps = {b - a for a, b in pairwise(numbers)}
    return steps.pop() if len(steps) == 1 else 0


def _all_outside(values: list) -> bool:
    return all(column.is_outside for column in values)


def _shown(values: list) -> str:
    cells = [column.cell for column in values]
    return ", ".join(cells) if len(cells) <= 4 else f"{', '.join(cells[:3])}, … {cells[-1]}"
