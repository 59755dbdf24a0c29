"""Arrays by name of files that other programs write their parameters to: ``.safetensors``, and ``.weights.h5`` of Keras 3.

Both are data and no programs. A safetensors file is a length, a JSON of names, types, shapes and extents, and the numbers; its library checks that
extents cover the file and fit the shapes. An HDF5 file is looked at like any other from elsewhere, see ``trust.py`` and ``probe.py``. What can run a
program, such as a pickle of torch, is not opened.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from lepton_mpi.data.files import probe, trust
from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.extras import pip_install
from lepton_mpi.wording import one_line, printable

SAFETENSORS, KERAS = ".safetensors", ".weights.h5"
# Suffixes of files that Python's pickle reads, in a zip or not.
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_HDF5 = b"\x89HDF\r\n\x1a\n"


class ParameterFile(NamedTuple):
    """Shapes of arrays by name, and what reads one of them."""

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], NDArray[Any]]


def check_kind(path: Path) -> None:
    """Refuse what is none of these files and no checkpoint either, with how to make one. Raises DataError."""
    if not os.path.exists(path):
        raise DataError(f"{path}: no such file")
    probe.check_regular(path)
    try:
        with path.open("rb") as raw:
            head = raw.read(len(_HDF5))
    except OSError as error:
        raise DataError(f"{path}: not a readable file: {one_line(error)}") from None
    name = path.name
    if name.endswith((SAFETENSORS, KERAS)):
        return
    expected = f"expected a checkpoint, or a file whose name ends in {SAFETENSORS} or {KERAS}"
    if name.endswith(".keras"):
        raise DataError(
            f"{path}: {expected}, got a whole model of Keras; keras.saving.load_model(FILE).save_weights('model{KERAS}') "
            "writes its weights"
        )
    if name.endswith(_PICKLES) or head.startswith((_ZIP, _PICKLE)):
        raise DataError(
            f"{path}: {expected}, got a pickle, which may run any program when it is read; where torch is: "
            "from safetensors.torch import save_file; save_file({name: array.clone().contiguous() for name, array in "
            f"torch.load('{printable(path.name)}', weights_only=True).items()}}, 'model{SAFETENSORS}')"
        )
    if name.endswith(f"{SAFETENSORS}.index.json"):
        raise DataError(f"{path}: {expected}, got a list of several; write them as one file")


def open_safetensors(path: Path) -> ParameterFile:
    """Arrays stay in the file until they are read, as float16, float32 or float64, or float32 for bfloat16.

    Raises DataError, and LauncherError without the library.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise LauncherError(
            f"{path}: is read by the library safetensors: {pip_install('safetensors')}"
        ) from None
    try:
        file = safe_open(path, "numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no mapping
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        types = {name: part.get_dtype() for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a safetensors file: {one_line(error)}") from None

    def read(name: str) -> NDArray[Any]:
        if types[name] == "BF16":
            return _bfloat16(path, name)
        if types[name] not in ("F16", "F32", "F64"):
            raise DataError(f"{printable(name)}: expected floats, got {types[name]}")
        found: NDArray[Any] = file.get_tensor(name)
        return found

    return ParameterFile(shapes, read)


def _bfloat16(path: Path, name: str) -> NDArray[Any]:
    """As float32, of which it is the upper half. The library has checked the extents that the file says."""
    with path.open("rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
        about = json.loads(raw.read(length))[name]
        start, stop = about["data_offsets"]
        raw.seek(8 + length + start)
        upper = np.frombuffer(raw.read(stop - start), "<u2").astype(np.uint32)
    return (upper << 16).view(np.float32).reshape(about["shape"])


def open_keras(path: Path) -> ParameterFile:
    """All arrays of a ``.weights.h5``, in memory; one rank of each host has had it looked at by ``probe.check``. Raises DataError."""
    arrays = {}
    try:
        with h5py.File(path, "r", locking=False) as file:
            things = trust.check(file, path.stat().st_size)
            for name, thing in things.items():
                if trust.is_data_set(thing):
                    with trust.naming(name):
                        arrays[name.strip("/")] = np.asarray(h5py.Dataset(thing)[()])
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, RuntimeError, KeyError) as error:
        raise DataError(f"{path}: not a readable HDF5 file: {one_line(error)}") from None
    if not any(name.startswith("layers/") for name in arrays):
        raise DataError(
            f"{path}: expected weights of a Sequential or Functional model of Keras 3, in a group layers, got "
            f"{one_line(', '.join(sorted(arrays)[:3]) or 'nothing')}; model.save_weights('model{KERAS}') writes them"
        )
    return ParameterFile({name: array.shape for name, array in arrays.items()}, arrays.__getitem__)
