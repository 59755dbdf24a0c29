"""HDF5 files with rows to learn from: how they are found, opened and checked.

What a file holds is said in ``layouts.py``, and in full in ``file_format.py``; what it must not hold, since it may come from
anybody, in ``trust.py``.
Every rank opens the file by itself, read-only and without a lock: many cluster file systems refuse locks.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from lepton_mpi.data.files import probe, python_topics, trust
from lepton_mpi.data.files.layouts import OpenFile, YKind, describe
from lepton_mpi.data.files.other_files import what_it_is
from lepton_mpi.data.files.used import Used, find_used
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

EMBEDDED = Path(__file__).parents[1] / "embedded"

# Folders of what HDF5 itself reads of a file whose rows are trained on.
_NOT_ROWS = ("/normalisation", "/vocabulary")
USUAL_NAMES: probe.Arrays = (None, None)


def locate(name: str) -> Path:
    """Path of an embedded data set by its name, or else the path that ``name`` is."""
    if name == python_topics.NAME:
        return python_topics.locate()
    embedded = EMBEDDED / f"{name}.h5"
    return embedded if Path(name).name == name and embedded.exists() else Path(name)


def locate_all(names: Sequence[str]) -> list[Path]:
    """Paths of all ``names``, of which some may be patterns such as ``shards/*.h5``. Raises DataError."""
    paths = []
    for name in names:
        path = locate(name)
        found = [path]
        if any(sign in name for sign in "*?[") and not _is_there(path):
            found = [Path(match) for match in sorted(glob.glob(name))]
            if not found:
                raise DataError(f"{name}: no file has such a name")
        paths += found
    # The same file may be given by two names.
    true_names = [os.path.realpath(path) if _is_there(path) else str(path) for path in paths]
    counts = Counter(true_names)
    for path, name in zip(paths, true_names, strict=True):
        if counts[name] > 1:
            raise DataError(f"{path}: expected every file once, got it {counts[name]} times")
    return paths


@contextmanager
def open_file(
    path: Path, y_kind: YKind = "auto", arrays: probe.Arrays = USUAL_NAMES
) -> Iterator[OpenFile]:
    """Open ``path`` for reading and check its structure; ``y_kind`` is what ``y`` must be. Raises DataError.

    ``arrays`` are names of features and labels, with ``{split}`` in them for several splits; None: usual names.
    """
    _check_there(path)
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file: {one_line(error)}") from None
    with file:
        try:
            yield describe(file, path, y_kind, check_structure(file, path, arrays))
        except (OSError, RuntimeError, KeyError) as error:  # what h5py raises for damaged content
            raise DataError(f"{path}: damaged: {one_line(error)}") from None


def probe_file(path: Path, arrays: probe.Arrays = USUAL_NAMES) -> None:
    """Have what is read of ``path`` looked at by a process of its own before this one opens it.

    See ``Probe.check``. Raises DataError. To be called by one rank of each host. Does nothing for the files of the package.
    """
    _check_there(path)
    if path.parent != EMBEDDED:
        probe.check(path, arrays)


def probe_all(paths: Sequence[Path], arrays: probe.Arrays = USUAL_NAMES) -> None:
    """The same of files whose rows are read by ``stored_rows.py``, by one process for all of them. Raises DataError.

    That reader checks what it unpacks, so that the look need not unpack all rows.
    """
    for path in paths:
        _check_there(path)
    if strange := [path for path in paths if path.parent != EMBEDDED]:
        probe.check_all(strange, arrays, _NOT_ROWS)


def read_bytes(path: Path, name: str, bytes_max: int) -> bytes | None:
    """A data set of uint8 that stands for bytes, such as JSON; None without it. After ``probe_file``. Raises DataError."""
    _check_there(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_structure(file, path)
            stored = file.get(name)
            if not isinstance(stored, h5py.Dataset):
                return None
            if stored.dtype != np.uint8 or stored.ndim != 1 or stored.size > bytes_max:
                raise DataError(
                    f"{path}: {name}: expected bytes, at most {bytes_max}, got {stored.dtype} of shape {stored.shape}"
                )
            return stored[()].tobytes()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: damaged: {one_line(error)}") from None


def check_structure(file: h5py.File, path: Path, arrays: probe.Arrays = USUAL_NAMES) -> Used:
    """Choose what is read of an open file, and refuse what that must not be; see ``trust.check``. Raises DataError."""
    used = find_used(file, path, *arrays)
    try:
        trust.check(file, path.stat().st_size, used.names)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return used


def check_alike(files: Sequence[OpenFile]) -> None:
    """Refuse files that do not make one data set together. Raises DataError."""
    first = files[0]
    for file in files[1:]:
        for what, expected, came in _facts_of(first, file):
            if expected != came:
                raise DataError(
                    f"{file.path}: expected {what} {one_line(expected)} as in {first.path}, got {one_line(came)}"
                )
        if not first.target_scale.equals(file.target_scale):
            raise DataError(
                f"{file.path}: normalisation/target_shift: expected targets scaled as in {first.path}, got others: prepare the "
                "files together"
            )
        for name in first.normalisation:
            folder = "normalisation" if name == "x" else f"normalisation/inputs/{name}"
            for part, mine, other in zip(
                ("shift", "scale"), first.normalisation[name], file.normalisation[name], strict=True
            ):
                if not np.array_equal(mine, other):
                    raise DataError(
                        f"{file.path}: {folder}/{part}: expected the numbers of {first.path}, got others: prepare the "
                        "files together, or write one normalisation into all of them"
                    )


def _facts_of(first: OpenFile, file: OpenFile) -> Iterator[tuple[str, object, object]]:
    """What of two files must be equal: (what it is, of the first, of the other)."""
    yield "inputs", ", ".join(first.inputs), ", ".join(file.inputs)
    for (name, mine), other in zip(first.inputs.items(), file.inputs.values(), strict=True):
        of = "" if name == "x" else f"{name} with "
        yield f"{of}rows of shape", mine.shape, other.shape
        yield f"{of}kind", mine.kind, other.kind
        yield f"{of}values", mine.values, other.values
    if first.category_names and file.category_names:
        yield "columns of categories", first.category_names, file.category_names
    yield "classes", first.class_names, file.class_names
    yield "targets a row", first.target_count, file.target_count
    yield "context", first.context, file.context
    yield "vocabulary", first.vocabulary, file.vocabulary
    yield "splits", ", ".join(first.sources), ", ".join(file.sources)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _check_there(path: Path) -> None:
    if not _is_there(path):
        known = ", ".join(
            sorted([python_topics.NAME, *(file.stem for file in EMBEDDED.glob("*.h5"))])
        )
        raise DataError(f"{path}: no such file (embedded data sets: {known})")
    if path.is_dir():
        raise DataError(f"{path}: expected a file, got {what_it_is(path)}")
    probe.check_regular(path)
    try:
        what = what_it_is(path)
    except OSError as error:
        raise DataError(f"{path}: not a readable file: {error.strerror}") from None
    if what:
        raise DataError(f"{path}: not a readable HDF5 file: {what}")
