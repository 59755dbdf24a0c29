"""Parameters, optimizer state and configuration in one HDF5 file that is either whole or not there.

    /parameters/<name>      one data set per parameter, in its shape
    /optimizer/<state>      one flat vector per state, in the order of the parameters
    /normalisation/…        shift and scale of the features, as the data file had them
    attributes              format, version, step, epoch, seed, model, configuration (JSON), names (JSON, the
                            order of the flat vector), weights_digest (BLAKE2b, checked on load)

A file is written under a temporary name, synced and renamed, and the folder is synced: a kill at any
moment leaves the previous checkpoint. ``libver='latest'`` and Fletcher32 put a checksum on every byte.
"""

import dataclasses
import json
import os
from pathlib import Path

import h5py
import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.vectors import Layout

_FORMAT, _VERSION = "lepton_mpi checkpoint", 1
_KEPT = 2


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a file holds; ``parameters`` and each state are flat, of shape (layout.size,)."""

    layout: Layout
    parameters: np.ndarray
    state: dict[str, np.ndarray]
    normalisation: tuple[np.ndarray, np.ndarray]
    attributes: dict


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``folder``/step-XXXXXXXX.h5 and remove all but the last two. One rank calls it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.attributes['step']:08d}.h5"
    temporary = path.with_suffix(".tmp")
    with h5py.File(temporary, "w", libver="latest") as file:
        _write(file, checkpoint)
    _sync(temporary)
    os.replace(temporary, path)
    _sync(folder)
    for old in sorted(folder.glob("step-*.h5"))[:-_KEPT]:
        old.unlink()
    return path


def load(path: Path) -> Checkpoint:
    """Read and verify a checkpoint. Raises DataError."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != _FORMAT:
                raise DataError(
                    f"{path}: expected a checkpoint of lepton_mpi, got another HDF5 file"
                )
            if file.attrs["version"] > _VERSION:
                raise DataError(
                    f"{path}: expected version {_VERSION} or lower, got {file.attrs['version']}"
                )
            checkpoint = _read(file)
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint") from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a whole checkpoint: {error}") from None
    digest = checkpoint.layout.digest(checkpoint.parameters)
    if digest != checkpoint.attributes["weights_digest"]:
        raise DataError(
            f"{path}: expected weights of digest {checkpoint.attributes['weights_digest']}, got {digest}: "
            "the file is damaged, take an earlier checkpoint"
        )
    return checkpoint


def _write(file: h5py.File, checkpoint: Checkpoint) -> None:
    named = {
        f"parameters/{name}": view
        for name, view in checkpoint.layout.views(checkpoint.parameters).items()
    }
    named |= {f"optimizer/{name}": vector for name, vector in checkpoint.state.items()}
    named |= dict(
        zip(("normalisation/shift", "normalisation/scale"), checkpoint.normalisation, strict=True)
    )
    for name, array in named.items():
        # A checksum needs chunks, and a chunk at least one element.
        checked = {"chunks": _chunk(array), "fletcher32": True} if array.size and array.ndim else {}
        file.create_dataset(name, data=array, **checked)
    digest = checkpoint.layout.digest(checkpoint.parameters)
    names = json.dumps(list(checkpoint.layout.shapes))
    own = {"format": _FORMAT, "version": _VERSION, "weights_digest": digest, "names": names}
    for key, value in (checkpoint.attributes | own).items():
        file.attrs[key] = value


def _chunk(array: np.ndarray) -> tuple[int, ...]:
    """The whole array, or as many of its rows as make about 8 MiB."""
    row_bytes = max(1, array.nbytes // len(array))
    return (min(len(array), max(1, (8 << 20) // row_bytes)), *array.shape[1:])


def _read(file: h5py.File) -> Checkpoint:
    arrays = {name: file[f"parameters/{name}"][()] for name in json.loads(file.attrs["names"])}
    layout = Layout({name: array.shape for name, array in arrays.items()})
    return Checkpoint(
        layout,
        np.concatenate([array.reshape(-1) for array in arrays.values()]),
        {name: dataset[()] for name, dataset in file["optimizer"].items()},
        (file["normalisation/shift"][()], file["normalisation/scale"][()]),
        {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in file.attrs.items()
        },
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
