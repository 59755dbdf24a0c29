"""HDF5 files of other programs: any two data sets, by --x and --y or by usual names."""

from pathlib import Path

import h5py

from lepton_mpi.data import hdf5
from lepton_mpi.errors import DataError, LeptonError, one_line
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.arrays import ArrayPart, array_source, check_features, find_pairs
from lepton_mpi.prepare.readers.inputs import Input


def open_hdf5(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Every pair of data sets found. Collective."""
    with world.agreeing():
        return array_source([part for given in inputs for part in _parts(given, options)], "HDF5")


def _parts(given: Input, options: Options) -> list[ArrayPart]:
    path = given.path
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file: {one_line(error)}") from None
    try:
        hdf5.refuse_other_files(file, path)
        parts = []
        for split, (x_name, y_name) in find_pairs(_data_sets(file), options, str(path)).items():
            x, y = file[x_name], file[y_name]
            check_features(f"{path}: {x_name}", x)
            name = f"{path.name}: {x_name}"
            parts.append(ArrayPart(name, given.split or split, x, y, options, close=file.close))
        return parts
    except LeptonError:
        file.close()
        raise
    except Exception as error:  # h5py raises whatever a damaged file leads it to
        file.close()
        raise DataError(f"{path}: damaged: {one_line(error)}") from None


def _data_sets(file: h5py.File) -> list[str]:
    names: list[str] = []

    def look(name: str, found: object) -> None:
        if isinstance(found, h5py.Dataset):
            names.append(name)

    file.visititems(look)
    return names


def is_hdf5(path: Path) -> bool:
    """Whether the file begins as HDF5 does."""
    return h5py.is_hdf5(path)
