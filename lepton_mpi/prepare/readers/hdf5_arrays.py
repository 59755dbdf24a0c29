"""Arrays of HDF5 files as rows: turned as MATLAB means them, unpacked as NetCDF does, sparse ones filled in, codes with their texts.

All of them are read block by block from a file that is open from its first use until ``close``.
"""

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lepton_mpi.data.files import foreign, trust
from lepton_mpi.data.files.used import CATEGORIES, SPARSE
from lepton_mpi.errors import DataError
from lepton_mpi.prepare.readers.row_axis import Axis

# Of chunks: rows of an array that is turned round lie in many of its chunks.
_CACHE_BYTES = 64 << 20


class OpenAgain:
    """A file that is open from its first use until ``close``, and then from the next."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, None

    def file(self) -> h5py.File:
        """The open file. Raises OSError."""
        if self._file is None:
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
        return self._file

    def close(self) -> None:
        """Close the file if it is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


class DataSet:
    """Shape, type and slices of rows of a data set.

    Attributes
    ----------
    natural_shape : tuple of int
        As its program shows it: MATLAB in reverse order of the file.
    shape : tuple of int
        With rows along the first dimension, see ``by_rows``.
    """

    def __init__(self, opened: OpenAgain, data_set: h5py.Dataset) -> None:
        self._opened, self._name = opened, data_set.name
        self._is_turned = foreign.is_of_matlab(data_set)
        self._axis: Axis = "first"
        self.packing = foreign.packing_of(data_set)
        self.natural_shape = data_set.shape[::-1] if self._is_turned else data_set.shape
        self.dtype = self.packing.unpacked(np.empty(0, data_set.dtype)).dtype

    @property
    def shape(self) -> tuple[int, ...]:
        whole = self.natural_shape
        return (whole[-1], *whole[:-1]) if self._axis == "last" and whole else whole

    def by_rows(self, axis: Axis) -> "DataSet":
        """The same with rows along this dimension of the natural shape."""
        other = copy.copy(self)
        other._axis = axis
        return other

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows. Raises whatever h5py does for a damaged file."""
        data_set = self._opened.file()[self._name]
        is_outermost = (self._axis == "first") != self._is_turned or data_set.ndim == 1
        raw = self.packing.unpacked(data_set[rows] if is_outermost else data_set[..., rows])
        natural = raw.T if self._is_turned else raw
        return np.moveaxis(natural, -1, 0) if self._axis == "last" else natural


class SparseRows:
    """Rows of a matrix in compressed sparse rows (CSR), as AnnData writes it: groups of data, indices, indptr.

    Raises DataError unless they are those of a matrix.
    """

    def __init__(self, opened: OpenAgain, group: h5py.Group, where: str) -> None:
        kind, shape = group.attrs.get("encoding-type", ""), group.attrs.get("shape", ())
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if (
            kind != "csr_matrix"
            or np.shape(shape) != (2,)
            or np.asarray(shape).dtype.kind not in "iu"
        ):
            raise DataError(
                f"{where}: expected a sparse matrix by rows (csr_matrix) with its shape, got {kind or 'another group'}; "
                "in Python, adata.X = adata.X.tocsr() makes one"
            )
        self._opened, self._name, self._where = opened, group.name, where
        self.shape = tuple(int(length) for length in shape)
        self._starts = group[SPARSE[2]][()]
        self.dtype = group[SPARSE[0]].dtype
        stored, indices = (group[name].shape for name in SPARSE[:2])
        starts = self._starts
        is_good = (
            starts.shape == (self.shape[0] + 1,)
            and starts.dtype.kind in "iu"
            and stored == indices == (int(starts[-1]),)
            and starts[0] == 0
            and (starts[1:] >= starts[:-1]).all()
            and 0 < self.shape[1] <= trust.CHUNK_BYTES_MAX // 8
        )
        if not is_good:
            raise DataError(
                f"{where}: expected a matrix of shape {self.shape} in data, indices and indptr: damaged"
            )

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows with their zeros. Raises DataError for columns that there are not."""
        group = self._opened.file()[self._name]
        starts = self._starts[rows.start : rows.stop + 1].astype(np.int64)
        values, columns = (group[name][starts[0] : starts[-1]] for name in SPARSE[:2])
        if columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < self.shape[1]:
            raise DataError(
                f"{self._where}: expected columns from 0 to {self.shape[1] - 1}: damaged"
            )
        out = np.zeros((len(starts) - 1, self.shape[1]), self.dtype)
        row = np.repeat(np.arange(len(out)), np.diff(starts))
        np.add.at(out, (row, columns), values)
        return out


def labels_of(
    file: h5py.File, name: str, opened: OpenAgain, where: str
) -> tuple[Any, tuple[str, ...], list[str]]:
    """What has the shape, type and slices of labels; the texts of which they are codes, if they are; notes. Raises DataError."""
    group = file.get(name.removesuffix("/codes"))
    is_codes = isinstance(group, h5py.Group) and all(member in group for member in CATEGORIES)
    if is_codes:
        codes = DataSet(opened, group[CATEGORIES[0]])
        texts = _texts(group[CATEGORIES[1]][()], where)
        return (
            codes,
            texts,
            [f"{group.name.strip('/')}: codes of {len(texts)} categories, -1 is none"],
        )
    thing = file[name]
    if isinstance(thing, h5py.Group):
        raise DataError(f"{where}: expected labels, got a group without codes and categories")
    if not foreign.is_of_matlab(thing):
        return DataSet(opened, thing), (), []
    kind = thing.attrs["MATLAB_class"]
    if kind in (b"char", "char"):
        raise DataError(
            f"{where}: expected numbers, got letters of MATLAB; double(categorical(y)) makes numbers"
        )
    values = foreign.packing_of(thing).unpacked(thing[()]).T
    return values.reshape(-1) if values.size == max(values.shape, default=0) else values, (), []


def row_counts(y: Any) -> set[int]:
    """How many labels an array may hold."""
    return {y.shape[0], y.shape[-1]} if y.shape else set()


def _texts(values: np.ndarray, where: str) -> tuple[str, ...]:
    try:
        texts = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    except UnicodeDecodeError:
        raise DataError(f"{where}: expected categories in UTF-8") from None
    if len(set(texts)) != len(texts) or not texts:
        raise DataError(f"{where}: expected categories that are all different, got {len(texts)}")
    return tuple(texts)
