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
        with h5py.File(path, "r", locking=False) as file:
            for name, array in arrays.items():
                dataset = file[name]
                if not _lies_there(descriptor, dataset, array) and not _reads_back(dataset, array):
                    text = (
                        f"{name} was not read back as it was written: the disk is not to be trusted"
                    )
                    raise OSError(errno.EIO, text)
    finally:
        os.close(descriptor)


def _lies_there(descriptor: int, dataset: h5py.Dataset, array: np.ndarray) -> bool:
    """Whether the bytes of all chunks are those of the array; ten times as fast as HDF5 reads them. False where that cannot be told."""
    if dataset.chunks is None or dataset.compression or dataset.chunks[1:] != array.shape[1:]:
        return False
    for number in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(number)
        first = chunk.chunk_offset[0]
        part = np.ascontiguousarray(array[first : first + dataset.chunks[0]])
        raw = os.pread(descriptor, part.nbytes, chunk.byte_offset)
        if len(raw) != part.nbytes or not _equal(np.frombuffer(raw, np.uint8), part):
            return False
    return True


def _reads_back(dataset: h5py.Dataset, array: np.ndarray) -> bool:
    """Whether HDF5 reads the array, bit by bit."""
    return all(
        _equal(np.asarray(dataset[place]), np.asarray(array[place])) for place in _pieces(array)
    )


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Bit by bit; NaN is equal to itself."""
    first, second = (np.ascontiguousarray(each).reshape(-1).view(np.uint8) for each in (one, other))
    return np.array_equal(first, second)


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
