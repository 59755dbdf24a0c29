"""What a file of ``prepare`` says that its numbers stand for, see ``data/encodings.py``; others may name their classes alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.data import encodings
from lepton_mpi.data.files.file_format import CATEGORY_COLUMNS, ENCODING, is_prepared
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

# JSON of what ``prepare`` has fitted: texts of 16 MiB at most, and some numbers for each element of a row.
ENCODING_BYTES_MAX = 1 << 28


def names_of(file: h5py.File, path: Path) -> dict[str, Any]:
    """Fields of ``Encodings``, those of columns and categories, and ``prepared``. Raises DataError."""
    if not is_prepared(file.attrs):
        return {}
    found: dict[str, Any] = {"categories": {}}
    try:
        for field, group in (("columns", "about"), ("input_columns", "about/inputs")):
            found[field] = columns = _texts(file, f"{group}/columns")
            known = file.get(f"{group}/categories")
            places = known if isinstance(known, h5py.Group) else ()
            for place in (name for name in places if name.isdecimal() and int(name) < len(columns)):
                texts = _texts(file, f"{group}/categories/{place}")
                found["categories"][columns[int(place)]] = texts
        if raw := bytes_of(file, ENCODING):
            found |= encodings.of_prepared(raw)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except ValueError as error:
        raise DataError(f"{path}: {ENCODING}: {one_line(error)}") from None
    return found


def category_columns(file: h5py.File, path: Path, inputs: Mapping[str, Input]) -> tuple[str, ...]:
    """Names of the columns of ``inputs/categories``, as ``prepare`` writes them; empty without. Raises DataError."""
    data_set = file.get(CATEGORY_COLUMNS)
    if data_set is None or "categories" not in inputs:
        return ()
    columns = inputs["categories"].size
    is_good = isinstance(data_set, h5py.Dataset) and data_set.dtype.kind in "SO"
    if not is_good or data_set.shape != (columns,):
        raise DataError(
            f"{path}: {CATEGORY_COLUMNS}: expected names of {columns} columns, got {one_line(data_set)}"
        )
    names = (text if isinstance(text, bytes) else str(text).encode() for text in data_set[()])
    return tuple(name.decode(errors="replace") for name in names)


def bytes_of(file: h5py.File, name: str) -> bytes:
    """A data set of uint8 that stands for bytes, such as JSON; empty without it. Raises DataError."""
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset):
        return b""
    if stored.dtype != np.uint8 or stored.ndim != 1 or stored.size > ENCODING_BYTES_MAX:
        raise DataError(
            f"{name}: expected bytes, at most {ENCODING_BYTES_MAX}, got {stored.dtype} of shape {stored.shape}"
        )
    return stored[()].tobytes()


def _texts(file: h5py.File, name: str) -> tuple[str, ...]:
    """A list of texts; empty where there is none."""
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset):
        return ()
    if h5py.check_string_dtype(stored.dtype) is None or stored.ndim != 1:
        raise DataError(
            f"{name}: expected a list of texts, got {stored.dtype} of shape {stored.shape}"
        )
    return tuple(stored.asstr()[()].tolist())
