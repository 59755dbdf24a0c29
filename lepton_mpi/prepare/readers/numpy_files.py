"""NumPy's .npy and .npz. Nothing is unpickled: arrays of objects are refused."""

import dataclasses
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lepton_mpi.data.files.array_names import find_pairs
from lepton_mpi.data.files.class_names import NOTHING, Offered, offered_among, same_in_all
from lepton_mpi.errors import ConfigurationError, DataError, LeptonError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.arrays import (
    ArrayPart,
    MatrixPart,
    Pair,
    array_source,
    check_features,
    pairs_in,
    rows_first,
)
from lepton_mpi.prepare.readers.columns import choose_roles, table_source
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line

# NumPy reads the head of an array by a parser of Python that counts its depth for all threads together, and refuses a good file
# where two of them read at once.
_PARSING = threading.Lock()


def open_numpy(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Archives with features and labels; or ``x.npy y.npy``, or one matrix with the label in a column. Collective."""
    with world.agreeing():
        are_archives = {given.path.suffix.lower() == ".npz" for given in inputs}
        if len(are_archives) > 1:
            raise ConfigurationError("expected .npz archives or .npy arrays, got both")
        if len(inputs) > 1 or True in are_archives:
            _refuse_table_options(options)
        if True in are_archives:
            found = [_archive_parts(given, options) for given in inputs]
            parts = [part for of_file, _, _ in found for part in of_file]
            notes = tuple(dict.fromkeys(note for _, told, _ in found for note in told))
            facts = {"notes": notes, "offered": same_in_all([offered for *_, offered in found])}
            return array_source(parts, "NumPy archive", options, **facts)
        # Of rows to be scored, one array is features where those of the file of --like were no table.
        is_matrix = not (options.may_lack_labels and not options.columns)
        if len(inputs) == 1 and not options.labels and is_matrix:
            return _matrix(inputs[0], options)
        if options.labels or len(inputs) == 1:
            parts = [_part(given, _load(given.path), None, options) for given in inputs]
            return array_source(parts, "NumPy arrays", options)
        if len(inputs) == 2:
            x, y = (_load(given.path) for given in inputs)
            return array_source([_part(inputs[0], x, y, options)], "NumPy arrays", options)
        raise ConfigurationError(
            f"expected one .npy file or two, features and labels, got {len(inputs)} files; --labels names files of labels"
        )


def _part(given: Input, x: np.ndarray, y: np.ndarray | None, options: Options) -> ArrayPart:
    check_features(str(given.path), x)
    return ArrayPart(given.path.name, given.split, Pair(rows_first(x, options), y), options)


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


def _archive_parts(
    given: Input, options: Options
) -> tuple[list[ArrayPart], tuple[str, ...], Offered]:
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


def _pairs_of(
    archive, names: list[str], given: Input, options: Options
) -> tuple[list[ArrayPart], tuple[str, ...], Offered]:
    offered = _offered(archive, names, given)
    others = [name for name in names if name != offered.where]
    pairs, notes = pairs_in(others, options, str(given.path))
    parts = []
    for split, (x_name, y_name) in pairs.items():
        try:
            with _PARSING:
                x, y = archive[x_name], archive[y_name] if y_name else None
        except Exception as error:
            raise DataError(f"{given.path}: {x_name} or {y_name}: {_reason(error)}") from None
        check_features(f"{given.path}: {x_name}", x)
        name = f"{given.path.name}: {x_name}"
        pair = Pair(rows_first(x, options), y)
        parts.append(ArrayPart(name, given.split or split, pair, options))
    return parts, notes, offered


def _offered(archive, names: list[str], given: Input) -> Offered:
    """Names of classes; nothing where they cannot be read without running a program."""
    try:
        with _PARSING:
            return offered_among(names, archive)
    except Exception:  # of an array that is not wanted
        return NOTHING


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
        with _PARSING:
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise DataError(f"{path}: not a NumPy array: {_reason(error)}") from None
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise DataError(f"{path}: not a NumPy array but an archive, whose name must end by .npz")
    return loaded


def read_label_arrays(path: Path, options: Options) -> list[tuple[str, np.ndarray]]:
    """Labels of a file: their place in it, and the array; several of an archive with splits. Raises DataError."""
    if path.suffix.lower() == ".npy":
        return [("", _load(path))]
    with _opened(path) as raw:
        try:
            archive = np.load(raw, allow_pickle=False)
            pairs = find_pairs(list(archive.files), "", options.y, str(path))
            with _PARSING:
                return [(f": {name}", archive[name]) for _, name in pairs.values()]
        except LeptonError:
            raise
        except Exception as error:  # NumPy raises whatever a damaged file leads it to
            raise DataError(f"{path}: not a NumPy archive: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if "allow_pickle" in str(error):  # also of anything that is no array, such as a text
        return "it is no array, or it holds Python objects, which are not read because reading them could run a program"
    return one_line(getattr(error, "strerror", None) or error)
