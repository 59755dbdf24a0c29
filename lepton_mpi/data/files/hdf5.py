"""HDF5 files with rows to learn from: the layouts accepted, and how they are opened and checked.

A split is a pair of data sets: ``x``, numbers of shape (rows, ...), and ``y``. That is either whole numbers of
shape (rows,) or (rows, 1), the class of each row from 0 up, or targets: numbers to predict, of shape (rows,) or
(rows, targets). Floats are taken as targets, unless classes are asked for or have names.
A file holds, tried in this order,

1. groups ``train``, and if present ``validation`` and ``test``, each with ``x`` and ``y``;
2. ``x_train`` and ``y_train``, and if present ``x_validation``, ``y_validation``, ``x_test``, ``y_test``;
3. ``x`` and ``y``: all rows, to be split at random.

Optional: ``normalisation/shift`` and ``normalisation/scale``, of the shape of one row or scalar, applied
as ``(x - shift) * scale``; without them, uint8 is divided by 255 and all else is taken as it is. The
attribute ``classes`` of the file may hold the names of the classes. ``file_format.py`` describes all that
``python -m lepton_mpi prepare`` writes.

What a file must not hold, since it may come from anybody, is said in ``trust.py``.
Every rank opens the file by itself, read-only and without a lock: many cluster file systems refuse locks.
"""

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from lepton_mpi.data.files import probe, trust
from lepton_mpi.data.files.file_format import SPLITS, check_version, is_prepared
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

EMBEDDED = Path(__file__).parents[1] / "embedded"
YKind = Literal["auto", "classes", "targets"]

# What HDF5 itself reads of a file whose rows are trained on.
_NOT_ROWS = ("/normalisation/shift", "/normalisation/scale")


@dataclass(frozen=True)
class Source:
    """One split of an open file: its name, its data sets, its number of rows."""

    split: str
    x: h5py.Dataset
    y: h5py.Dataset

    @property
    def row_count(self) -> int:
        return self.x.shape[0]


@dataclass(frozen=True)
class OpenFile:
    """What ``open_file`` found: sources by split, the shape of a row, normalisation, class names.

    ``target_count`` is the number of targets of a row, or 0 where ``y`` are classes. ``is_prepared`` says that ``prepare``
    wrote the file, so that it has all splits that it is to have.
    """

    path: Path
    file: h5py.File
    sources: dict[str, Source]
    feature_shape: tuple[int, ...]
    normalisation: tuple[np.ndarray, np.ndarray]
    class_names: tuple[str, ...]
    target_count: int
    is_prepared: bool


def locate(name: str) -> Path:
    """Path of an embedded data set by its name, or else the path that ``name`` is."""
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
def open_file(path: Path, y_kind: YKind = "auto") -> Iterator[OpenFile]:
    """Open ``path`` for reading and check its structure; ``y_kind`` is what ``y`` must be. Raises DataError."""
    _check_there(path)
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file: {one_line(error)}") from None
    with file:
        check_structure(file, path)
        try:
            yield _describe(file, path, y_kind)
        except (OSError, RuntimeError, KeyError) as error:  # what h5py raises for damaged content
            raise DataError(f"{path}: damaged: {one_line(error)}") from None


def probe_file(path: Path, only: Collection[str] | None = None) -> None:
    """Have all of ``path``, or the data sets ``only``, looked at by a process of its own before this one opens it.

    See ``Probe.check``. Raises DataError. To be called by one rank of each host. Does nothing for the files of the package.
    """
    _check_there(path)
    if path.parent != EMBEDDED:
        probe.check(path, only)


def probe_all(paths: Sequence[Path]) -> None:
    """The same of files whose rows are read by ``stored_rows.py``, by one process for all of them. Raises DataError.

    That reader checks what it unpacks, so that the look need not unpack all rows.
    """
    for path in paths:
        _check_there(path)
    if strange := [path for path in paths if path.parent != EMBEDDED]:
        probe.check_all(strange, None, _NOT_ROWS)


def check_structure(file: h5py.File, path: Path, only: Collection[str] | None = None) -> list[str]:
    """Refuse what an open file must not hold, before anything of it is read; see ``trust.check``. Raises DataError.

    Returns the names of its data sets, or of those of ``only`` that it has.
    """
    try:
        things = trust.check(file, path.stat().st_size, only)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return [name.strip("/") for name, thing in things.items() if trust.is_data_set(thing)]


def check_alike(files: Sequence[OpenFile]) -> None:
    """Refuse files that do not make one data set together. Raises DataError."""
    first = files[0]
    for file in files[1:]:
        pairs = {
            "rows of shape": (first.feature_shape, file.feature_shape),
            "classes": (first.class_names, file.class_names),
            "targets a row": (first.target_count, file.target_count),
            "splits": (", ".join(first.sources), ", ".join(file.sources)),
        }
        for what, (expected, came) in pairs.items():
            if expected != came:
                raise DataError(
                    f"{file.path}: expected {what} {one_line(expected)} as in {first.path}, got {one_line(came)}"
                )
        for name, mine, other in zip(
            ("shift", "scale"), first.normalisation, file.normalisation, strict=True
        ):
            if not np.array_equal(mine, other):
                raise DataError(
                    f"{file.path}: normalisation/{name}: expected the numbers of {first.path}, got others: prepare the "
                    "files together, or write one normalisation into all of them"
                )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _check_there(path: Path) -> None:
    if not _is_there(path):
        known = ", ".join(sorted(file.stem for file in EMBEDDED.glob("*.h5")))
        raise DataError(f"{path}: no such file (embedded data sets: {known})")
    probe.check_regular(path)


