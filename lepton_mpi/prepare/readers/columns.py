"""What the columns of a table are for: features, label, group, split; and blocks made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Block, Words
from lepton_mpi.wording import did_you_mean

# Names of columns that are taken for the label if there is exactly one of them.
_USUAL_LABELS = ("label", "class", "target", "y", "labels", "species", "diagnosis")
# No cell holds a whole number beyond float64.
_LARGEST = np.finfo(np.float64).max


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
    missing_numbers: tuple[int | float, ...]  # such as -999, among the missing words

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
    labels = tuple(number.of("--label", name) for name in options.label)
    if not labels and not options.labels:
        labels = (_guess_label(names, where),)
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
    numeric = options.task == "regression" and not options.labels
    words = map(plain_number, options.missing_words)
    missing = tuple(number for number in words if number is not None and abs(number) < _LARGEST)
    return Roles(tuple(names), features, labels, group, split, categorical, numeric, missing)


def block_of(cells: Cells, roles: Roles, path: object) -> Block:
    """The rows with every column in its place. Raises DataError for a label that should be a number and is none."""
    numbers, texts = cells.numbers, cells.words
    if roles.missing_numbers:
        numbers = np.where(
            np.isin(numbers, np.array(roles.missing_numbers, np.float64)), np.nan, numbers
        )
        texts = {c: _without(words, roles.missing_numbers) for c, words in texts.items()}
    words = {i: texts[c] for i, c in enumerate(roles.features) if c in texts}
    y = numbers[:, list(roles.labels)]
    block = Block(
        np.ascontiguousarray(numbers[:, list(roles.features)]),
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
            text = texts[column].texts[0]
            raise DataError(
                f"{path}: {block.place(row)}, column {roles.names[column]!r}: expected a number as the target of "
                f"--task regression, got {text[:40]!r}"
            )
    return block


def _labels(roles: Roles, numbers: np.ndarray, texts: dict[int, Words]) -> Words | np.ndarray:
    if roles.numeric_label:
        return numbers
    # Labels of another file join later.
    return texts[roles.labels[0]] if roles.labels else np.zeros(len(numbers), np.int64)


def _without(words: Words, missing_numbers: tuple[int | float, ...]) -> Words:
    """The same with cells missing that write one of these numbers, in whichever way."""
    stays = [plain_number(text) not in missing_numbers for text in words.texts]
    if all(stays):
        return words
    codes = np.where(stays, np.cumsum(stays) - 1, -1)
    kept = tuple(text for text, stay in zip(words.texts, stays, strict=True) if stay)
    return Words(np.append(codes, -1).astype(np.int32)[words.codes], kept)


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
