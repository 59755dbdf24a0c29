"""Rows and the labels of files of their own, which join by their order once the rows are counted."""

import dataclasses

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.readers import Source, Words
from lepton_mpi.prepare.readers.label_files import LabelFile
from lepton_mpi.prepare.row_hashes import with_labels
from lepton_mpi.prepare.survey import Survey, joined


def join_labels(found: Survey, source: Source) -> Survey:
    """The survey with the labels of ``source.labels``. Every rank computes the same. Raises DataError."""
    if not source.labels:
        return found
    if len(source.labels) != len(found.sources):
        raise DataError(
            f"--labels: expected labels for each of {', '.join(name for name, _, _ in found.sources)}, got "
            f"{', '.join(labels.name for labels in source.labels)}"
        )
    parts = [
        _fitting(labels, name, rows)
        for labels, (name, _, rows) in zip(source.labels, found.sources, strict=True)
    ]
    first = parts[0]
    if any(
        type(part) is not type(first) or part.ndim != first.ndim
        for part in parts
        if not isinstance(part, Words)
    ):
        raise DataError(
            f"--labels: expected labels of one kind in {', '.join(n.name for n in source.labels)}"
        )
    y = joined(parts) if isinstance(first, Words) else np.concatenate(parts)
    missing = y.codes < 0 if isinstance(y, Words) else _missing(y)
    without = None
    if missing.any():
        without = f"{source.labels[0].name}: row {int(missing.argmax())}"
    return dataclasses.replace(
        found,
        y=y,
        label_missing=missing,
        hashes=with_labels(found.hashes, y),
        first_row_without_label=without,
    )


def _fitting(labels: LabelFile, name: str, rows: int) -> Words | np.ndarray:
    """Labels of a part, without the first if that is a header. Raises DataError."""
    y = labels.y
    count = len(y.codes) if isinstance(y, Words) else len(y)
    if isinstance(y, Words) and count == rows + 1 and labels.header:
        return Words(y.codes[1:], y.texts).kept([text != labels.header for text in y.texts])
    if count != rows:
        raise DataError(
            f"{labels.name}: expected a label for each of the {rows} rows of {name}, got {count}"
        )
    return y


def _missing(y: np.ndarray) -> np.ndarray:
    return np.isnan(y).any(axis=1) if y.dtype.kind == "f" else np.zeros(len(y), bool)
