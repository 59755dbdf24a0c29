"""IDX files, plain or gzipped, as MNIST and Fashion-MNIST are published.

Two bytes 0, one for the type, one for the number of dimensions; then the dimensions, uint32, and the numbers, all big
endian (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").
"""

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from lepton_mpi.data.files.array_names import SPLIT_WORDS
from lepton_mpi.errors import DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.arrays import ArrayPart, Pair, array_source
from lepton_mpi.prepare.readers.class_folders import files_below
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
# Words in names of files, as of MNIST, EMNIST and QMNIST, and what they mean.
_SPLITS = SPLIT_WORDS | {"test": (*SPLIT_WORDS["test"], "t10k", "test10k", "test50k")}
_LABELS = ("labels", "label")
_OF_NO_SET = {*_LABELS, *("images", "image", "idx1", "idx2", "idx3", "ubyte", "int", "idx", "gz")}


def open_idx(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Pairs of images and labels, in any order, or folders of them; words in their names tell splits. Collective."""
    with world.agreeing():
        arrays = [(one, read_idx(one.path)) for given in inputs for one in _files(given)]
        labels = [(one, array) for one, array in arrays if _are_labels(one, array)]
        images = [(one, array) for one, array in arrays if not _are_labels(one, array)]
        if not images or len(images) != len(labels):
            raise DataError(
                f"{inputs[0].path}: expected a file of labels for each file of images, got {len(images)} of images and "
                f"{len(labels)} of labels"
            )
        parts, notes = [], {}
        for given, x in images:
            y = _labels_of(given, labels, len(images))
            if y.ndim == 2 and y.shape[1] > 1 and options.task != "regression":
                notes["the class is the first number of each label"] = None
                y = y[:, 0]
            parts.append(ArrayPart(given.path.name, _split(given), Pair(x, y), options))
        order = {"train": 0, None: 0, "validation": 1, "test": 2}
        parts.sort(key=lambda part: order[part.split])
        return array_source(parts, "IDX", options, notes=tuple(notes))


def _files(given: Input) -> list[Input]:
    """The file, or those of a folder, each once if it is there packed and unpacked. Raises DataError for several sets."""
    if not given.path.is_dir():
        return [given]
    found: dict[str, Path] = {}
    for path in files_below(given.path):
        name = path.name.lower().removesuffix(".gz")
        if name.endswith(("ubyte", ".idx", "-int")):
            found[name] = found[name] if name in found and path.suffix == ".gz" else path
    sets = {_set_of(path) for path in found.values()}
    if len(sets) > 1:
        names = ", ".join("-".join(one) or "one without a name" for one in sorted(sets))
        raise DataError(
            f"{given.path}: expected one set, got {names}: name the files of one of them"
        )
    return [Input(path, given.split) for _, path in sorted(found.items())]


def _are_labels(given: Input, array: np.ndarray) -> bool:
    return array.ndim == 1 or (
        array.ndim == 2 and any(word in _LABELS for word in _words(given.path))
    )


def _labels_of(
    given: Input, labels: list[tuple[Input, np.ndarray]], image_count: int
) -> np.ndarray:
    """Labels whose file has the name of the images but for the words for what is in it; or the split. Raises DataError."""
    if image_count == 1:
        return labels[0][1]
    same = [y for other, y in labels if _key(other) == _key(given)]
    fitting = same or [y for other, y in labels if _split(other) == _split(given)]
    if len(fitting) != 1:
        raise DataError(f"{given.path}: expected one file of labels for it, got {len(fitting)}")
    return fitting[0]


def _words(path: Path) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", path.name.lower()) if word]


def _key(given: Input) -> tuple[object, ...]:
    """What files of the same rows have in common."""
    return _split(given), *(word for word in _words(given.path) if word not in _OF_NO_SET)


def _set_of(path: Path) -> tuple[str, ...]:
    known = {*_OF_NO_SET, *(word for words in _SPLITS.values() for word in words)}
    return tuple(word for word in _words(path) if word not in known)


def _split(given: Input) -> str | None:
    words = _words(given.path)
    found = (s for s, known in _SPLITS.items() if any(word in known for word in words))
    return given.split or next(found, None)


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
