"""What the columns of a table are for: features, label, group, split; and blocks made of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Block, Part, Source, Words
from lepton_mpi.prepare.readers.hints import Hints
from lepton_mpi.prepare.written_dates import ORDERS, PARTS, parts_of, seconds_of
from lepton_mpi.prepare.written_numbers import written_number
from lepton_mpi.wording import did_you_mean

# Names of columns that are taken for the label if there is exactly one of them.
_USUAL_LABELS = ("label", "class", "target", "y", "labels", "species", "diagnosis")
# No cell holds a whole number beyond float64.
_LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True)
class Roles:
    """Numbers of the columns of a table by what they are for.

    ``features`` may name a column of dates several times, once for each of its ``parts``; these are empty for others.
    ``numbers`` are columns of texts to be read as numbers, ``dates`` those of dates with the order of day, month and year.
    """

    names: tuple[str, ...]
    features: tuple[int, ...]
    parts: tuple[str, ...]
    labels: tuple[int, ...]
    group: int | None
    split: int | None
    categorical: frozenset[int]  # of the columns
    numeric_label: bool  # for regression
    missing_numbers: tuple[int | float, ...]  # such as -999, among the missing words
    numbers: frozenset[int] = frozenset()
    dates: Mapping[int, str] = field(default_factory=dict)
    decimal: str = "."
    notes: tuple[str, ...] = ()
    has_labels: bool = True

    @property
    def texts(self) -> set[int]:
        """Columns whose cells are wanted as texts, whatever they look like."""
        special = {self.group, self.split} - {None}
        labels = () if self.numeric_label else self.labels
        return {*self.categorical, *special, *labels, *self.dates}

    @property
    def feature_names(self) -> tuple[str, ...]:
        pairs = zip(self.features, self.parts, strict=True)
        return tuple(f"{self.names[column]} {part}".rstrip() for column, part in pairs)

    @property
    def categorical_features(self) -> frozenset[int]:
        """As numbers among the features."""
        return frozenset(i for i, column in enumerate(self.features) if column in self.categorical)

    @property
    def label_name(self) -> str:
        return ", ".join(self.names[column] for column in self.labels)


@dataclass(frozen=True)
class Cells:
    """Some rows of a table: ``numbers`` (rows, columns) float64, NaN in cells that are missing or texts; ``words`` of
    the columns in which some cell is a text, or is wanted as one."""

    numbers: np.ndarray
    words: dict[int, Words] = field(default_factory=dict)
    lines: np.ndarray | None = None
    first_row: int = 0


def choose_roles(
    names: Sequence[str],
    options: Options,
    where: str,
    hints: Hints | None = None,
    decimal: str = ".",
) -> Roles:
    """Roles of the columns by the options. Raises ConfigurationError for names that are no column."""
    hints = hints or Hints()
    number = _Numbering(tuple(names), where, hints)
    are_absent = options.may_lack_labels and not {*names} & {*options.label}
    labels = tuple(number.of("--label", name) for name in options.label if not are_absent)
    if not labels and not options.labels and not are_absent:
        labels = (_guess_label(names, where),)
    if len(labels) > 1 and options.task != "regression":
        raise ConfigurationError("--label: expected one column, or --task regression for several")
    group = number.of("--group", options.group) if options.group else None
    split = number.of("--split-column", options.split_column) if options.split_column else None
    categorical = number.all_of("--categorical", options.categorical)
    as_numbers = number.all_of("--numbers", options.numbers)
    orders = dict(map(_name_and_order, options.dates))
    dates = {number.of("--dates", name): order for name, order in orders.items()}
    used = {*labels, *({group, split} - {None})}
    left_out = _left_out(names, hints, {*used, *categorical, *as_numbers, *dates}, options)
    other = {*used, *number.all_of("--drop-columns", options.drop_columns), *left_out}
    chosen_columns = [number.of("--columns", name) for name in options.columns]
    columns = tuple(c for c in chosen_columns or range(len(names)) if c not in other)
    if chosen_columns:
        left_out = (
            {}
            if len(chosen_columns) + len(used) == len(names)
            else {-1: _others(names, chosen_columns, used)}
        )
    if not columns:
        shown = ", ".join(names[:12])
        raise ConfigurationError(
            f"{where}: expected columns to learn from, got none besides {shown}"
        )
    for column in categorical & other:
        raise ConfigurationError(f"--categorical: expected a feature, got {names[column]!r}")
    numeric = options.task == "regression" and not options.labels and not are_absent
    for flag, chosen in (("--numbers", as_numbers), ("--dates", frozenset(dates))):
        for column in chosen & (categorical | ({group, split} if numeric else {group, split, *labels})):  # fmt: skip
            raise ConfigurationError(f"{flag}: expected a feature, got {names[column]!r}")
    words = map(plain_number, options.words_for_missing)
    missing = tuple(number for number in words if number is not None and abs(number) < _LARGEST)
    by_part = [
        (column, part)
        for column in columns
        for part in (PARTS if column in dates and options.dates_as == "parts" else ("",))
    ]
    notes = (f"label {', '.join(repr(names[column]) for column in labels)}, by its name",) * (bool(labels) and not options.label)  # fmt: skip
    return Roles(
        *(tuple(names), tuple(c for c, _ in by_part), tuple(part for _, part in by_part)),
        *(labels, group, split, categorical, numeric, missing, as_numbers),
        {c: order or _order(names[c], hints.orders.get(c, ())) for c, order in dates.items()},
        decimal,
        (*notes, *([no_labels(options.label)] * are_absent), *left_out.values()),
        not are_absent,
    )


def table_source(
    parts: Sequence[Part], format_name: str, roles: Roles, notes: Sequence[str] = ()
) -> Source:
    """The source of a table's parts."""
    return Source(
        tuple(parts),
        format_name,
        (len(roles.features),),
        roles.feature_names,
        f"the label column {roles.label_name!r}" if roles.has_labels else "no label",
        categorical=roles.categorical_features,
        notes=(*notes, *roles.notes),
        decimal=roles.decimal,
        has_labels=roles.has_labels,
        reading={
            "label": tuple(roles.names[column] for column in roles.labels),
            "columns": tuple(dict.fromkeys(roles.names[column] for column in roles.features)),
            "numbers": tuple(roles.names[column] for column in sorted(roles.numbers)),
            "dates": tuple(f"{roles.names[c]}={order}" for c, order in roles.dates.items()),
        },
    )