def _describe(file: h5py.File, path: Path, y_kind: YKind) -> OpenFile:
    check_version(file.attrs, path)
    names, class_names = _find(file, path), _class_names(file, path)
    if y_kind == "auto":
        kind = getattr(file.get(names["train"][1]), "dtype", np.dtype(int)).kind
        y_kind = "targets" if kind == "f" and not class_names else "classes"
    sources = {split: _source(file, path, split, *pair, y_kind) for split, pair in names.items()}
    feature_shape = sources["train"].x.shape[1:]
    target_count = int(np.prod(sources["train"].y.shape[1:])) if y_kind == "targets" else 0
    for source in sources.values():
        if target_count and np.prod(source.y.shape[1:]) != target_count:
            raise DataError(
                f"{path}: {source.y.name}: expected {target_count} targets a row as in "
                f"{sources['train'].y.name}, got shape {source.y.shape}"
            )
        if source.x.shape[1:] != feature_shape:
            raise DataError(
                f"{path}: {source.x.name}: expected rows of shape {feature_shape} as in "
                f"{sources['train'].x.name}, got {source.x.shape[1:]}"
            )
    byte_scale = 1 / 255 if all(source.x.dtype == np.uint8 for source in sources.values()) else 1.0
    shift = _normaliser(file, path, "shift", feature_shape, 0.0)
    scale = _normaliser(file, path, "scale", feature_shape, byte_scale)
    names = () if target_count else class_names
    return OpenFile(
        *(path, file, sources, feature_shape, (shift, scale), names, target_count),
        is_prepared(file.attrs),
    )


def _class_names(file: h5py.File, path: Path) -> tuple[str, ...]:
    names = file.attrs.get("classes", ())
    listed = isinstance(names, tuple) or (isinstance(names, np.ndarray) and names.ndim == 1)
    texts = [name.decode() if isinstance(name, bytes) else name for name in names] if listed else []
    if not listed or not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise DataError(
            f"{path}: attribute classes: expected a list of printable texts, got {one_line(names)}"
        )
    return tuple(map(str, texts))


def _find(file: h5py.File, path: Path) -> dict[str, tuple[str, str]]:
    """Names of the data sets (x, y) of each split that the file has."""
    for pattern in ("{split}/{name}", "{name}_{split}"):
        pairs = {s: tuple(pattern.format(split=s, name=name) for name in "xy") for s in SPLITS}
        found = {s: pair for s, pair in pairs.items() if any(name in file for name in pair)}
        if "train" in found:
            return found
    if "x" in file or "y" in file:
        return {"train": ("x", "y")}
    there = ", ".join(sorted(file)[:10]) or "nothing"
    raise DataError(
        f"{path}: expected data sets train/x and train/y, or x_train and y_train, or x and y; got {there}"
    )


def _source(
    file: h5py.File, path: Path, split: str, x_name: str, y_name: str, y_kind: YKind
) -> Source:
    for name in (x_name, y_name):
        if not isinstance(file.get(name), h5py.Dataset):
            raise DataError(
                f"{path}: {name}: expected a data set beside {x_name if name == y_name else y_name}"
            )
    x, y = file[x_name], file[y_name]
    if x.dtype.kind not in "iufb" or x.ndim < 1:
        raise DataError(
            f"{path}: {x.name}: expected numbers of shape (rows, ...), got {x.dtype} of shape {x.shape}"
        )
    if 0 in x.shape[1:]:
        raise DataError(
            f"{path}: {x.name}: expected at least one number in a row, got shape {x.shape}"
        )
    _check_y(path, y, y_kind)
    if x.shape[0] != y.shape[0]:
        raise DataError(
            f"{path}: {y.name}: expected {x.shape[0]} rows as in {x.name}, got {y.shape[0]}"
        )
    return Source(split, x, y)


def _check_y(path: Path, y: h5py.Dataset, y_kind: YKind) -> None:
    if y_kind == "classes":
        expected = "whole numbers of shape (rows,)"
        hint = "; --loss mse takes them as numbers to predict" if y.dtype.kind == "f" else ""
        is_good = y.dtype.kind in "iub" and y.ndim >= 1 and y.shape[1:] in ((), (1,))
    else:
        expected, hint = "numbers of shape (rows,) or (rows, targets)", ""
        is_good = y.dtype.kind in "iufb" and y.ndim in (1, 2) and 0 not in y.shape[1:]
    if not is_good:
        raise DataError(
            f"{path}: {y.name}: expected {expected}, got {y.dtype} of shape {y.shape}{hint}"
        )


def _within(file: h5py.File, group_name: str, name: str):
    """What is in a group of the file; None without it; the group's place itself if it is none."""
    group = file.get(group_name)
    return (
        None
        if group is None
        else group.get(name)
        if isinstance(group, h5py.Group)
        else group.parent
    )


def _normaliser(
    file: h5py.File, path: Path, name: str, shape: tuple[int, ...], default: float
) -> np.ndarray:
    """``normalisation/name`` as float64 of shape (features,)."""
    dataset = _within(file, "normalisation", name)
    is_numbers = isinstance(dataset, h5py.Dataset) and dataset.dtype.kind in "iuf"
    if dataset is not None and not is_numbers:
        raise DataError(f"{path}: normalisation/{name}: expected a data set of numbers")
    expected = (
        f"{path}: normalisation/{name}: expected finite numbers of shape {shape} or a single one"
    )
    if dataset is not None and dataset.shape not in ((), shape):
        raise DataError(f"{expected}, got shape {dataset.shape}")
    values = np.asarray(default if dataset is None else dataset[()], np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{expected}, got {values[~np.isfinite(values)][0]}")
    return np.array(np.broadcast_to(values, shape)).reshape(-1)  # a copy that may be written to
