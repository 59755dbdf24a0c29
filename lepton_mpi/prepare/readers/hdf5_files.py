"""HDF5 files of other programs, those of MATLAB (v7.3), NetCDF-4 and AnnData too: arrays by --x and --y or by usual names."""

import h5py
import numpy as np

from lepton_mpi.data.files import foreign, hdf5
from lepton_mpi.data.files.class_names import NOTHING, Offered, offered_by, same_in_all
from lepton_mpi.errors import DataError, LeptonError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.arrays import (
    ArrayPart,
    Pair,
    array_source,
    check_features,
    unused_note,
)
from lepton_mpi.prepare.readers.hdf5_arrays import (
    DataSet,
    OpenAgain,
    SparseRows,
    labels_of,
    row_counts,
)
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.prepare.readers.row_axis import choose_axis
from lepton_mpi.wording import one_line


def open_hdf5(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Every pair of arrays found. Collective. Nothing else of a file is read."""
    arrays = options.x, "" if options.labels else options.y
    if options.may_lack_labels:
        arrays = _with_labels_or_without(inputs, arrays, world)
    with world.agreeing():
        if world.local_rank == 0:
            for given in inputs:
                hdf5.probe_file(given.path, arrays)
    with world.agreeing():
        parts: list[ArrayPart] = []
        notes: dict[str, None] = {}
        offers: list[Offered] = []
        for given in inputs:
            found, told, offered = _parts(given, options, arrays)
            parts += found
            notes |= dict.fromkeys(told)
            offers += offered
        facts = {"notes": tuple(notes), "offered": same_in_all(offers)}
        return array_source(parts, "HDF5", options, **facts)


def _with_labels_or_without(
    inputs: tuple[Input, ...], arrays: tuple[str | None, str | None], world
) -> tuple[str | None, str | None]:
    """Names of features alone, where the first file has no labels beside them. Collective."""
    features = arrays[0], ""
    with world.agreeing():
        if world.local_rank == 0:
            hdf5.probe_file(inputs[0].path, features)
    with world.agreeing(), h5py.File(inputs[0].path, "r", locking=False) as file:
        for wanted in (arrays, features):
            try:
                hdf5.check_structure(file, inputs[0].path, wanted)
                return wanted
            except LeptonError:
                continue
    return arrays


def _parts(
    given: Input, options: Options, arrays: tuple[str | None, str | None]
) -> tuple[list[ArrayPart], list[str], list[Offered]]:
    """Parts of a file, what the user should know of it, and what may be names of classes, by part."""
    path, opened = given.path, OpenAgain(given.path)
    try:
        file = opened.file()
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file: {one_line(error)}") from None
    try:
        used = hdf5.check_structure(file, path, arrays)
        offers = [
            offered_by(file, y_name) if y_name else NOTHING for _, y_name in used.pairs.values()
        ]
        names_of_classes = {one.where for one in offers}
        notes = [*unused_note([name for name in used.unused if name not in names_of_classes])]
        parts = []
        for split, (x_name, y_name) in used.pairs.items():
            pair, told = _pair(file, opened, x_name, y_name, options)
            notes += told
            name = f"{path.name}: {x_name}"
            parts.append(ArrayPart(name, given.split or split, pair, options))
        return parts, notes, offers
    except LeptonError:
        raise
    except Exception as error:  # h5py raises whatever a damaged file leads it to
        raise DataError(f"{path}: damaged: {one_line(error)}") from None
    finally:
        opened.close()


def _pair(
    file: h5py.File, opened: OpenAgain, x_name: str, y_name: str, options: Options
) -> tuple[Pair, list[str]]:
    """Features and labels with rows along the first dimension, and what was done for it."""
    where, notes, y, categories = f"{opened.path}: {x_name}", [], None, ()
    if y_name:
        y, categories, notes = labels_of(file, y_name, opened, f"{opened.path}: {y_name}")
    if isinstance(file[x_name], h5py.Group):
        x = SparseRows(opened, file[x_name], where)
        notes.append(f"{x_name}: a sparse matrix by rows, its zeros filled in")
        return Pair(x, y, categories=categories, close=opened.close), notes
    is_matlab = foreign.is_of_matlab(file[x_name])
    whole = DataSet(opened, file[x_name])
    check_features(where, whole)
    counts = row_counts(y) if y_name else set()
    axis = choose_axis(whole.natural_shape, counts, options.rows, is_matlab, where)
    x = whole.by_rows(axis)
    if is_matlab or axis == "last":
        turned = "turned as MATLAB shows it, " * is_matlab
        shape = "x".join(map(str, whole.natural_shape))
        notes.append(f"{x_name}: {turned}{shape}, rows are its {axis} dimension")
    if not whole.packing.is_plain:
        notes.append(f"{x_name}: {whole.packing.text}")
    if is_matlab and y_name and len(y.shape) > 1 and y.shape[0] != x.shape[0]:
        y = np.moveaxis(y, -1, 0)
    return Pair(x, y, categories=categories, close=opened.close), notes
