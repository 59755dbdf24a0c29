"""Arrays by name as files that other programs read: ``.safetensors``, ``.npz``, and ``.weights.h5`` of Keras 3; the twin of ``parameter_files.py``.

A file is written under a temporary name in its folder, synced and renamed: it is there in full, or not at all. All raise OSError.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from lepton_mpi.durable import PatientFile, replacing

Arrays = Mapping[str, NDArray[Any]]
# Types by their names in safetensors.
_KINDS = {"float32": "F32", "float64": "F64"}


def write(path: Path, fill: Callable[[Path], None]) -> None:
    """``fill`` writes to the path that it is given, which then takes the place of ``path``."""
    with replacing(path) as temporary:
        fill(temporary)


def write_bytes(path: Path, *parts: bytes) -> None:
    """Their bytes one behind the other."""

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)

    write(path, fill)


class Stored(NamedTuple):
    """Numbers as a safetensors file has them.

    Attributes
    ----------
    kind : str
        "F32" and its like, see the format.
    shape : tuple of int
    numbers : bytes
        Little-endian, in C order.
    """

    kind: str
    shape: tuple[int, ...]
    numbers: bytes


def write_safetensors(path: Path, arrays: Arrays, about: Mapping[str, str]) -> None:
    """float32 and float64 arrays; ``about`` becomes the file's metadata, in its order, which the library leaves to chance."""
    stored = {
        name: Stored(_KINDS[array.dtype.name], array.shape, little_endian(array))
        for name, array in arrays.items()
    }
    write_stored(path, stored, about)


def little_endian(array: NDArray[Any]) -> bytes:
    """The numbers of an array, in C order."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def write_stored(path: Path, stored: Mapping[str, Stored], about: Mapping[str, str]) -> None:
    """The same of numbers of any type.

    A file is the length of a JSON, the JSON, with spaces behind it up to a multiple of 8 bytes, and the numbers.
    Source: github.com/huggingface/safetensors, README, section Format.
    """
    header: dict[str, Any] = {"__metadata__": dict(about)}
    start = 0
    for name, one in stored.items():
        stop = start + len(one.numbers)
        of_array = {"dtype": one.kind, "shape": list(one.shape)}
        header[name] = of_array | {"data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = [one.numbers for one in stored.values()]
    write_bytes(path, len(text).to_bytes(8, "little"), text, *numbers)


def write_npz(path: Path, arrays: Arrays) -> None:
    """Names may have slashes."""

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    write(path, fill)


def write_keras(path: Path, arrays: Arrays) -> None:
    """Names are paths of variables, ``layers/dense_1/vars/0``."""

    def fill(temporary: Path) -> None:
        with closing(PatientFile(temporary)) as raw, h5py.File(raw, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)

    write(path, fill)
