"""Checksums by block of rows that lie in one piece, as ``prepare --layout contiguous`` writes them: ``about/checksums/SPLIT/NAME``.

CRC-32 of zlib (ISO 3309), of as many rows as attribute ``rows`` says, the last block perhaps of fewer. By ISA-L, which has vector code for it,
it is computed several times as fast as the rows are copied out of the page cache; by zlib itself it is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from lepton_mpi.data.files import stored, trust
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

try:
    from isal import isal_zlib as zlib
except ImportError:  # not made for this processor
    import zlib

FOLDER = "about/checksums"


class BlockSums(NamedTuple):
    """Rows of a block, and the checksum of each: uint32, shape (blocks,)."""

    rows: int
    sums: np.ndarray

    def fits(self, number: int, content: np.ndarray) -> bool:
        """Whether ``content``, contiguous, is that of block ``number``."""
        return int(self.sums[number]) == checksum(content)


def checksum(content: np.ndarray) -> int:
    """Of the bytes of a contiguous array."""
    return zlib.crc32(content.reshape(-1).view(np.uint8))


def name_of(name: str) -> str:
    """Where the checksums of data set ``name`` are."""
    return f"{FOLDER}/{name.strip('/')}"


def sums_of(path: Path, data_set: h5py.Dataset, file_bytes: int) -> BlockSums | None:
    """Those of a data set in one piece; None if its file has none. Raises DataError for what they cannot be."""
    name = name_of(data_set.name)
    if name not in data_set.file:
        return None
    found = data_set.file[name]
    rows = found.attrs.get("rows") if isinstance(found, h5py.Dataset) else None
    if not isinstance(rows, np.integer) or rows < 1:
        raise DataError(
            f"{path}: {name}: attribute rows: expected at least 1, got {one_line(rows)}"
        )
    blocks = -(-data_set.shape[0] // int(rows))
    if found.dtype != np.uint32 or found.shape != (blocks,):
        raise DataError(
            f"{path}: {name}: expected uint32 of shape ({blocks},), a checksum for each {rows} rows, got {found.dtype} of shape {found.shape}"
        )
    try:
        with trust.naming(name):
            stored.check_places({name: found.id}, file_bytes)
        return BlockSums(int(rows), found[()])
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: {name}: damaged: {one_line(error)}") from None
