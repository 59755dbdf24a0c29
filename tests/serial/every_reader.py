"""The same rows in a file of every kind that ``prepare`` reads as rows of numbers with a label."""

import gzip
import importlib.util
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.serial.data_files import write
from tests.serial.raw_files import write_csv, write_idx

_PARQUET = pytest.param(
    "parquet",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("pyarrow") is None,
        reason="pyarrow, the extra parquet, is not installed",
    ),
)
TABLES = ["csv", "csv.gz", "utf-16", _PARQUET, "npy"]
ARRAYS = ["npz", "npy pair", "hdf5", "matlab", "idx", "labels"]
every_table = pytest.mark.parametrize("kind", TABLES)
every_reader = pytest.mark.parametrize("kind", [*TABLES, *ARRAYS])
# Those that can hold texts as labels, and truth values.
every_reader_of_texts = pytest.mark.parametrize(
    "kind", ["csv", "csv.gz", "utf-16", _PARQUET, "npz", "npy pair", "hdf5", "labels"]
)


def rows_in(kind: str, folder: Path, x: np.ndarray, y: np.ndarray) -> tuple[object, ...]:
    """Write rows ``x`` of shape (rows, features) and labels ``y``; returns the words that ``prepare`` reads them by."""
    folder.mkdir(exist_ok=True)
    if kind in ("csv", "csv.gz", "utf-16", "parquet"):
        return (_table(kind, folder, x, y),)
    if kind == "npy":
        np.save(folder / "a.npy", np.column_stack([x, y]))
        return (folder / "a.npy", "--label", "-1")
    if kind == "npz":
        np.savez(folder / "a.npz", x=x, y=y)
        return (folder / "a.npz",)
    if kind == "hdf5":
        return (write(folder / "a.h5", {"x": x, "y": y.tolist() if y.dtype.kind == "U" else y}),)
    if kind == "matlab":
        path = write(folder / "a.mat", {"x": x.T, "y": y[None].astype("f8")})
        with h5py.File(path, "r+") as file:
            for name in "xy":
                file[name].attrs["MATLAB_class"] = np.bytes_("double")
        return (path, "--rows", "first")
    if kind == "idx":
        whole = y.astype("i4") if y.dtype.kind in "iu" else y
        return (write_idx(folder / "x.idx", x), write_idx(folder / "y.idx", whole))
    np.save(folder / "x.npy", x)
    if kind == "npy pair":
        np.save(folder / "y.npy", y)
        return (folder / "x.npy", folder / "y.npy")
    (folder / "y.txt").write_text("\n".join(map(_cell, y.tolist())) + "\n")
    return (folder / "x.npy", "--labels", folder / "y.txt")


def name_of(kind: str, feature: int) -> str:
    """What the report calls a feature."""
    if kind in ("csv", "csv.gz", "utf-16", "parquet"):
        return f"f{feature}"
    return f"column {feature}" if kind == "npy" else f"feature {feature}"


def _table(kind: str, folder: Path, x: np.ndarray, y: np.ndarray) -> Path:
    names = [*(f"f{i}" for i in range(x.shape[1])), "label"]
    columns = [*x.T.tolist(), y.tolist()]
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        made = {
            name: [None if cell != cell else cell for cell in column]
            for name, column in zip(names, columns, strict=True)
        }
        parquet.write_table(pyarrow.table(made), folder / "a.parquet", row_group_size=25)
        return folder / "a.parquet"
    rows = [[_cell(cell) for cell in row] for row in zip(*columns, strict=True)]
    path = write_csv(folder / "a.csv", rows, *names)
    if kind == "csv.gz":
        (folder / "a.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        return folder / "a.csv.gz"
    if kind == "utf-16":
        path.write_bytes(path.read_text().encode("utf-16"))
    return path


def _cell(value: object) -> str:
    """As a text file has it; infinity as a number that float64 does not reach."""
    if value != value:
        return ""
    return "1e999" if value == np.inf else str(value)
