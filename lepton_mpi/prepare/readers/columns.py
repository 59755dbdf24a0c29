"""What the columns of a table are for: features, label, group, split; and blocks made of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError, did_you_mean
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, Words

# Names of columns that are taken for the label if there is exactly one of them.
_USUAL_LABELS = ("label", "class", "target", "y", "labels", "species", "diagnosis")


@dataclass(frozen=True)
class Roles:
    """Numbers of the columns of a table by what they are for."""

    names: tuple[str, ...]
    features: tuple[int, ...]
    labels: tuple[int, ...]
    group: int | None
    split: int | None
    categorical: frozenset[int]  # of the columns
    numeric_label: bool  # for regression
    missing_numbers: tuple[float, ...]  # such as -999, among the missing words

    @property
    def texts(self) -> set[int]:
        """Columns whose cells are wanted as texts, whatever they look like."""
        special = {self.group, self.split} - {None}
        return {*self.categorical, *special, *(() if self.numeric_label else self.labels)}

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(self.names[column] for column in self.features)

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


def choose_roles(names: Sequence[str], options: Options, where: str) -> Roles:
    """Roles of the columns by the options. Raises ConfigurationError for names that are no column."""
    number = _Numbering(tuple(names), where)
    labels = tuple(number.of("--label", name) for name in options.label) or (
        _guess_label(names, where),
    )
    if len(labels) > 1 and options.task != "regression":
        raise ConfigurationError("--label: expected one column, or --task regression for several")
    group = number.of("--group", options.group) if options.group else None
    split = number.of("--split-column", options.split_column) if options.split_column else None
    categorical = frozenset(number.of("--categorical", name) for name in options.categorical)
    dropped = {number.of("--drop-columns", name) for name in options.drop_columns}
    other = {*labels, *dropped, *({group, split} - {None})}
    features = tuple(column for column in range(len(names)) if column not in other)
    if not features:
        raise ConfigurationError(
            f"{where}: expected columns to learn from, got none besides {names}"
        )
    for column in categorical & other:
        raise ConfigurationError(f"--categorical: expected a feature, got {names[column]!r}")
    numeric = options.task == "regression"
    missing = tuple(filter(math.isfinite, map(_number, options.missing_words)))
    return Roles(tuple(names), features, labels, group, split, categorical, numeric, missing)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def block_of(cells: Cells, roles: Roles, path: object) -> Block:
    """The rows with every column in its place. Raises DataError for a label that should be a number and is none."""
    numbers = cells.numbers
    if roles.missing_numbers:
        numbers = np.where(np.isin(numbers, roles.missing_numbers), np.nan, numbers)
    words = {i: cells.words[c] for i, c in enumerate(roles.features) if c in cells.words}
    y = numbers[:, list(roles.labels)]
    block = Block(
        np.ascontiguousarray(numbers[:, list(roles.features)]),
        y if roles.numeric_label else cells.words[roles.labels[0]],
        words,
        cells.words.get(roles.group),
        cells.words.get(roles.split),
        cells.lines,
        cells.first_row,
    )
    for column in roles.labels if roles.numeric_label else ():
        if column in cells.words:
            row = int(np.flatnonzero(cells.words[column].codes >= 0)[0])
            text = cells.words[column].texts[0]
            raise DataError(
                f"{path}: {block.place(row)}, column {roles.names[column]!r}: expected a number as the target of "
                f"--task regression, got {text[:40]!r}"
            )
    return block


@dataclass(frozen=True)
class _Numbering:
    names: tuple[str, ...]
    where: str

    def of(self, flag: str, name: str) -> int:
        """Number of a column given by name, or by number from 0, from the end if negative."""
        if name in self.names:
            return self.names.index(name)
        count = len(self.names)
        if name.lstrip("-").isdecimal() and -count <= int(name) < count:
            return int(name) % count
        shown = ", ".join(self.names[:12]) + (", …" if count > 12 else "")
        raise ConfigurationError(
            f"{flag}: {self.where} has no column {name!r}{did_you_mean(name, self.names)}; "
            f"its {count} columns are {shown}"
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
