"""Labels that stand in files of their own, one for each input: ``--labels``.

They are read whole, by every rank, and join the rows once these are counted, see ``prepare/joining.py``.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lepton_mpi.data.files import hdf5
from lepton_mpi.errors import ConfigurationError, DataError, LeptonError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Words
from lepton_mpi.prepare.readers.arrays import class_labels, targets_of
from lepton_mpi.prepare.readers.csv_raw import wide_encoding
from lepton_mpi.prepare.readers.hdf5_arrays import OpenAgain, labels_of
from lepton_mpi.prepare.readers.idx import read_idx
from lepton_mpi.prepare.readers.numpy_files import read_label_arrays
from lepton_mpi.wording import one_line

_HDF5 = (".h5", ".hdf5", ".hdf", ".he5", ".mat", ".nc", ".nc4", ".h5ad")


@dataclass(frozen=True)
class LabelFile:
    """Labels of rows in their order.

    Attributes
    ----------
    name : str
        For messages.
    y : Words, int64 (rows,) of one-hot rows, or float64 (rows, targets)
    width : int
        Numbers that made a label in the file.
    header : str
        First line of a text, if it may be the name of its column; then the first label is it.
    """

    name: str
    y: Words | np.ndarray
    width: int = 1
    header: str = ""


def read_labels(options: Options, world) -> tuple[LabelFile, ...]:
    """Labels of all files, several of one with labels by split. Collective. Raises DataError."""
    paths = [Path(name) for name in options.labels]
    with world.agreeing():
        for path in paths:
            if not path.is_file():
                raise DataError(
                    f"--labels: {path}: no such file; --label names a column of the inputs"
                )
            if world.local_rank == 0 and _is_hdf5(path):
                hdf5.probe_file(path, ("", options.y))
    with world.agreeing():
        return tuple(found for path in paths for found in _read(path, options))


def class_names_of(labels: tuple[LabelFile, ...]) -> tuple[str, ...]:
    """Names of the classes of one-hot rows; none of other labels. Raises DataError for rows of several widths."""
    widths = {file.width for file in labels}
    if len(widths) > 1:
        raise DataError(
            f"--labels: expected labels of one width, got {', '.join(map(str, sorted(widths)))}"
        )
    return tuple(map(str, range(widths.pop()))) if widths != {1} else ()


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in _HDF5


def _read(path: Path, options: Options) -> list[LabelFile]:
    name = path.name.lower().removesuffix(".gz")
    if _is_hdf5(path):
        return _of_hdf5(path, options)
    if name.endswith((".npy", ".npz")):
        arrays = read_label_arrays(path, options)
        return [_of_array(f"{path.name}{part}", array, options) for part, array in arrays]
    if name.endswith(("-ubyte", ".ubyte", ".idx")):
        return [_of_array(path.name, read_idx(path), options)]
    return [_of_text(path, options)]


def _of_array(name: str, y: np.ndarray, options: Options) -> LabelFile:
    if not y.shape:
        raise DataError(f"{name}: expected a label for each row, got a single value")
    if options.task == "regression":
        return LabelFile(name, targets_of(y, name))
    labels = class_labels(y, name, 0)
    return LabelFile(name, labels, 1 if isinstance(labels, Words) else int(np.prod(y.shape[1:])))


def _of_hdf5(path: Path, options: Options) -> list[LabelFile]:
    opened = OpenAgain(path)
    try:
        file = opened.file()
        used = hdf5.check_structure(file, path, ("", options.y))
        return [
            _of_data_set(file, opened, f"{path.name}: {name}", name, options)
            for _, name in used.pairs.values()
        ]
    except LeptonError:
        raise
    except Exception as error:  # h5py raises whatever a damaged file leads it to
        raise DataError(f"{path}: damaged: {one_line(error)}") from None
    finally:
        opened.close()


def _of_data_set(
    file: h5py.File, opened: OpenAgain, where: str, name: str, options: Options
) -> LabelFile:
    y, texts, _ = labels_of(file, name, opened, where)
    values = np.asarray(y[:])
    if texts:
        return LabelFile(where, Words(values.reshape(len(values)).astype(np.int32), texts))
    return _of_array(where, values, options)


def _of_text(path: Path, options: Options) -> LabelFile:
    """A label a line."""
    try:
        raw = path.read_bytes()
        wide = wide_encoding(path, options.encoding)
        text = raw.decode(wide or options.encoding).removeprefix("\ufeff")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{path}: not a text in {options.encoding}: {one_line(error)}") from None
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    odd = next((n for n, line in enumerate(lines, 1) if "," in line or "\t" in line), None)
    if odd:
        raise ConfigurationError(
            f"--labels: {path}: line {odd}: expected a label a line, got {lines[odd - 1][:40]!r}; a table of files and labels "
            "goes with --files and --folder"
        )
    header = lines[0] if lines and lines.count(lines[0]) == 1 else ""
    if options.task != "regression":
        return LabelFile(path.name, Words.of([line or None for line in lines]), header=header)
    try:
        targets = [float(line or "nan") for line in (lines[1:] if _is_word(header) else lines)]
    except ValueError as error:
        raise DataError(f"{path}: expected a number a line: {one_line(error)}") from None
    return LabelFile(path.name, np.array(targets)[:, None])


def _is_word(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return True
    return False
