"""From label cells to what is stored as y: class codes with their names, or targets."""

from dataclasses import dataclass

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Source, Words
from lepton_mpi.prepare.survey import Survey
from lepton_mpi.wording import printable

# More classes than this, or more than half as many as rows, are asked about before they are believed.
_CLASSES_MAX = 1000
# More whole numbers than this likewise, unless they are 0, 1, 2, … or 1, 2, 3, …; of a table not more of these either.
_WHOLE_MAX, _COUNTED_MAX = 20, 100


@dataclass(frozen=True)
class Labels:
    """``codes`` int32 (rows,), -1 where missing, with ``class_names``; or ``targets`` float64 (rows, k)."""

    codes: np.ndarray | None
    class_names: tuple[str, ...]
    targets: np.ndarray | None = None

    @property
    def are_there(self) -> bool:
        """False for rows to be scored, of which nobody knows the labels: then both are None."""
        return self.codes is not None or self.targets is not None

    @property
    def y(self) -> np.ndarray:
        """As stored: uint8 or int32 (rows,), or float64 (rows,) or (rows, k)."""
        if self.targets is not None:
            return self.targets[:, 0] if self.targets.shape[1] == 1 else self.targets
        return self.codes.astype(np.uint8 if len(self.class_names) <= 256 else np.int32)


def make_labels(found: Survey, source: Source, options: Options) -> Labels:
    """Classes in the order of their numbers, if all are numbers, else of their letters. Raises DataError."""
    if isinstance(found.y, np.ndarray):
        if found.y.ndim == 2:
            return Labels(None, (), found.y)
        return Labels(found.y.astype(np.int32), source.class_names)
    names, codes = classes_of(found.y)
    if not names:
        raise DataError(f"{source.parts[0].name}: {source.label}: expected labels, got none")
    if options.task == "auto":
        _check_are_classes(names, found, source)
    if len(names) < 2:
        raise DataError(f"{source.label}: expected at least 2 classes, got only {names[0]!r}")
    return Labels(codes, names)


def classes_of(words: Words) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes, and the class of each row, int32, -1 where missing."""
    words = _without_full_stops(words)
    names, places = _classes(words)
    return names, np.array([*places, -1], np.int32)[words.codes]


def _without_full_stops(words: Words) -> Words:
    """The same, with a text that ends by a full stop as the one without where both are there: UCI has such a test file."""
    known = set(words.texts)
    texts = [t[:-1] if t.endswith(".") and t[:-1] in known else t for t in words.texts]
    if texts == list(words.texts):
        return words
    places = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    codes = np.array([*(places[text] for text in texts), -1], np.int32)[words.codes]
    return Words(codes, tuple(places))


def _classes(words: Words) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes, and the class of each text of ``words``."""
    values = [plain_number(text) for text in words.texts]
    are_numbers = all(value is not None for value in values)
    if not are_numbers:
        values = list(words.texts)
    ordered = sorted(set(values))  # so 1 and 1.0 are one class
    place = {value: number for number, value in enumerate(ordered)}
    names = map(repr if are_numbers else printable, ordered)
    return tuple(names), [place[value] for value in values]


def _check_are_classes(names: tuple[str, ...], found: Survey, source: Source) -> None:
    """Raise DataError for labels that may be targets: fractions, and many whole numbers unless they number classes."""
    numbers = [plain_number(name) for name in names]
    fractions = [
        name for name, number in zip(names, numbers, strict=True) if isinstance(number, float)
    ]
    many = len(names) > _CLASSES_MAX or len(names) > max(2, found.row_count // 2)
    if None not in numbers and not fractions and len(names) > _WHOLE_MAX:
        number_classes = numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(numbers) - 1
        many |= not number_classes or (source.is_table and len(names) > _COUNTED_MAX)
    if fractions or many:
        what = (
            f"{fractions[0]} is no whole number" if fractions else f"{len(names)} different values"
        )
        if not fractions and None not in numbers:
            what += f" from {names[0]} to {names[-1]}"
        raise DataError(
            f"{source.parts[0].name}: {source.label}: classes or targets? {what} in {found.row_count} rows; say "
            "--task classification or --task regression"
        )
