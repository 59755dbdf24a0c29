"""Cells of a table as a block of rows, by the roles of their columns; see ``columns.py``."""

import math
from dataclasses import dataclass, field

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Block, Words
from lepton_mpi.prepare.readers.columns import Roles
from lepton_mpi.prepare.written_dates import PARTS, is_time_of_day, parts_of, seconds_of
from lepton_mpi.prepare.written_numbers import Written, unit_of, written_number


@dataclass(frozen=True)
class Cells:
    """Some rows of a table: ``numbers`` (rows, columns) float64, NaN in cells that are missing or texts; ``words`` of
    the columns in which some cell is a text, or is wanted as one."""

    numbers: np.ndarray
    words: dict[int, Words] = field(default_factory=dict)
    lines: np.ndarray | None = None
    first_row: int = 0


def block_of(cells: Cells, roles: Roles, path: object) -> Block:
    """The rows with every column in its place. Raises DataError for a label that should be a number and is none."""
    numbers, texts = cells.numbers, cells.words
    if roles.missing_numbers:
        numbers = np.where(
            np.isin(numbers, np.array(roles.missing_numbers, np.float64)), np.nan, numbers
        )
        texts = {c: _without(words, roles.missing_numbers) for c, words in texts.items()}
    units: dict[str, dict[str, tuple[int, str]]] = {}
    if roles.numbers or roles.dates:
        numbers, texts = _read_texts(numbers, dict(texts), roles, units)
    words = {i: texts[c] for i, c in enumerate(roles.features) if c in texts}
    y = numbers[:, list(roles.labels)]
    x = np.ascontiguousarray(numbers[:, list(roles.features)])
    if any(roles.parts):
        _set_parts(x, roles)
    block = Block(
        x,
        _labels(roles, y, texts),
        words,
        texts.get(roles.group),
        texts.get(roles.split),
        cells.lines,
        cells.first_row,
        units=units,
    )
    for column in roles.labels if roles.numeric_label else ():
        if column in texts:
            row = int(np.flatnonzero(texts[column].codes >= 0)[0])
            text, name = texts[column].texts[0], roles.names[column]
            way = f"; --numbers {name} reads it" if written_number(text, roles.decimal) else ""
            raise DataError(
                f"{path}: {block.place(row)}, column {name!r}: expected a number as the target of --task regression, got "
                f"{text[:40]!r}{way}"
            )
    return block


def _read_texts(
    numbers: np.ndarray,
    texts: dict[int, Words],
    roles: Roles,
    units: dict[str, dict[str, tuple[int, str]]],
) -> tuple[np.ndarray, dict[int, Words]]:
    """Numbers and dates in place of texts that write them; others stay texts. Adds the units of numbers to ``units``."""
    numbers = numbers.copy()
    for column in {*roles.numbers, *roles.dates} & {*texts}:
        words = texts.pop(column)
        if column in roles.dates:
            values = [_seconds(text, roles.dates[column], roles.since) for text in words.texts]
            numbers[words.codes >= 0, column] = np.nan
        else:
            found = [written_number(text, roles.decimal) for text in words.texts]
            values = [number and number.value for number in found]
            units[roles.names[column]] = _units_in(words, found, numbers[:, column])
        known = np.array([*(math.nan if value is None else value for value in values), math.nan])
        numbers[:, column] = np.where(
            np.isnan(known[words.codes]), numbers[:, column], known[words.codes]
        )
        if None in values:
            texts[column] = words.kept([value is None for value in values])
    return numbers, texts


def _seconds(text: str, order: str, since: float) -> float | None:
    """Of a date since ``since``, of a time of day since midnight."""
    seconds = seconds_of(text, order)
    return seconds if seconds is None or is_time_of_day(text) else seconds - since


def _units_in(
    words: Words, found: list[Written | None], plain: np.ndarray
) -> dict[str, tuple[int, str]]:
    """The first row and text of each unit of a column; numbers that are no texts have none."""
    units = {}
    bare = np.flatnonzero(np.nan_to_num(plain))
    if bare.size:
        units[""] = int(bare[0]), f"{plain[bare[0]]:g}"
    for code, number in enumerate(found):
        unit = number and unit_of(number)
        if unit is not None and unit not in units:
            units[unit] = int(np.argmax(words.codes == code)), words.texts[code]
    return units


def _set_parts(x: np.ndarray, roles: Roles) -> None:
    """Year, month, … in place of the seconds, as often as they stand there."""
    for first, part in enumerate(roles.parts):
        if part == PARTS[0]:
            times, places = np.unique(x[:, first], return_inverse=True)
            parts = np.array([parts_of(time) for time in times.tolist()], np.float64)
            x[:, first : first + len(PARTS)] = parts.reshape(-1, len(PARTS))[places]


def _labels(roles: Roles, numbers: np.ndarray, texts: dict[int, Words]) -> Words | np.ndarray:
    if roles.numeric_label:
        return numbers
    # Labels of another file join later.
    return texts[roles.labels[0]] if roles.labels else np.zeros(len(numbers), np.int64)


def _without(words: Words, missing_numbers: tuple[int | float, ...]) -> Words:
    """The same with cells missing that write one of these numbers, in whichever way."""
    return words.kept([plain_number(text) not in missing_numbers for text in words.texts])
