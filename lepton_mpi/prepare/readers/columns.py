"""What the columns of a table are for: features, label, group, split."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Part, Source
from lepton_mpi.prepare.readers.hints import Hints
from lepton_mpi.prepare.written_dates import (
    ORDERS,
    PARTS,
    is_time_of_day,
    seconds_of,
    written_time,
)
from lepton_mpi.wording import did_you_mean

# Names of columns that are taken for the label if there is exactly one of them.
_USUAL_LABELS = ("label", "class", "target", "y", "labels", "species", "diagnosis")
# No cell holds a whole number beyond float64.
_LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True)
class Roles:
    """Numbers of the columns of a table by what they are for.

    ``features`` may name a column of dates several times, once for each of its ``parts``; these are empty for others.
    ``numbers`` are columns of texts to be read as numbers, ``dates`` those of dates with the order of day, month and year;
    dates are counted in seconds from ``since``, itself in seconds since 1970.
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
    since: float = 0.0

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
    labels = () if are_absent else _labels(number, options)
    group = number.of("--group", options.group) if options.group else None
    split = number.of("--split-column", options.split_column) if options.split_column else None
    categorical = number.all_of("--categorical", options.categorical)
    as_numbers = number.all_of("--numbers", options.numbers)
    orders = dict(map(_name_and_order, options.dates))
    dates = {number.of("--dates", name): order for name, order in orders.items()}
    orders_of = {
        c: order or _order(names[c], hints.orders.get(c, ())) for c, order in dates.items()
    }
    used = {*labels, *({group, split} - {None})}
    left_out = _left_out(names, hints, {*used, *categorical, *as_numbers, *dates}, options)
    other = {*used, *number.all_of("--drop-columns", options.drop_columns), *left_out}
    wanted = [number.of("--columns", name) for name in options.columns]
    columns = tuple(c for c in wanted or range(len(names)) if c not in other)
    if wanted:
        left_out = _others(names, wanted, used)
    if not columns:
        shown = ", ".join(names[:12])
        raise ConfigurationError(
            f"{where}: expected columns to learn from, got none besides {shown}"
        )
    for column in categorical & other:
        raise ConfigurationError(f"--categorical: expected a feature, got {names[column]!r}")
    numeric = options.task == "regression" and not options.labels and not are_absent
    taken = {group, split} if numeric else {group, split, *labels}
    _check_are_features(names, as_numbers, dates, categorical | taken)
    by_part = _by_part(columns, dates, options)
    since = _since(options, hints, orders_of)
    may_be_dates = sorted(hints.day_numbers & {*columns} - {*dates, *categorical})
    notes = _notes(
        names,
        labels * (not options.label),
        tuple(dates) * (options.dates_as == "seconds"),
        since,
        may_be_dates,
    )
    return Roles(
        *(tuple(names), tuple(c for c, _ in by_part), tuple(part for _, part in by_part)),
        *(labels, group, split, categorical, numeric, _missing_numbers(options), as_numbers),
        orders_of,
        decimal,
        (*notes, *([no_labels(options.label)] * are_absent), *left_out.values()),
        not are_absent,
        since,
    )


def _by_part(
    columns: Sequence[int], dates: Collection[int], options: Options
) -> list[tuple[int, str]]:
    """Each feature as a column and the part of a date that it is, empty for a whole cell."""
    return [
        (column, part)
        for column in columns
        for part in (PARTS if column in dates and options.dates_as == "parts" else ("",))
    ]


def _missing_numbers(options: Options) -> tuple[int | float, ...]:
    """Words for missing cells that are numbers, such as -999."""
    numbers = map(plain_number, options.words_for_missing)
    return tuple(n for n in numbers if n is not None and abs(n) < _LARGEST)


def _labels(number: "_Numbering", options: Options) -> tuple[int, ...]:
    """Columns of the label; none if other files have it. Raises ConfigurationError."""
    labels = tuple(number.of("--label", name) for name in options.label)
    if not labels and not options.labels:
        labels = (_guess_label(number.names, number.where),)
    if len(labels) > 1 and options.task != "regression":
        raise ConfigurationError("--label: expected one column, or --task regression for several")
    return labels


def _check_are_features(
    names: Sequence[str],
    numbers: Collection[int],
    dates: Collection[int],
    taken: Collection[int | None],
) -> None:
    """Raise ConfigurationError for columns that are to be read as numbers and as something else."""
    for flag, chosen in (("--numbers", numbers), ("--dates", dates)):
        for column in chosen:
            if column in taken:
                raise ConfigurationError(f"{flag}: expected a feature, got {names[column]!r}")


def _notes(
    names: Sequence[str],
    guessed_labels: Sequence[int],
    in_seconds: Sequence[int],
    since: float,
    may_be_dates: Sequence[int],
) -> list[str]:
    """What to say of columns by their roles."""
    notes = []
    if guessed_labels:
        notes.append(f"label {', '.join(repr(names[c]) for c in guessed_labels)}, by its name")
    if in_seconds:
        shown = ", ".join(repr(names[column]) for column in in_seconds)
        notes.append(f"{shown} in seconds since {written_time(since)}")
    return notes + [
        f"{names[c]!r} may be dates: --dates {names[c]} reads them" for c in may_be_dates
    ]


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
        dates=frozenset(i for i, column in enumerate(roles.features) if column in roles.dates),
        notes=(*notes, *roles.notes),
        decimal=roles.decimal,
        has_labels=roles.has_labels,
        reading={
            "label": tuple(roles.names[column] for column in roles.labels),
            "columns": tuple(dict.fromkeys(roles.names[column] for column in roles.features)),
            "numbers": tuple(roles.names[column] for column in sorted(roles.numbers)),
            "dates": tuple(f"{roles.names[c]}={order}" for c, order in roles.dates.items()),
            "dates_since": written_time(roles.since),
        },
    )


def no_labels(names: Sequence[str]) -> str:
    """What to say of inputs without the labels of the file of --like."""
    what = f"no column {' or '.join(map(repr, names))}" if names else "no labels"
    return f"{what}: rows to be scored, written without labels"


def _others(names: Sequence[str], columns: Sequence[int], used: set[int]) -> dict[int, str]:
    """What to say of columns that ``--columns`` does not have, if there are any."""
    others = [name for c, name in enumerate(names) if c not in {*columns, *used}]
    return {-1: f"left out {len(others)} other columns: {', '.join(others[:12])}"} if others else {}


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


def _since(options: Options, hints: Hints, orders: Mapping[int, str]) -> float:
    """Where ``--dates-since`` begins to count, in seconds since 1970: the earliest date of the first row, or what it says."""
    if options.dates_since != "first":
        return seconds_of(options.dates_since, "ymd") or 0.0
    texts = {column: hints.first_texts.get(column, "") for column in orders}
    dates = [
        seconds_of(text, orders[column])
        for column, text in texts.items()
        if not is_time_of_day(text)
    ]
    return min((date for date in dates if date is not None), default=0.0)


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
