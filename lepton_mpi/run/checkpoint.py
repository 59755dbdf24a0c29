"""Parameters, optimizer state and configuration in one HDF5 file that is either whole or not there.

    /parameters/<name>      one data set per parameter, in its shape
    /optimizer/<state>      one flat vector per state, in the order of the parameters
    /normalisation/…        shift and scale of the features, as the data file had them: float64, of earlier versions in
                            the type of the parameters
    /about/data             JSON, UTF-8, as uint8: inputs, columns, categories, classes, targets and vocabulary of the data,
                            see ``data/encodings.py``; files of earlier versions have none
    /about/encoding         what ``prepare`` kept in the data file under this name, as it stood there: ``prepare --like`` takes
                            a checkpoint, too
    /about/digests          a digest of each vector, see ``vector_digests.py``
    attributes              format, version, step, epoch, seed, model, y_kind (classes or targets), target_scale (JSON,
                            shift, scale and log of scaled targets), configuration (JSON), names (JSON, the order of the flat vector), weights_digest (BLAKE2b);
                            arithmetic, by which rules the run was begun (``run/arithmetic.py``), of version 1 the first;
                            compression (JSON, of version 3 alone), see below;
                            to go on from: row, how many rows of the epoch were used, order (JSON, how rows are
                            shuffled), loss_sum and correct_sum over those rows

A compressed checkpoint (version 3, ``compressed.py``) is for use, not to go on from: it has no optimizer state, and goes through gzip. Of its
parameters some are int8, with /scales/<name> for each output channel; compression says which and along which axis. Its
weights_digest is that of the parameters as they are read, and is checked when they are.

The first 512 bytes, which HDF5 leaves to its user, hold a magic word and the BLAKE2b of all other bytes.
A file is written under a temporary name, read back, synced and renamed, and the folder is synced: a kill at any
moment leaves the previous checkpoint. The format is that of HDF5 1.10, the oldest with checksums of its metadata,
and Fletcher32 covers the rest, so that other programs see damage too.
"""

import dataclasses
import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lepton_mpi.data.encodings import Encodings
from lepton_mpi.data.files import named, probe, trust
from lepton_mpi.data.files.file_format import ENCODING
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.durable import PatientFile, replacing, temporary_name
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.config import Config, make_config
from lepton_mpi.run import compressed, vector_digests
from lepton_mpi.run.compressed import Compressed
from lepton_mpi.run.defaults import with_earlier
from lepton_mpi.vectors import Layout
from lepton_mpi.wording import one_line

# Version 2 has the attribute arithmetic: a program that does not know it would go on by other rules. Version 3 is compressed.
_FORMAT, _VERSION, _VERSION_COMPRESSED = "lepton_mpi checkpoint", 2, 3
_DATA = "about/data"

