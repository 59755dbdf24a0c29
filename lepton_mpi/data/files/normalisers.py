"""What a file says of how its numbers and targets are shifted and scaled."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import DataError


def normalisation_of(
    file: h5py.File, path: Path, name: str, shape: tuple[int, ...], are_bytes: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of an input, float64 of shape (features,); bytes are divided by 255 if the file says nothing. Raises DataError."""
    folder = "normalisation" if name == "x" else f"normalisation/inputs/{name}"
    shift = _normaliser(file, path, f"{folder}/shift", shape, 0.0)
    return shift, _normaliser(file, path, f"{folder}/scale", shape, 1 / 255 if are_bytes else 1.0)


def _normaliser(
    file: h5py.File, path: Path, name: str, shape: tuple[int, ...], default: float
) -> np.ndarray:
    data_set = _within(file, name)
    is_numbers = isinstance(data_set, h5py.Dataset) and data_set.dtype.kind in "iuf"
    if data_set is not None and not is_numbers:
        raise DataError(f"{path}: {name}: expected a data set of numbers")
    expected = f"{path}: {name}: expected finite numbers of shape {shape} or a single one"
    if data_set is not None and data_set.shape not in ((), shape):
        raise DataError(f"{expected}, got shape {data_set.shape}")
    values = np.asarray(default if data_set is None else data_set[()], np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{expected}, got {values[~np.isfinite(values)][0]}")
    return np.array(np.broadcast_to(values, shape)).reshape(-1)  # a copy that may be written to


def _within(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    """What is in a group of the file; None without it; the group's place itself if it is none."""
    thing: Any = file
    for part in name.split("/"):
        if not isinstance(thing, h5py.Group):
            return file  # no data set of numbers
        thing = thing.get(part)
        if thing is None:
            return None
    return thing


def target_scale_of(file: h5py.File, path: Path, target_count: int) -> TargetScale:
    """How targets are trained on; as they are if the file says nothing. Raises DataError."""
    if not target_count:
        return TargetScale.identity(0)
    folder, shape = "normalisation/target", (target_count,)
    shift = _normaliser(file, path, f"{folder}_shift", shape, 0.0)
    scale = _normaliser(file, path, f"{folder}_scale", shape, 1.0)
    log = _normaliser(file, path, f"{folder}_log", shape, 0.0)
    if not scale.all():
        raise DataError(f"{path}: {folder}_scale: expected numbers other than 0, got 0")
    return TargetScale(shift, scale, log != 0)
