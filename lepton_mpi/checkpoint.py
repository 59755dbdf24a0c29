"""Parameters, optimizer state and configuration in one HDF5 file that is either whole or not there.

    /parameters/<name>      one data set per parameter, in its shape
    /optimizer/<state>      one flat vector per state, in the order of the parameters
    /normalisation/…        shift and scale of the features, as the data file had them
    attributes              format, version, step, epoch, seed, model, configuration (JSON), names (JSON, the
                            order of the flat vector), weights_digest, content_digest (BLAKE2b of all, checked on load)

A file is written under a temporary name, synced and renamed, and the folder is synced: a kill at any
moment leaves the previous checkpoint. ``libver='latest'`` and Fletcher32 put a checksum on every byte.
"""

import dataclasses
import hashlib
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
    """Write ``folder``/step-XXXXXXXX.h5 and remove all but the two written last. One rank calls it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.attributes['step']:08d}.h5"
    temporary = path.with_suffix(".tmp")
    with h5py.File(temporary, "w", libver="latest") as file:
        _write(file, checkpoint)
    _sync(temporary)
    os.replace(temporary, path)
    _sync(folder)
    # By age, not by step: a folder may hold the higher steps of an earlier run.
    others = sorted(
        set(folder.glob("step-*.h5")) - {path}, key=lambda file: file.stat().st_mtime_ns
    )
    for old in others[: max(0, len(others) - (_KEPT - 1))]:
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
            if int(file.attrs["version"]) > _VERSION:
                version = file.attrs["version"]
                raise DataError(f"{path}: expected version {_VERSION} or lower, got {version}")
            checkpoint = _read(file)
            _verify(file, checkpoint)
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint") from None
    except DataError:
        raise
    except Exception as error:  # damaged files make h5py raise nearly anything
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a whole checkpoint: {reason}; take an earlier one") from None
    return checkpoint


def _write(file: h5py.File, checkpoint: Checkpoint) -> None:
    named = _named(checkpoint)
    for name, array in named.items():
        # A checksum needs chunks, and a chunk at least one element.
        checked = {"chunks": _chunk(array), "fletcher32": True} if array.size and array.ndim else {}
        file.create_dataset(name, data=array, **checked)
    own = {
        "format": _FORMAT,
        "version": _VERSION,
        "weights_digest": checkpoint.layout.digest(checkpoint.parameters),
        "names": json.dumps(list(checkpoint.layout.shapes)),
    }
    attributes = checkpoint.attributes | own
    for key, value in attributes.items():
        file.attrs[key] = value
    file.attrs["content_digest"] = _content_digest(named, attributes)


def _named(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its place in the file."""
    views = checkpoint.layout.views(checkpoint.parameters)
    named = {f"parameters/{name}": view for name, view in views.items()}
    named |= {f"optimizer/{name}": vector for name, vector in checkpoint.state.items()}
    names = ("normalisation/shift", "normalisation/scale")
    return named | dict(zip(names, checkpoint.normalisation, strict=True))


def _content_digest(named: dict[str, np.ndarray], attributes: dict) -> str:
    """BLAKE2b of all arrays and attributes: Fletcher32 takes 0x0000 for 0xffff, and attributes have none."""
    blake = hashlib.blake2b(digest_size=16)
    for name in sorted(named):
        array = np.ascontiguousarray(named[name])
        blake.update(repr((name, array.shape, array.dtype.str)).encode())
        blake.update(array.tobytes())
    plain = {key: attributes[key] for key in sorted(attributes) if key != "content_digest"}
    blake.update(json.dumps(plain).encode())
    return blake.hexdigest()


def _verify(file: h5py.File, checkpoint: Checkpoint) -> None:
    """Raise ValueError unless everything is as it was written."""
    for name, vector in checkpoint.state.items():
        if vector.shape != checkpoint.parameters.shape:
            expected = checkpoint.parameters.shape
            raise ValueError(f"optimizer/{name}: expected shape {expected}, got {vector.shape}")
    found = _content_digest(_named(checkpoint), checkpoint.attributes)
    if found != checkpoint.attributes["content_digest"]:
        raise ValueError(
            f"expected content of digest {checkpoint.attributes['content_digest']}, got {found}"
        )


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
