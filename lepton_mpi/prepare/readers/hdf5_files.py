"""HDF5 files of other programs: any two data sets, by --x and --y or by usual names."""

from pathlib import Path

import h5py
import numpy as np

from lepton_mpi.data.files import hdf5
from lepton_mpi.errors import DataError, LeptonError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.arrays import (
    SPLIT_ALIASES,
    ArrayPart,
    array_source,
    check_features,
    find_pairs,
)
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line


def open_hdf5(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Every pair of data sets found. Collective.

    Where --x and --y name them, nothing else of a file is touched, so it may hold what it likes.
    """
    only = _wanted(options)
    with world.agreeing():
        if world.local_rank == 0:
            for given in inputs:
                hdf5.probe_file(given.path, only)
    with world.agreeing():
        parts = [part for given in inputs for part in _parts(given, options, only)]
        return array_source(parts, "HDF5")


def _wanted(options: Options) -> list[str] | None:
    """Names of data sets that --x and --y may mean; None without them."""
    if not (options.x or options.y):
        return None
    return [
        name.replace("{split}", alias)
        for name in (options.x or "x", options.y or "y")
        for aliases in SPLIT_ALIASES.values()
        for alias in aliases
    ]


def _parts(given: Input, options: Options, only: list[str] | None) -> list[ArrayPart]:
    path, opened = given.path, _OpenAgain(given.path)
    try:
        file = opened.file()
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file: {one_line(error)}") from None
    try:
        names = hdf5.check_structure(file, path, only)
        parts = []
        for split, (x_name, y_name) in find_pairs(names, options, str(path)).items():
            x, y = (_DataSet(opened, file[name]) for name in (x_name, y_name))
            check_features(f"{path}: {x_name}", x)
            name = f"{path.name}: {x_name}"
            parts.append(ArrayPart(name, given.split or split, x, y, options, close=opened.close))
        return parts
    except LeptonError:
        raise
    except Exception as error:  # h5py raises whatever a damaged file leads it to
        raise DataError(f"{path}: damaged: {one_line(error)}") from None
    finally:
        opened.close()


class _OpenAgain:
    """A file that is open from its first use until ``close``, and then from the next."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, None

    def file(self) -> h5py.File:
        """The open file. Raises OSError."""
        if self._file is None:
            self._file = h5py.File(self._path, "r", locking=False)
        return self._file

    def close(self) -> None:
        """Close the file if it is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _DataSet:
    """Shape, type and slices of rows of a data set, as ``ArrayPart`` needs them."""

    def __init__(self, opened: _OpenAgain, data_set: h5py.Dataset) -> None:
        self._opened, self._name = opened, data_set.name
        self.shape, self.dtype = data_set.shape, data_set.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows. Raises whatever h5py does for a damaged file."""
        return self._opened.file()[self._name][rows]
