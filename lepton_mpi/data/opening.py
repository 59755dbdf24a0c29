"""From paths to tables: every file is opened once, checked, and stays open for its rows alone."""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lepton_mpi.data.files import hdf5
from lepton_mpi.data.files.layouts import OpenFile, YKind
from lepton_mpi.data.files.stored_rows import StoredFile, StoredRows
from lepton_mpi.data.tables import Table
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import DataError

# What MPI, Python and the libraries have open.
_OTHER_OPEN_FILES = 200


@dataclass(frozen=True)
class Opened:
    """What the files say of themselves, all alike, and tables by split of those that have some of its rows."""

    facts: OpenFile
    tables: dict[str, Table]
    is_prepared: bool


def open_all(
    paths: list[Path],
    y_kind: YKind,
    target_scale: Callable[[int], TargetScale] | None = None,
) -> Opened:
    """Open the files of a data set; ``target_scale`` counts in place of theirs, for as many targets. Raises DataError."""
    _allow_open_files(len(paths))
    found: list[OpenFile] = []
    parts: dict[str, _Part] = {}
    for path in paths:
        with hdf5.open_file(path, y_kind) as opened:
            stays_open = StoredFile(path, opened.file)
            for split, source in opened.sources.items():
                part = parts.setdefault(split, _Part({}, []))
                for name, data_set in source.inputs.items():
                    part.inputs.setdefault(name, []).append(StoredRows(stays_open, data_set))
                part.y.append(StoredRows(stays_open, source.y))
        found.append(opened)
    hdf5.check_alike(found)
    first = found[0]
    if target_scale is not None and first.target_count:
        first = replace(first, target_scale=target_scale(first.target_count))
    tables = {
        split: Table(first.inputs, part.inputs, part.y, len(first.class_names), first.target_scale)
        for split, part in parts.items()
    }
    train = tables["train"]
    if train.row_count == 0:
        raise DataError(
            f"{train.first.path}: {train.first.name}: expected rows to train on, got none"
        )
    return Opened(first, tables, any(file.is_prepared for file in found))


@dataclass(frozen=True)
class _Part:
    """Data sets of a split, one of each file."""

    inputs: dict[str, list[StoredRows]]
    y: list[StoredRows]


def bases_of(
    facts: OpenFile, tables: Mapping[str, Table], dtype: np.dtype
) -> dict[str, np.ndarray]:
    """What is subtracted from each input that is numbers when it is read: the shift, if ``dtype`` rounds what is stored.

    float64, shape (features,), by input. Times that are seconds apart are one float32, until their mean is gone.
    """
    bases = {}
    for name, (shift, _) in facts.normalisation.items():
        stored = {rows.dtype for table in tables.values() for rows in table.inputs[name]}
        is_exact = all(np.can_cast(kind, dtype) for kind in stored)
        bases[name] = np.zeros_like(shift) if is_exact else shift
    return bases


def _allow_open_files(count: int) -> None:
    """Raise this process's limit of open files, if it must be and can be. Raises DataError."""
    wanted = count + _OTHER_OPEN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise DataError(
            f"{count} files: expected at most {max(0, hard - _OTHER_OPEN_FILES)}, since a process may open {hard} here: put "
            "them together, or ask for more (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
