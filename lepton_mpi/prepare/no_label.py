"""Numbers in place of labels that mean none, such as -1 or 255: given by ``--no-label``, or asked about where one stands out."""

import dataclasses

import numpy as np

from lepton_mpi.data.files import label_arrays
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Source, Words
from lepton_mpi.prepare.survey import Survey

KEEP = ("none",)


def without_labels(found: Survey, source: Source, options: Options) -> Survey:
    """The survey with those labels missing that mean none. Every rank computes the same.

    Raises DataError where a number stands out and nothing is said of it, ConfigurationError for a word that is no number.
    """
    y, wanted = found.y, options.no_label
    if wanted and wanted != KEEP:
        numbers = [plain_number(word) for word in wanted]
        if None in numbers:
            raise ConfigurationError(
                f"--no-label: expected numbers, or none, got {wanted[numbers.index(None)]!r}"
            )
        return _missing_where(found, y, numbers)
    if not wanted and isinstance(y, Words) and options.task != "regression":
        _ask_about(y, source)
    return found


def _missing_where(found: Survey, y: Words | np.ndarray, numbers: list[int | float]) -> Survey:
    if isinstance(y, Words):
        y = y.kept([plain_number(text) not in numbers for text in y.texts])
        missing = y.codes < 0
    elif y.dtype.kind == "f":
        y = np.where(np.isin(y, numbers), np.nan, y)
        missing = np.isnan(y).any(axis=1)
    else:
        missing = found.label_missing  # one-hot rows have no such numbers
    first = found.first_row_without_label
    if missing.any() and first is None:
        first = f"{found.sources[0][0]}: row {int(missing.argmax())} of all"
    return dataclasses.replace(found, y=y, label_missing=missing, first_row_without_label=first)


def _ask_about(y: Words, source: Source) -> None:
    """Raise DataError if one number stands out of labels that count from 0 or 1."""
    numbers = {plain_number(text) for text in y.texts}
    odd = None if None in numbers else label_arrays.number_apart(numbers)
    if odd is None:
        return
    others = sorted(numbers - {odd})
    codes = [code for code, text in enumerate(y.texts) if plain_number(text) == odd]
    count = int(np.isin(y.codes, codes).sum())
    raise DataError(
        f"{source.parts[0].name}: {source.label}: {odd} beside {others[0]} to {others[-1]}, in {count} rows: a class, or no "
        f"label? --no-label={odd} --missing drop leaves these rows out, --no-label none takes it as a class"
    )
