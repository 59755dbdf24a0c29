"""What a file says of a text: its stream of tokens, where documents begin, how long a row is, what a token stands for."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.data.files.trust import TEXT_BYTES_MAX
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

_CONTEXT_MAX = 1 << 24


def stream(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """The tokens of a split, in one piece. Raises DataError."""
    data_set = file[name]
    is_good = isinstance(data_set, h5py.Dataset) and data_set.ndim == 1
    if not is_good or data_set.dtype.kind not in "iu":
        raise DataError(f"{path}: {name}: expected a data set of whole numbers of shape (tokens,)")
    return data_set


def document_starts(file: h5py.File, path: Path, split: str) -> h5py.Dataset | None:
    """Where the documents of a split begin, if the file says so; what is in it is not read. Raises DataError."""
    name = f"{split}/document_starts"
    data_set = file.get(name)
    if data_set is None:
        return None
    is_good = isinstance(data_set, h5py.Dataset) and data_set.ndim == 1
    if not is_good or data_set.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {name}: expected a data set of whole numbers of shape (documents,)"
        )
    return data_set


def context(path: Path, tokens: h5py.Dataset) -> int:
    """Tokens of a row as the file has it; 0 where it does not say. Raises DataError."""
    value: Any = tokens.attrs.get("context", 0)
    if not isinstance(value, int | np.integer) or not 0 <= value <= _CONTEXT_MAX:
        raise DataError(
            f"{path}: {tokens.name}: attribute context: expected a whole number of tokens, got {one_line(value)}"
        )
    return int(value)


def vocabulary(file: h5py.File, path: Path, tokens: Input) -> tuple[bytes, ...]:
    """The bytes of text that each token stands for; empty where the file does not say. Raises DataError."""
    content, ends = (file.get(f"vocabulary/{name}") for name in ("bytes", "ends"))
    if content is None and ends is None:
        return ()
    for name, data_set, kinds in (("bytes", content, ("u1",)), ("ends", ends, ("i4", "i8"))):
        is_good = isinstance(data_set, h5py.Dataset) and data_set.ndim == 1
        if not is_good or data_set.dtype.str[1:] not in kinds or data_set.size > TEXT_BYTES_MAX:
            raise DataError(
                f"{path}: vocabulary/{name}: expected numbers of type {kinds[-1]}, of shape (n,), in a group with bytes "
                "and ends"
            )
    text, stops = content[()].tobytes(), ends[()].astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), stops[:-1]])[: len(stops)]
    if (
        len(stops) != tokens.values
        or (stops < starts).any()
        or (starts < 0).any()
        or int(stops[-1]) != len(text)
    ):
        raise DataError(
            f"{path}: vocabulary/ends: expected {tokens.values} ascending numbers, the last {len(text)}, got others"
        )
    return tuple(text[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True))
