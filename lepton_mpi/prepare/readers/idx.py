"""IDX files, plain or gzipped, as MNIST and Fashion-MNIST are published.

Two bytes 0, one for the type, one for the number of dimensions; then the dimensions, uint32, and the numbers, all big
endian (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.arrays import ArrayPart, Pair, array_source
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_SPLITS = {"train": "train", "t10k": "test", "test": "test", "val": "validation"}


def open_idx(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Pairs of images and labels, in any order; names that begin by train, t10k or test are that split. Collective."""
    with world.agreeing():
        arrays = [(given, read_idx(given.path)) for given in inputs]
        images = [(given, array) for given, array in arrays if array.ndim > 1]
        labels = [(given, array) for given, array in arrays if array.ndim == 1]
        if not images or len(images) != len(labels):
            raise DataError(
                f"{inputs[0].path}: expected a file of labels for each file of images, got {len(images)} of images and "
                f"{len(labels)} of labels"
            )
        parts = []
        for given, x in images:
            split = _split(given)
            fitting = [y for other, y in labels if _split(other) == split]
            if len(fitting) != 1:
                raise DataError(
                    f"{given.path}: expected one file of labels for it, got {len(fitting)}"
                )
            parts.append(ArrayPart(given.path.name, split, Pair(x, fitting[0]), options))
        order = {"train": 0, None: 0, "validation": 1, "test": 2}
        parts.sort(key=lambda part: order[part.split])
        return array_source(parts, "IDX", options)


def _split(given: Input) -> str | None:
    found = [split for word, split in _SPLITS.items() if given.path.name.startswith(word)]
    return given.split or (found[0] if found else None)


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, in its byte order. Raises DataError."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (OSError, EOFError, zlib.error) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise DataError(f"{path}: cannot be read: {reason}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES or raw[3] == 0:
        raise DataError(
            f"{path}: expected an IDX file, which begins by 0 0, got {raw[:4].hex(' ')}"
        )
    dtype, start = np.dtype(_TYPES[raw[2]]), 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise DataError(
            f"{path}: expected {expected} bytes for an array of shape {shape}, got {len(raw)}: damaged"
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)
