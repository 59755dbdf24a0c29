"""Which format a suffix names."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.prediction.files.csv_file import CsvFormat
from lepton_mpi.prediction.files.output import Format

SUFFIXES = (".csv", ".tsv", ".parquet", ".npz", ".h5", ".hdf5")
# 9 digits bring float32 back to the last bit, 17 float64.
_DIGITS = {4: 9, 8: 17}
_OTHERS = {
    ".parquet": ("parquet_file", "ParquetFormat"),
    ".npz": ("npz_file", "NpzFormat"),
    ".h5": ("hdf5_file", "Hdf5Format"),
    ".hdf5": ("hdf5_file", "Hdf5Format"),
}


def check_suffix(path: Path) -> None:
    """Raise ConfigurationError for one that names no format."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(
            f"--out: expected a file that ends by {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {path}"
        )


def format_of(path: Path, dtype: np.dtype[Any]) -> Format:
    """The format of a file, for a model of this type. Raises ConfigurationError, and LauncherError where a library is missing."""
    check_suffix(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return CsvFormat(_DIGITS[dtype.itemsize], "\t" if suffix == ".tsv" else ",")
    module, name = _OTHERS[suffix]
    found: Format = getattr(import_module(f"lepton_mpi.prediction.files.{module}"), name)()
    found.check()
    return found