def no_labels(names: Sequence[str]) -> str:
    """What to say of inputs without the labels of the file of --like."""
    what = f"no column {' or '.join(map(repr, names))}" if names else "no labels"
    return f"{what}: rows to be scored, written without labels"


def _others(names: Sequence[str], columns: Sequence[int], used: set[int]) -> str:
    """What to say of columns that ``--columns`` does not have."""
    others = [name for c, name in enumerate(names) if c not in {*columns, *used}]
    return f"left out {len(others)} other columns: {', '.join(others[:12])}"


def _left_out(
    names: Sequence[str], hints: Hints, used: set[int], options: Options
) -> dict[int, str]:
    """Columns that are no features, with what to say of them."""
    out = {c: f"left out {names[c]!r}, without name and values" for c in hints.empty - used}
    if options.index_columns == "drop":
        out |= {
            c: f"left out {names[c]!r}, which only numbers the rows (--index-columns keep takes it)"
            for c in hints.index - used
        }
    return dict(sorted(out.items()))


def _name_and_order(word: str) -> tuple[str, str]:
    """A column of ``--dates``, and the order of day, month and year if the word has one."""
    name, sign, order = word.rpartition("=")
    return (name, order) if sign and order in ORDERS else (word, "")


def _order(name: str, possible: Sequence[str]) -> str:
    """The order that the first rows leave. Raises ConfigurationError if they leave several."""
    if len(possible) > 1:
        raise ConfigurationError(
            f"--dates: column {name!r}: dates such as 03/04/2023 may begin by the day or the month: expected "
            f"{' or '.join(f'{name}={order}' for order in possible)}"
        )
    return possible[0] if possible else "ymd"


def block_of(cells: Cells, roles: Roles, path: object) -> Block:
    """The rows with every column in its place. Raises DataError for a label that should be a number and is none."""
    numbers, texts = cells.numbers, cells.words
    if roles.missing_numbers:
        numbers = np.where(
            np.isin(numbers, np.array(roles.missing_numbers, np.float64)), np.nan, numbers
        )
        texts = {c: _without(words, roles.missing_numbers) for c, words in texts.items()}
    if roles.numbers or roles.dates:
        numbers, texts = _read_texts(numbers, dict(texts), roles)
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
    numbers: np.ndarray, texts: dict[int, Words], roles: Roles
) -> tuple[np.ndarray, dict[int, Words]]:
    """Numbers and dates in place of texts that write them; others stay texts."""
    numbers = numbers.copy()
    for column in {*roles.numbers, *roles.dates} & {*texts}:
        words = texts.pop(column)
        if column in roles.dates:
            values = [seconds_of(text, roles.dates[column]) for text in words.texts]
            numbers[words.codes >= 0, column] = np.nan
        else:
            found = [written_number(text, roles.decimal) for text in words.texts]
            values = [number and number.value for number in found]
        known = np.array([*(math.nan if value is None else value for value in values), math.nan])
        numbers[:, column] = np.where(
            np.isnan(known[words.codes]), numbers[:, column], known[words.codes]
        )
        if None in values:
            texts[column] = words.kept([value is None for value in values])
    return numbers, texts


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


@dataclass(frozen=True)
class _Numbering:
    names: tuple[str, ...]
    where: str
    hints: Hints

    def all_of(self, flag: str, names: Sequence[str]) -> frozenset[int]:
        """Numbers of several columns, some of which may have one name together."""
        groups = (self.hints.groups.get(name) or (self.of(flag, name),) for name in names)
        return frozenset(column for group in groups for column in group)

    def of(self, flag: str, name: str) -> int:
        """Number of a column given by name, or by number from 0, from the end if negative."""
        if name in self.names:
            return self.names.index(name)
        count = len(self.names)
        if name.lstrip("-").isdecimal() and -count <= int(name) < count:
            return int(name) % count
        shown = ", ".join(self.names[:12]) + (", …" if count > 12 else "")
        in_record = name in self.hints.first_record
        raise ConfigurationError(
            f"{flag}: {self.where} has no column {name!r}{did_you_mean(name, self.names)}; "
            f"its {count} columns are {shown}"
            + (
                "; the first line holds that word: --header 1 takes it for names"
                if in_record
                else ""
            )
        )


def _guess_label(names: Sequence[str], where: str) -> int:
    usual = [column for column, name in enumerate(names) if name.strip().lower() in _USUAL_LABELS]
    if len(usual) == 1:
        return usual[0]
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    raise ConfigurationError(
        f"{where}: which column is the label? Give --label NAME, or its number from 0, or from the end as -1; "
        f"the {len(names)} columns are {shown}"
    )
