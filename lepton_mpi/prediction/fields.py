"""The columns of the output: their names and types, the same whatever the file."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.errors import ConfigurationError

FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Field:
    """Something that is said of every row.

    Attributes
    ----------
    name : str
        Of the array in npz and HDF5.
    kind : {"number", "text", "choice", "numbers"}
        int64 (rows,); bytes of UTF-8, dtype S (rows,); int32 (rows,), the places of ``texts``; floats (rows, columns).
    columns : tuple of str
        In CSV and Parquet: one for each number of a row.
    dtype : np.dtype
        Of ``numbers``.
    texts : tuple of str
        Of a choice.
    """

    name: str
    kind: Literal["number", "text", "choice", "numbers"]
    columns: tuple[str, ...]
    dtype: np.dtype[Any] = FLOAT64
    texts: tuple[str, ...] = ()

    @property
    def values(self) -> np.ndarray:
        """Of a choice: what is written for each code, int64 if all are whole numbers, else texts."""
        return values_of(self.texts)


def values_of(texts: tuple[str, ...]) -> np.ndarray:
    """Names of classes as numbers, int64, where all of them are written as whole numbers are, else as texts.

    >>> values_of(("0", "7")).tolist(), values_of(("01", "7")).tolist()
    ([0, 7], ['01', '7'])
    """
    if texts and all(_is_whole(text) for text in texts):
        return np.array([int(text) for text in texts], np.int64)
    return np.array(texts or ("",))


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 19 and str(int(text)) == text


def target_names(data: DataSet) -> tuple[str, ...]:
    """Of a regression: names of the targets, or their numbers."""
    names = data.encodings.target_names
    if len(names) == data.target_count:
        return names
    if data.target_count == 1:
        return ("target",)
    return tuple(f"target {number}" for number in range(data.target_count))


def key_field(column: str | None, are_files: bool) -> Field:
    """What names a row: the cell of a column, the name of its file, or its number from 0."""
    if are_files:
        return Field("file", "text", ("file",))
    return Field("key", "text", (column,)) if column else Field("row", "number", ("row",))


SPLIT = Field("split", "choice", ("split",), texts=SPLITS)


def answer_fields(data: DataSet, proba: bool, layer: str | None, width: int) -> list[Field]:
    """What is predicted of a row; ``width`` is that of the layer's activations."""
    names = data.class_names
    if names:
        found = [Field("class", "choice", ("class",), texts=names)]
    else:
        found = [Field("targets", "numbers", target_names(data))]
    if proba:
        columns = tuple(f"probability of {name}" for name in names)
        found.append(Field("probabilities", "numbers", columns, data.dtype))
    if layer is not None:
        columns = tuple(f"{layer} {number}" for number in range(width))
        found.append(Field("embeddings", "numbers", columns, data.dtype))
    return found


def check_names(fields: list[Field]) -> None:
    """Raise ConfigurationError for two columns of one name."""
    counts = Counter(name for field in fields for name in field.columns)
    for name, count in counts.items():
        if count > 1:
            raise ConfigurationError(
                f"--key: expected another column than {name!r}, which is also the name of what is predicted"
            )
