"""NumPy's .npy and .npz. Nothing is unpickled: arrays of objects are refused."""

import dataclasses
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.arrays import (
    ArrayPart,
    MatrixPart,
    array_source,
    check_features,
    find_pairs,
)
from lepton_mpi.prepare.readers.columns import choose_roles, table_source
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line


def open_numpy(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Archives with features and labels; or ``x.npy y.npy``, or one matrix with the label in a column. Collective."""
    with world.agreeing():
        are_archives = {given.path.suffix.lower() == ".npz" for given in inputs}
        if len(are_archives) > 1:
            raise ConfigurationError("expected .npz archives or .npy arrays, got both")
        if len(inputs) > 1 or True in are_archives:
            _refuse_table_options(options)
        if True in are_archives:
            parts = [part for given in inputs for part in _archive_parts(given, options)]
            return array_source(parts, "NumPy archive")
        if len(inputs) == 1:
            return _matrix(inputs[0], options)
        if len(inputs) == 2:
            x, y = (_load(given.path) for given in inputs)
            check_features(str(inputs[0].path), x)
            name, split = inputs[0].path.name, inputs[0].split
            return array_source([ArrayPart(name, split, x, y, options)], "NumPy arrays")
        raise ConfigurationError(
            f"expected one .npy file or two, features and labels, got {len(inputs)} files"
        )


def _refuse_table_options(options: Options) -> None:
    of_tables = (
        "label",
        "split_column",
        "group",
        "categorical",
        "categories",
        "drop_columns",
        "missing_words",
        "only_missing_words",
    )
    for field in dataclasses.fields(options):
        name = field.name
        if name in of_tables and getattr(options, name) != field.default:
            raise ConfigurationError(
                f"--{name.replace('_', '-')}: is for tables, got arrays; --x and --y name arrays"
            )


def _archive_parts(given: Input, options: Options) -> list[ArrayPart]:
    with _opened(given.path) as raw:
        try:
            archive = np.load(raw, allow_pickle=False)
            names = list(archive.files)
        except Exception as error:  # NumPy raises whatever a damaged head leads it to
            raise DataError(f"{given.path}: not a NumPy archive: {_reason(error)}") from None
        return _pairs_of(archive, names, given, options)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _pairs_of(archive, names: list[str], given: Input, options: Options) -> list[ArrayPart]:
    parts = []
    for split, (x_name, y_name) in find_pairs(names, options, str(given.path)).items():
        try:
            x, y = archive[x_name], archive[y_name]
        except Exception as error:
            raise DataError(f"{given.path}: {x_name} or {y_name}: {_reason(error)}") from None
        check_features(f"{given.path}: {x_name}", x)
        name = f"{given.path.name}: {x_name}"
        parts.append(ArrayPart(name, given.split or split, x, y, options))
    return parts


def _matrix(given: Input, options: Options) -> Source:
    matrix = _load(given.path)
    if matrix.ndim != 2 or matrix.dtype.kind not in "iufb":
        raise DataError(
            f"{given.path}: expected a matrix of numbers with the label in a column, or a second file with the "
            f"labels, got {matrix.dtype} of shape {matrix.shape}"
        )
    names = tuple(f"column {i}" for i in range(matrix.shape[1]))
    roles = choose_roles(names, options, given.path.name)
    part = MatrixPart(given.path.name, given.split, matrix, roles, options)
    return table_source([part], "NumPy matrix", roles)


def _load(path: Path) -> np.ndarray:
    """Mapped, so that a block is read when it is wanted."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise DataError(f"{path}: not a NumPy array: {_reason(error)}") from None
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise DataError(f"{path}: not a NumPy array but an archive, whose name must end by .npz")
    return loaded


def _reason(error: Exception) -> str:
    if "allow_pickle" in str(error):
        return (
            "it holds Python objects, which are not read because reading them could run a program"
        )
    return one_line(getattr(error, "strerror", None) or error)
