"""From paths to tables: every file is opened once, checked, and stays open for its rows alone."""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lepton_mpi.data.files import hdf5
from lepton_mpi.data.files.class_names import same_in_all
from lepton_mpi.data.files.layouts import OpenFile, YKind
from lepton_mpi.data.files.probe import Arrays
from lepton_mpi.data.files.stored_file import StoredFile
from lepton_mpi.data.files.stored_rows import StoredRows
from lepton_mpi.data.tables import RowTable, Table
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.data.token_tables import TokenTable
from lepton_mpi.data.windows import Windows
from lepton_mpi.errors import DataError

# A feature this many times its spread away from 0 would lose more than 2**-14 of it to float32's 24 bits.
_FAR_SPREADS = 2.0**10
# What MPI, Python and the libraries have open.
_OTHER_OPEN_FILES = 200


@dataclass(frozen=True)
class Opened:
    """What the files say of themselves, all alike, and tables by split of those that have some of its rows."""

    facts: OpenFile
    tables: dict[str, RowTable]
    is_prepared: bool

    def with_targets(self, scale_for: Callable[[int], TargetScale]) -> "Opened":
        """The same, with targets scaled as ``scale_for`` says for as many as a row has. Raises DataError."""
        if not self.facts.target_count:
            return self
        scale = scale_for(self.facts.target_count)
        tables = {
            split: replace(table, target_scale=scale) if isinstance(table, Table) else table
            for split, table in self.tables.items()
        }
        return replace(self, facts=replace(self.facts, target_scale=scale), tables=tables)


def open_all(
    paths: list[Path],
    y_kind: YKind,
    arrays: Arrays,
    context: int,
    stride: int,
    retry_seconds: float = 0.0,
) -> Opened:
    """Open the files of a data set; what is asked for is as in ``loader.Wanted``. Raises DataError."""
    _allow_open_files(len(paths))
    found: list[OpenFile] = []
    parts: dict[str, _Part] = {}
    for path in paths:
        with hdf5.open_file(path, y_kind, arrays) as opened:
            stays_open = StoredFile(path, opened.file)
            stays_open.retry_seconds = retry_seconds
            for split, source in opened.sources.items():
                part = parts.setdefault(split, _Part({}, [], []))
                for name, data_set in source.inputs.items():
                    part.inputs.setdefault(name, []).append(StoredRows(stays_open, data_set))
                if source.y is not None:
                    part.y.append(StoredRows(stays_open, source.y))
                starts = source.document_starts
                part.documents.append(None if starts is None else StoredRows(stays_open, starts))
        found.append(opened)
    hdf5.check_alike(found)
    first = replace(found[0], offered=same_in_all([file.offered for file in found]))
    if first.y_kind == "tokens":
        first = _with_rows(first, context)
        length = first.inputs["tokens"].size
        tables = {s: _token_table(first, part, stride or length) for s, part in parts.items()}
    else:
        tables = {s: _table(first, part) for s, part in parts.items()}
    train = next(iter(tables.values()))
    if train.row_count == 0:
        what = "rows to train on, got none"
        if isinstance(train, TokenTable):
            what = (
                f"more than {length} tokens to train on, got {train.first.row_count}; see --context"
            )
        raise DataError(f"{train.first.path}: {train.first.name}: expected {what}")
    return Opened(first, tables, any(file.is_prepared for file in found))


def _table(facts: OpenFile, part: "_Part") -> RowTable:
    return Table(facts.inputs, part.inputs, part.y, len(facts.class_names), facts.target_scale)


def _with_rows(facts: OpenFile, context: int) -> OpenFile:
    """With the length that a row of the text has. Raises DataError."""
    length = context or facts.context
    if not length:
        raise DataError(
            f"{facts.path}: train/tokens: expected an attribute context, the tokens of a row, got none; --context says it"
        )
    return replace(facts, inputs={"tokens": facts.inputs["tokens"]._replace(shape=(length,))})


def _token_table(facts: OpenFile, part: "_Part", stride: int) -> RowTable:
    """Raises DataError for document starts that cannot be."""
    files = part.inputs["tokens"]
    counts = tuple(stored.row_count for stored in files)
    documents, base = [np.zeros(0, np.int64)], 0
    for starts, count in zip(part.documents, counts, strict=True):
        if starts is not None:
            documents.append(base + _document_starts(starts, count))
        base += count
    windows = Windows(counts, facts.inputs["tokens"].size, stride, np.concatenate(documents))
    return TokenTable(facts.inputs, files, windows)


def _document_starts(stored: StoredRows, token_count: int) -> np.ndarray:
    """Ascending positions in the stream of a file, int64."""
    starts = np.empty((stored.row_count, 1), stored.dtype)
    stored.read(0, stored.row_count, starts)
    starts = starts.reshape(-1)
    is_within = not starts.size or (starts[0] >= 0 and starts[-1] < max(token_count, 1))
    if not is_within or (starts[1:] <= starts[:-1]).any():
        raise DataError(
            f"{stored.path}: {stored.name}: expected ascending positions of tokens, below {token_count}, got others"
        )
    return starts.astype(np.int64)


@dataclass(frozen=True)
class _Part:
    """Data sets of a split, one of each file."""

    inputs: dict[str, list[StoredRows]]
    y: list[StoredRows]
    documents: list[StoredRows | None]


def bases_of(
    facts: OpenFile, tables: Mapping[str, RowTable], dtype: np.dtype
) -> dict[str, np.ndarray]:
    """What is subtracted from each input that is numbers when it is read, before it is rounded to ``dtype``.

    float64, shape (features,), by input: the shift of features that are far from 0 for their spread, else 0. Times that are
    seconds apart are one float32, until their mean is gone; other features keep the bits that they had before.
    """
    bases = {}
    for name, (shift, scale) in facts.normalisation.items():
        of_rows = [table for table in tables.values() if isinstance(table, Table)]
        stored = {rows.dtype for table in of_rows for rows in table.inputs[name]}
        is_exact = all(np.can_cast(kind, dtype) for kind in stored)
        bases[name] = np.zeros(shift.shape) if is_exact else base_of(shift, scale)
    return bases


def base_of(shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The shift of features that are far from 0 for their spread, else 0; arrays are float64 (features,)."""
    return np.where(np.abs(shift * scale) > _FAR_SPREADS, shift, 0.0)


def less_bases(table: RowTable, bases: Mapping[str, np.ndarray]) -> RowTable:
    """The table that subtracts them."""
    return replace(table, bases=bases) if isinstance(table, Table) else table


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