# HDF5 leaves so many bytes at the beginning of a file to its user, if asked to.
_HEAD_BYTES = 512
_MAGIC = b"lepton_mpi checkpoint\n"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a file holds; ``parameters`` and each state are flat, of shape (layout.size,); ``compressed`` says how they are stored.

    ``digest`` is that of the parameters, for who has it already; empty makes who writes the file compute it.
    """

    layout: Layout
    parameters: np.ndarray
    state: dict[str, np.ndarray]
    normalisation: tuple[np.ndarray, np.ndarray]
    attributes: dict[str, Any]
    encodings: Encodings = dataclasses.field(default_factory=Encodings)
    compressed: Compressed | None = None
    digest: str = ""

    def target_scale(self, target_count: int) -> TargetScale:
        """See ``target_scale_of``."""
        return target_scale_of(self.attributes, target_count)


def target_scale_of(attributes: dict[str, Any], target_count: int) -> TargetScale:
    """How targets were scaled; files without the attribute had them as they are. Raises DataError."""
    text = attributes.get("target_scale")
    if text is None:
        return TargetScale.identity(target_count)
    try:
        found = TargetScale.from_json(json.loads(text))
        if found.shift.size != target_count:
            raise ValueError(f"expected {target_count} targets, got {found.shift.size}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"attribute target_scale: {one_line(error)}") from None
    return found


def target_scale_attribute(scale: TargetScale) -> dict[str, str]:
    """The attribute of scaled targets; none of those that are as they are."""
    return {} if scale.is_identity else {"target_scale": json.dumps(scale.as_json())}


def save_as(path: Path, checkpoint: Checkpoint, mark: str = "") -> None:
    """Write a file of any name, in place of one that is there. One rank calls it. Raises OSError; nothing is left then."""
    with replacing(path, temporary_name(path, mark)) as temporary:
        write_file(temporary, checkpoint)


def write_file(path: Path, checkpoint: Checkpoint) -> None:
    """Write all of it and read it back. Raises OSError, and RuntimeError where h5py does."""
    arrays = _arrays(checkpoint)
    with (
        closing(PatientFile(path)) as raw,
        h5py.File(raw, "w", libver=("v110", "v110"), userblock_size=_HEAD_BYTES) as file,
    ):
        _write(file, checkpoint, arrays)
    head = _head(path)
    with path.open("r+b") as written:
        written.write(head)
    vector_digests.check_written(path, arrays)
    if _head(path) != head:  # what lies between the vectors, too
        raise OSError(errno.EIO, "it was not read back as it was written")


def load(path: Path) -> Checkpoint:
    """Verify and read a checkpoint. Raises DataError."""
    verify(path)
    return read(path)


def verify(path: Path) -> None:
    """Refuse a file that is not a whole checkpoint, or not one to be read. Raises DataError.

    To be called by one rank of each host before any of them reads it. The digest comes first, so that
    damage is called by its name. Anybody can write one that fits, so the rest is looked at like any file
    from elsewhere, see ``data/probe.py``.
    """
    path = Path(path)
    if path.exists():
        probe.check_regular(path)
    try:
        with path.open("rb") as raw:
            head = raw.read(_HEAD_BYTES)
        if not head.startswith(_MAGIC):
            raise DataError(f"{path}: expected a checkpoint of lepton_mpi, got another file")
        if head.rstrip(b"\0") != _head(path):
            raise DataError(f"{path}: damaged, its digest does not fit; take an earlier checkpoint")
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable file: {one_line(error)}") from None
    probe.check(path)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint that ``verify`` has let pass. Raises DataError."""
    with _opened(Path(path)) as file:
        found = _read(file)
        _check(found)
        return found


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file, in a block whose errors of any kind become a DataError that names it."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            trust.check(file, path.stat().st_size)
            if int(file.attrs["version"]) > _VERSION_COMPRESSED:
                version = file.attrs["version"]
                raise DataError(f"expected version {_VERSION_COMPRESSED} or lower, got {version}")
            yield file
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = one_line(error)
        raise DataError(f"{path}: not a checkpoint that this version reads: {reason}") from None


def read_attributes(path: Path) -> tuple[dict[str, Any], Encodings]:
    """Those of a checkpoint that ``verify`` has let pass, and what its data stood for. Raises DataError."""
    with _opened(Path(path)) as file:
        found = _attributes(file)
        _check_attributes(found)
        return found, _encodings(file)


