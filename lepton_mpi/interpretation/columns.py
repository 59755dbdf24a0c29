"""Columns of a table as its user knows them: one for each original column, whatever number of features it has become.

    age    plan=basic  plan=plus  plan=pro    sex          features of x
    age    plan                               sex          columns, by what prepare has stored of its encoding

Where nothing is stored, each feature is a column, of its name if it has one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.errors import ConfigurationError


@dataclass(frozen=True)
class Column:
    """One of them.

    Attributes
    ----------
    name : str
    input : str
        The input that it is in.
    features : tuple of int
        Numbers of its elements of a row of the input; several are one-hot.
    categories : tuple of str
        By code, or by feature if they are several; empty for a number.
    """

    name: str
    input: str
    features: tuple[int, ...]
    categories: tuple[str, ...] = field(default=())

    def text(self, values: np.ndarray) -> str:
        """What stands in the cell: ``values``, shape (features,), are numbers or codes as the data file has them."""
        if len(self.features) > 1:
            chosen = np.flatnonzero(values > 0.5)
            return self.categories[chosen[0]] if chosen.size else "missing"
        code = round(float(values[0]))
        if self.categories and 0 <= code < len(self.categories):
            return self.categories[code]
        return f"{values[0]:.5g}"


def has_columns(data: DataSet) -> bool:
    """Whether rows are of columns: no images, no signals, no texts."""
    return all(len(spec.shape) <= 1 and spec.kind != "tokens" for spec in data.inputs.values())


def columns_of(data: DataSet) -> list[Column]:
    """All columns, input by input. Raises ConfigurationError for rows that have none."""
    if not has_columns(data):
        raise ConfigurationError(
            f"{data.paths[0]}: columns: expected rows of a table, got {data.inputs_text}"
        )
    found: list[Column] = []
    for name, spec in data.inputs.items():
        if spec.kind == "categories":
            known = data.encodings.input_columns or tuple(f"category {j}" for j in range(spec.size))
            texts = (data.encodings.categories.get(column, ()) for column in known)
            pairs = enumerate(zip(known, texts, strict=True))
            found += [Column(column, name, (j,), tuple(of)) for j, (column, of) in pairs]
        else:
            found += _of_numbers(data, name, spec.size)
    return found


def raw_numbers(data: DataSet, name: str, rows: np.ndarray) -> np.ndarray:
    """Rows of an input of numbers, as a batch has them, in the numbers of the file: float64, (rows, elements)."""
    start = 0
    for known, spec in data.inputs.items():
        if spec.kind != "numbers":
            continue
        if known == name:
            shift, scale = (part[start : start + spec.size] for part in data.normalisation)
            return rows.reshape(len(rows), -1) / np.where(scale == 0, 1, scale) + shift
        start += spec.size
    raise KeyError(name)


def _of_numbers(data: DataSet, name: str, size: int) -> list[Column]:
    known = data.encodings
    # What prepare has stored is about x.
    facts = json.loads(known.prepared) if known.prepared and name == "x" else {}
    stored = _stored(facts, name) if facts.get("columns") else []
    if sum(len(column.features) for column in stored) == size:
        return stored
    names: Sequence[str] = known.columns if name == "x" and len(known.columns) == size else ()
    names = names or [f"{name} {number}" if size > 1 else name for number in range(size)]
    return [Column(c, name, (j,), known.categories.get(c, ())) for j, c in enumerate(names)]


def _stored(facts: dict[str, Any], name: str) -> list[Column]:
    """By the encoding of a table, see ``prepare/encoding.py``."""
    categories = {int(f): tuple(texts) for f, texts in facts["categories"].items()}
    one_hot, kept = set(facts["one_hot"]), facts["kept"]
    apart = set(categories) if facts["are_apart"] else set()
    found, first = [], 0
    for feature, column in enumerate(facts["columns"]):
        if feature in apart or (kept is not None and not kept[feature]):
            continue
        texts = categories.get(feature, ())
        width = len(texts) if feature in one_hot else 1
        found.append(Column(column, name, tuple(range(first, first + width)), texts))
        first += width
    return found
