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


@dataclass(frozen=True)
class Labels:
    """``codes`` int32 (rows,), -1 where missing, with ``class_names``; or ``targets`` float64 (rows, k)."""

    codes: np.ndarray | None
    class_names: tuple[str, ...]
    targets: np.ndarray | None = None

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
    names, places = _classes(found.y)
    if not names:
        raise DataError(f"{source.parts[0].name}: {source.label}: expected labels, got none")
    if options.task == "auto":
        _check_are_classes(names, found, source)
    if len(names) < 2:
        raise DataError(f"{source.label}: expected at least 2 classes, got only {names[0]!r}")
    return Labels(np.array([*places, -1], np.int32)[found.y.codes], names)


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
    fractions = [name for name in names if isinstance(plain_number(name), float)]
    many = len(names) > _CLASSES_MAX or len(names) > max(2, found.row_count // 2)
    if fractions or many:
        what = (
            f"{fractions[0]} is no whole number" if fractions else f"{len(names)} different values"
        )
        raise DataError(
            f"{source.parts[0].name}: {source.label}: classes or targets? {what} in {found.row_count} rows; say "
            "--task classification or --task regression"
        )
