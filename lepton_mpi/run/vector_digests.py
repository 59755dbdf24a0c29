"""The manifest of a checkpoint: a digest of each of its vectors, so that what was written is proved, and damage has a name.

    /about/digests    JSON, UTF-8, as uint8: name of the data set to BLAKE2b of its bytes, little-endian, as they are stored

A file is read back before the checkpoint before it is removed: a disk may lose what it has taken without an error.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from lepton_mpi.vectors import digest_of

NAME = "about/digests"
# Bytes that are read back at a time.
_PIECE_BYTES = 8 << 20


def manifest(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """What is stored, uint8."""
    found = {name: _digest(array) for name, array in arrays.items()}
    return np.frombuffer(json.dumps(found).encode(), np.uint8)


def check_written(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Read a file back, from its disk where the system lets go of its copy, and compare every bit. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    with h5py.File(path, "r", locking=False) as file:
        for name, array in arrays.items():
            for place in _pieces(array):
                if _bytes(file[name][place]) != _bytes(array[place]):
                    text = (
                        f"{name} was not read back as it was written: the disk is not to be trusted"
                    )
                    raise OSError(errno.EIO, text)


def damaged(path: Path) -> list[str]:
    """The vectors of a file that cannot be read, or are not those of its manifest; ``manifest`` if that is missing or unreadable.

    For a file that ``probe.check`` has let pass.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            expected = json.loads(file[NAME][()].tobytes())
            return [name for name in expected if _read_digest(file, name) != expected[name]]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return ["manifest"]


def _read_digest(file: h5py.File, name: str) -> str:
    try:
        return _digest(np.asarray(file[name][()]))
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError):
        return ""


def _digest(array: np.ndarray) -> str:
    return digest_of(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")))


def _pieces(array: np.ndarray) -> Iterator[tuple[slice, ...]]:
    """The array in turn; what has no dimension or no element at once."""
    if not array.ndim or not array.size:
        yield ()
        return
    rows = max(1, _PIECE_BYTES // max(1, array.nbytes // len(array)))
    for start in range(0, len(array), rows):
        yield (slice(start, start + rows),)


def _bytes(values: np.ndarray) -> bytes:
    return np.asarray(values).tobytes()
