"""What names and first rows of a table tell of its columns: which only number the rows, which hold dates."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.written_dates import day_numbers, orders_of

# Names that pandas, polars, R and readr give to row numbers and row names.
_INDEX_NAMES = re.compile(
    r"Unnamed: \d+(\.\d+)*|__index_level_\d+__|\.\.\.1|row\.?names|row_names|rowname|level_\d+"
)


@dataclass(frozen=True)
class Hints:
    """Found in the first rows; numbers are those of columns.

    Attributes
    ----------
    index : set of int
        Columns that number or name the rows, and nothing else.
    empty : set of int
        Columns without a name and without a value.
    orders : dict of int to tuple of str
        Of columns of dates: the orders of day, month and year that they can be in.
    first_texts : dict of int to str
        The first text of each column that has one.
    day_numbers : set of int
        Columns of whole numbers such as 20230131.
    groups : dict of str to tuple of int
        Columns that a single name stands for.
    first_record : tuple of str
        Cells of the first record, if there is no header.
    """

    index: frozenset[int] = frozenset()
    empty: frozenset[int] = frozenset()
    orders: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    first_texts: Mapping[int, str] = field(default_factory=dict)
    day_numbers: frozenset[int] = frozenset()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    first_record: tuple[str, ...] = ()


def hints_of(
    header: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[str]], options: Options
) -> Hints:
    """Of texts as they stand in a file.

    Parameters
    ----------
    header
        Names as the file has them, some perhaps empty; nothing if it has none.
    names
        Names of the columns.
    rows
        Some records, each as long as ``names``.
    """
    index, empty, days = set(), set(), set()
    orders: dict[int, tuple[str, ...]] = {}
    first_texts: dict[int, str] = {}
    for column in range(len(names)):
        cells = [row[column].strip() for row in rows]
        texts = [text for text in cells if text and text not in options.words_for_missing]
        name = header[column].strip() if header else "none"
        if not name and rows and not texts:
            empty.add(column)
        elif (not name or _INDEX_NAMES.fullmatch(name)) and names_rows(cells):
            index.add(column)
        if (
            texts
            and not all(plain_number(text) is not None for text in texts)
            and (found := orders_of(texts))
        ):
            orders[column] = found
        if texts:
            first_texts[column] = texts[0]
        if day_numbers(texts):
            days.add(column)
    return Hints(frozenset(index), frozenset(empty), orders, first_texts, frozenset(days))


def names_rows(cells: Sequence[str]) -> bool:
    """Whether every cell is there, no two are alike, and none is a fraction.

    >>> names_rows(["3", "1", "2"]), names_rows(["a", "b", "a"]), names_rows(["0.5", "1.5"])
    (True, False, False)
    """
    numbers = [plain_number(cell) for cell in cells]
    return len(cells) > 1 and len({*cells}) == len(cells) and "" not in cells and not any(
        isinstance(number, float) for number in numbers
    )  # fmt: skip
