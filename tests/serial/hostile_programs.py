"""Hostile files in the forms of other programs, which ``prepare`` alone reads: MATLAB, NetCDF-4, AnnData, and names of classes.

As in ``hostile_files.py``: damage to good files, and attacks on each of the data sets that are read.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from lepton_mpi.errors import DataError, LeptonError
from tests.serial import attacks, hostile_files
from tests.serial.hostile_files import ANY, CLASSES, REFUSED, UNREAD, Case
from tests.serial.raw_files import options
from tests.serial.thread_ranks import on_ranks

_NAMES = ["B", "NK", "T"]


def _rows() -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(60 * 4, dtype="f8").reshape(60, 4) % 17
    return x, np.arange(60) % CLASSES


def _matlab(path: Path, **storage) -> None:
    x, y = _rows()
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in (("X", x.T), ("y", y[None] + 1.0)):
            made = file.create_dataset(name, data=values, chunks=True, **storage)
            made.attrs["MATLAB_class"] = np.bytes_("double")
        file["#refs#/a"] = np.array([file.ref], h5py.ref_dtype)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\0\2IM")


def _netcdf(path: Path, **storage) -> None:
    x, y = _rows()
    with h5py.File(path, "w") as file:
        file.attrs["_NCProperties"] = b"version=2,netcdf=4.9.2"
        made = file.create_dataset("x", data=x.astype("i2"), **storage)
        file.create_dataset("y", data=y.astype("i1"), **storage)
        made.attrs.update({"scale_factor": [0.5], "add_offset": 3.0, "_FillValue": np.int16(-9)})
        made.attrs["valid_range"] = np.array([0, 100], "i2")
        file.create_dataset("band", (4,), "f4").make_scale("This is a netCDF dimension")
        made.dims[1].attach_scale(file["band"])


def _anndata(path: Path, **storage) -> None:
    x, y = _rows()
    x = np.where(x % 3 == 0, x, 0).astype("f4")
    row, column = np.nonzero(x)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", x.shape
        group.create_dataset("data", data=x[row, column], **storage)
        group.create_dataset("indices", data=column, **storage)
        group["indptr"] = np.concatenate([[0], np.cumsum((x != 0).sum(axis=1))])
        file["obs/kind/codes"], file["obs/kind/categories"] = y.astype("i1"), _NAMES


def _named(path: Path, **storage) -> None:
    x, y = _rows()
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=x, **storage)
        file.create_dataset("y", data=y, **storage)
        file["class_names"] = _NAMES
        file["y"].attrs["label_names"] = np.array([b"one"])  # too few, so passed over


_PACKED = {"compression": "gzip", "shuffle": True, "fletcher32": True}
GOOD: dict[str, Callable[[Path], None]] = {
    "MATLAB": partial(_matlab, compression="gzip"),
    "NetCDF": _netcdf,
    "packed NetCDF": partial(_netcdf, **_PACKED),
    "AnnData": _anndata,
    "packed AnnData": partial(_anndata, **_PACKED),
    "names of classes": _named,
}
# Data sets that are read of each, and those that are passed over if they are not good.
_PLACES = {
    "MATLAB": ("X", "y"),
    "NetCDF": ("x", "y"),
    "AnnData": ("X/data", "X/indices", "X/indptr", "obs/kind/codes", "obs/kind/categories"),
    "names of classes": ("class_names",),
}
_ARRAYS = {"AnnData": ("--x", "X", "--y", "obs/kind")}


def cases(secret: Path) -> Iterator[Case]:
    """All of them, in an order that is the same every time."""
    for number, (good, write) in enumerate(GOOD.items()):
        for index in range(14):
            yield Case(f"{good}: truncated {index}", partial(_truncated, write, index), REFUSED)
        for change in hostile_files.CHANGES:
            for seed in range(11):
                name = f"{good}: {change.__name__.strip('_').replace('_', ' ')} {seed}"
                yield Case(name, partial(_changed, write, change, 100 * number + seed), ANY)
    for good, places in _PLACES.items():
        for attack in attacks.ANYWHERE:
            for place in places:
                name = f"{good}: {attack.__name__.strip('_').replace('_', ' ')} at {place}"
                yield Case(
                    name, partial(_attacked, good, attack, secret, place), _must(attack, place)
                )


def read_by_prepare(path: Path, name: str) -> list[np.ndarray]:
    """Rows and labels of all blocks, as ``prepare`` reads them; names of classes are read, too, and no rows. Raises DataError."""
    from lepton_mpi.prepare.readers.opening import open_inputs

    words = _ARRAYS.get(name.partition(": ")[0].removeprefix("packed "), ())
    chosen = options.parse([str(path), "out.h5", *words])

    def read(world) -> list[np.ndarray]:
        source = open_inputs(chosen, world)
        found: list[np.ndarray] = []
        try:
            for part in source.parts:
                for index in range(part.block_count):
                    block = part.read(index)
                    found += [block.x, getattr(block.y, "codes", block.y)]
        finally:
            source.close()
        return found

    try:
        return on_ranks(1, read)[0]
    except DataError:
        raise
    except LeptonError as error:  # that --x and --y are not there
        raise DataError(f"{path}: {error}") from None


def is_one(name: str) -> bool:
    """Whether a case is one of these."""
    return name.partition(": ")[0] in GOOD


def _must(attack: Callable, place: str) -> str:
    """What texts stand for may be texts; names of classes are no reason to refuse the rows."""
    may_be_texts = place in ("y", "obs/kind/categories")
    if place == "class_names" or attack.__name__.startswith("attribute") or may_be_texts:
        leads_out = attack.__module__.endswith("other_files")
        return REFUSED if leads_out else UNREAD if place == "class_names" else ANY
    return REFUSED


def _truncated(write: Callable[[Path], None], index: int, path: Path) -> None:
    write(path)
    hostile_files.truncate(path, index)


def _changed(write: Callable[[Path], None], change: Callable, seed: int, path: Path) -> None:
    write(path)
    hostile_files.change_bytes(path, change, f"{change.__name__} {seed}")


def _attacked(good: str, attack: Callable, secret: Path, place: str, path: Path) -> None:
    GOOD[good](path)
    with h5py.File(path, "r+") as file:
        del file[place]
        attack(file, place, secret)