def configuration(attributes: dict[str, Any], path: Path) -> Config:
    """What a checkpoint says that it was trained with, checked like a command line. Raises DataError."""
    try:
        options = dict(json.loads(attributes["configuration"]))
        options.pop("data_check", None)  # an option of earlier versions
        if "hidden" not in options:  # which every version has written
            raise KeyError("hidden")
        return with_earlier(make_config(options))
    except (ConfigurationError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise DataError(f"{path}: attribute configuration: {reason}") from None


def _head(path: Path) -> bytes:
    """What the first bytes of a file must be: a magic word and the BLAKE2b of all that follows them."""
    with path.open("rb") as raw:
        raw.seek(_HEAD_BYTES)
        digest = hashlib.file_digest(raw, lambda: hashlib.blake2b(digest_size=16))
    return _MAGIC + digest.hexdigest().encode() + b"\n"


def _arrays(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """What is stored, by the names of the data sets."""
    views, how = checkpoint.layout.views(checkpoint.parameters), checkpoint.compressed
    arrays = {f"parameters/{name}": view for name, view in views.items()}
    if how:
        arrays |= {f"parameters/{name}": how.codes(name, views[name]) for name in how.axes}
        arrays |= {f"scales/{name}": scale for name, scale in how.scales.items()}
    arrays |= {f"optimizer/{name}": vector for name, vector in checkpoint.state.items()}
    names = ("normalisation/shift", "normalisation/scale")
    arrays |= dict(zip(names, checkpoint.normalisation, strict=True))
    arrays[vector_digests.NAME] = vector_digests.manifest(arrays)
    known = checkpoint.encodings
    arrays |= {_DATA: np.frombuffer(known.as_json(), np.uint8)} if known.inputs else {}
    arrays |= {ENCODING: np.frombuffer(known.prepared, np.uint8)} if known.prepared else {}
    return arrays


def _write(file: h5py.File, checkpoint: Checkpoint, arrays: dict[str, np.ndarray]) -> None:
    how = checkpoint.compressed
    for name, array in arrays.items():
        # A checksum needs chunks, and a chunk at least one element.
        checked = {"chunks": _chunk(array), "fletcher32": True} if array.size and array.ndim else {}
        packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
        checked |= packed if how and checked else {}
        file.create_dataset(name, data=array, **checked)
    own = {
        "format": _FORMAT,
        "version": _VERSION_COMPRESSED if how else _VERSION,
        "weights_digest": checkpoint.digest or checkpoint.layout.digest(checkpoint.parameters),
        "names": json.dumps(list(checkpoint.layout.shapes)),
    }
    own |= {"compression": how.as_json()} if how else {}
    for key, value in (checkpoint.attributes | own).items():
        file.attrs[key] = value


def _chunk(array: np.ndarray) -> tuple[int, ...]:
    """The whole array, or as many of its rows as make about 8 MiB."""
    row_bytes = max(1, array.nbytes // len(array))
    return (min(len(array), max(1, (8 << 20) // row_bytes)), *array.shape[1:])


def _read(file: h5py.File) -> Checkpoint:
    arrays = {name: file[f"parameters/{name}"][()] for name in json.loads(file.attrs["names"])}
    how = None
    if "compression" in file.attrs:
        how = compressed.unpack(file.attrs["compression"], file.get("scales", {}), arrays)
    layout = Layout({name: array.shape for name, array in arrays.items()})
    if len({array.dtype for array in arrays.values()}) > 1:
        raise DataError("parameters: expected numbers of one type, got several")
    parameters = np.concatenate([array.reshape(-1) for array in arrays.values()])
    if how and layout.digest(parameters) != file.attrs["weights_digest"]:
        raise DataError("parameters: expected those of weights_digest, got others")
    return Checkpoint(
        layout,
        parameters,
        # Plain SGD keeps no state, and then there is no group.
        {name: dataset[()] for name, dataset in file.get("optimizer", {}).items()},
        (file["normalisation/shift"][()], file["normalisation/scale"][()]),
        _attributes(file),
        _encodings(file),
        how,
    )


def stored_bytes(path: Path) -> dict[str, int]:
    """Bytes of each parameter in a file that ``verify`` has let pass, its scales with it. Raises DataError."""
    with _opened(Path(path)) as file:
        groups = [file[group] for group in ("parameters", "scales") if group in file]
        return {
            name: sum(group[name].id.get_storage_size() for group in groups if name in group)
            for name in json.loads(file.attrs["names"])
        }


def _encodings(file: h5py.File) -> Encodings:
    """Empty in a file of an earlier version. Raises DataError."""
    raw, prepared = (named.bytes_of(file, name) for name in (_DATA, ENCODING))
    if _DATA not in file:
        return Encodings()
    try:
        return Encodings.from_json(raw, prepared)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{_DATA}: expected what training writes: {one_line(error)}") from None


def _attributes(file: h5py.File) -> dict[str, Any]:
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in file.attrs.items()
    }


def _check(found: Checkpoint) -> None:
    """Whether everything has the type and the shape that it is used with, whoever wrote it."""
    _check_attributes(found.attributes)
    _check_arrays(found)


def _check_attributes(attributes: dict[str, Any]) -> None:
    expected = dict.fromkeys(("step", "epoch", "seed"), int) | dict.fromkeys(
        ("format", "weights_digest", "model", "configuration"), str
    )
    for key, kind in expected.items():
        if not isinstance(attributes[key], kind):
            raise DataError(f"attribute {key}: expected {kind.__name__}, got something else")
    if attributes["format"] != _FORMAT:
        raise DataError(f"expected format {_FORMAT}, got {one_line(attributes['format'])}")


def _check_arrays(found: Checkpoint) -> None:
    shift, scale = found.normalisation
    for name, array, shape in (
        ("parameters", found.parameters, (found.layout.size,)),
        *((f"optimizer/{key}", state, (found.layout.size,)) for key, state in found.state.items()),
        ("normalisation/shift", shift, (shift.size,)),
        ("normalisation/scale", scale, (shift.size,)),
    ):
        if array.dtype not in (np.float32, np.float64) or array.shape != shape:
            raise DataError(
                f"{name}: expected float32 or float64 of shape {shape}, got {array.dtype} of shape {array.shape}"
            )
    is_finite = np.isfinite(shift).all() and np.isfinite(scale).all()
    if not is_finite or shift.dtype != scale.dtype:
        raise DataError(f"normalisation: expected finite {shift.dtype}, got others")
