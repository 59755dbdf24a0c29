"""Names for classes that are whole numbers, by a list beside the labels."""

import dataclasses

import numpy as np

from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Source, Words
from lepton_mpi.prepare.survey import Survey


def name_classes(
    found: Survey, source: Source, known: tuple[str, ...] | None
) -> tuple[Survey, Source]:
    """The survey with classes numbered in the order of the names, and the source that has these; every rank computes the same.

    Nothing changes without such a list, or where it does not fit, which is noted.

    Parameters
    ----------
    found, source
        Labels of rows, and ``source.offered``.
    known
        Of ``--like``: the names of its classes, beside which others are passed over; else None.
    """
    offered, y = source.offered, found.y
    if not offered.texts or known not in (None, offered.texts) or source.labels:
        return found, source
    if isinstance(y, np.ndarray):
        if y.ndim == 2:
            return found, source  # targets
        lowest, highest = 0, len(source.class_names) - 1
        codes = y
    else:
        numbers = _whole_numbers(y)
        if not numbers:
            return found, source
        lowest, highest = min(numbers), max(numbers)
        codes = np.array([*numbers, lowest - 1], np.int64)[y.codes] - lowest
    if offered.first_class(lowest, highest) is None:
        return found, _with_note(source, offered.unused(lowest, highest))
    used = offered.used() + (f", from {lowest} up" * bool(lowest))
    named = dataclasses.replace(_with_note(source, used), class_names=offered.texts)
    return dataclasses.replace(found, y=codes), named


def _whole_numbers(y: Words) -> list[int]:
    """Each text of the labels; nothing unless all are whole numbers."""
    numbers = [plain_number(text) for text in y.texts]
    return numbers if all(isinstance(number, int) for number in numbers) else []


def _with_note(source: Source, note: str) -> Source:
    return dataclasses.replace(source, notes=(*source.notes, note))
