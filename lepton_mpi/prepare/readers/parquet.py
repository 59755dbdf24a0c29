"""Parquet tables, read by pyarrow (the extra ``parquet``); a block is a row group of a file.

A folder of files, as Spark and Dask write them, is one table; folders in it called KEY=VALUE are a column KEY.
A column of lists, all of one length, is that many columns of numbers. What pandas stored as its index is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.extras import pip_install
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Block, Source, Words
from lepton_mpi.prepare.readers.arrays import labels_as_words
from lepton_mpi.prepare.readers.cells import Cells, block_of
from lepton_mpi.prepare.readers.columns import Roles, choose_roles, table_source
from lepton_mpi.prepare.readers.hints import Hints, hints_of
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line

_SAMPLE_ROWS = 400
# How Hive, and so Spark, writes a key without a value.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class File:
    """A file of a table: its path, what it is called in messages, its split, and what its folders say of all its rows."""

    path: Path
    name: str
    split: str | None
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A column as it is stored, and the columns of the table that it makes: ``width`` of them from ``first`` on."""

    name: str
    first: int
    width: int
    is_list: bool


def open_parquet(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """All files as one table: they must have the same columns. Collective."""
    with world.agreeing():
        files = [file for given in inputs for file in files_of(given)]
        looks = [_look(file.path) for file in files]
        for file, (names, _) in zip(files, looks, strict=True):
            if names != looks[0][0] or tuple(file.keys) != tuple(files[0].keys):
                raise DataError(
                    f"{file.path}: expected the columns of {files[0].path}: {', '.join(looks[0][0])[:200]}"
                )
        columns, hints = _columns(files[0], looks[0][0], options)
        names = [name for column in columns for name in _names(column)]
        roles = choose_roles(
            [*names, *files[0].keys], options, inputs[0].path.name, hints, _decimal(options)
        )
        are_numbers = _keys_of_numbers(files)
        parts = [
            ParquetPart(file, first_rows, columns, are_numbers, roles, options)
            for file, (_, first_rows) in zip(files, looks, strict=True)
        ]
    return table_source(parts, "Parquet", roles)


def files_of(given: Input) -> list[File]:
    """The file, or all that a folder holds, in the order of their names. Raises DataError."""
    if not given.path.is_dir():
        return [File(given.path, given.path.name, given.split)]
    found = []
    for path in sorted(given.path.rglob("*")):
        inside = path.relative_to(given.path)
        hidden = any(part.startswith(("_", ".")) for part in inside.parts)
        if hidden or path.suffix.lower() not in (".parquet", ".pq") or not path.is_file():
            continue
        pairs = [part.partition("=") for part in inside.parts[:-1]]
        keys = {unquote(key): unquote(value) for key, sign, value in pairs if sign}
        found.append(File(path, f"{given.path.name}/{inside.as_posix()}", given.split, keys))
    if not found:
        raise DataError(f"{given.path}: expected .parquet files in the folder, got none")
    return found


def _decimal(options: Options) -> str:
    return "." if options.decimal == "auto" else options.decimal


def _look(path: Path) -> tuple[tuple[str, ...], list[int]]:
    """Names of the columns of a file, and the first row of each row group."""
    with _open(path) as file:
        groups = (file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        return tuple(file.schema_arrow.names), np.cumsum([0, *groups]).tolist()


def _columns(file: File, names: tuple[str, ...], options: Options) -> tuple[list[Column], Hints]:
    """Stored columns with the places of theirs in the table, and what the first rows tell. Raises DataError."""
    import pyarrow

    with _open(file.path) as opened:
        try:
            batch = next(opened.iter_batches(_SAMPLE_ROWS), None)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{file.path}: row group 0: damaged: {one_line(error)}") from None
        metadata = opened.schema_arrow.pandas_metadata or {}
        types = [opened.schema_arrow.field(i).type for i in range(len(names))]
    columns, texts, first = [], [], 0
    for number, (name, kind) in enumerate(zip(names, types, strict=True)):
        cells = batch.column(number).to_pylist() if batch is not None else []
        is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or (
            pyarrow.types.is_fixed_size_list(kind)
        )  # fmt: skip
        width = next((len(cell) for cell in cells if cell is not None), 1) if is_list else 1
        columns.append(Column(name, first, width, is_list))
        texts += [["" if cell is None or is_list else str(cell) for cell in cells]] * width
        first += width
    found = hints_of((), [str(i) for i in range(first)], list(zip(*texts, strict=True)), options)
    index = set(hints_of(
        [name for column in columns for name in _names(column)],
        *([""] * first, list(zip(*texts, strict=True)), options),
    ).index)  # fmt: skip
    stored = {name for name in metadata.get("index_columns", ()) if isinstance(name, str)}
    index |= {column.first for column in columns if column.name in stored}
    groups = {
        column.name: tuple(range(column.first, column.first + column.width))
        for column in columns
        if column.is_list
    }
    return columns, replace(found, index=frozenset(index), empty=frozenset(), groups=groups)


def _names(column: Column) -> list[str]:
    if not column.is_list:
        return [column.name]
    return [f"{column.name} {number}" for number in range(column.width)]


def _keys_of_numbers(files: list[File]) -> dict[str, bool]:
    """Of each key of the folders: whether all its values are numbers."""
    return {
        key: all(plain_number(f.keys[key]) is not None for f in files if f.keys[key] != _NO_VALUE)
        for key in files[0].keys
    }


def _open(path: Path):
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise LauncherError(f"Parquet is read by pyarrow: {pip_install('parquet')}") from None
    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file: {one_line(error)}") from None


class ParquetPart:
    """One file; see ``Part``.

    Parameters
    ----------
    file : File
    first_rows : list of int
        Of each row group, and the end.
    columns : list of Column
    are_numbers : dict of str to bool
        Of each key of the folders.
    roles, options
        What the columns are for.
    """

    def __init__(
        self,
        file: File,
        first_rows: list[int],
        columns: list[Column],
        are_numbers: Mapping[str, bool],
        roles: Roles,
        options: Options,
    ) -> None:
        self.name, self.split, self._path = file.name, file.split, file.path
        self._file, self._first_rows, self._roles = None, first_rows, roles
        self._columns, self._keys, self._are_numbers = columns, file.keys, are_numbers
        self._missing = frozenset(options.words_for_missing)
        self._used = {*roles.features, *roles.labels, *roles.texts}

    @property
    def block_count(self) -> int:
        return len(self._first_rows) - 1

    def close(self) -> None:
        """Close the file, which a later ``read`` opens again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, index: int) -> Block:
        """Block ``index``. Raises DataError."""
        import pyarrow

        if self._file is None:
            self._file = _open(self._path)
        try:
            table = self._file.read_row_group(index)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(
                f"{self._path}: row group {index}: damaged: {one_line(error)}"
            ) from None
        first = self._first_rows[index]
        cells = Cells(np.full((table.num_rows, len(self._roles.names)), np.nan), {}, None, first)
        for number, column in enumerate(self._columns):
            if self._used & {*range(column.first, column.first + column.width)}:
                self._set(cells, column, table.column(number))
        for place, key in enumerate(self._keys, start=len(self._roles.names) - len(self._keys)):
            self._set_key(cells, place, key)
        return block_of(cells, self._roles, self._path)

    def _set(self, cells: Cells, column: Column, stored: Any) -> None:
        """Cells of one stored column. Raises DataError."""
        import pyarrow

        place, kinds = f"{self._path}: column {column.name!r}", pyarrow.types
        if column.is_list:
            rows = _from_lists(stored, column.width, place, cells.first_row)
            cells.numbers[:, column.first : column.first + column.width] = rows
            return
        if kinds.is_dictionary(stored.type):
            stored = stored.cast(stored.type.value_type)
        number = column.first
        if kinds.is_string(stored.type) or kinds.is_large_string(stored.type):
            texts = stored.to_pylist()
            cells.words[number] = Words.of(
                [None if not text or text in self._missing else text for text in texts]
            )
            return
        if kinds.is_temporal(stored.type) and number in self._roles.dates:
            has_day = kinds.is_date(stored.type) or kinds.is_timestamp(stored.type)
            cells.numbers[:, number] = _seconds(stored, place) - has_day * self._roles.since
            return
        cells.numbers[:, number] = _numbers(stored, place)
        if number in self._roles.texts:
            cells.words[number] = labels_as_words(
                cells.numbers[:, number], place, cells.first_row, as_text=True
            )

    def _set_key(self, cells: Cells, place: int, key: str) -> None:
        """What the file's folder says, in every row."""
        text, rows = self._keys[key], len(cells.numbers)
        is_missing = text == _NO_VALUE or text in self._missing
        if self._are_numbers[key] and not is_missing:
            cells.numbers[:, place] = plain_number(text)
        if not self._are_numbers[key] or place in self._roles.texts:
            cells.words[place] = Words.of([None if is_missing else text] * rows)


def _numbers(column: Any, place: str) -> np.ndarray:
    import pyarrow

    kinds = pyarrow.types
    fits = (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_decimal, kinds.is_null)
    if not any(fit(column.type) for fit in fits):
        name = place.rpartition("column ")[2].strip("'")
        dates = f"--dates {name} reads it, " if kinds.is_temporal(column.type) else ""
        raise DataError(
            f"{place}: expected numbers or texts, got {column.type}; {dates}--drop-columns leaves it out"
        )
    if kinds.is_boolean(column.type):
        column = column.cast(pyarrow.uint8())
    try:
        return column.cast(pyarrow.float64()).to_numpy()
    except pyarrow.ArrowException as error:  # whole numbers beyond 2**53
        raise DataError(
            f"{place}: expected numbers that float64 can hold: {one_line(error)}"
        ) from None


def _from_lists(column: Any, width: int, place: str, first_row: int) -> np.ndarray:
    """Lists of ``width`` numbers as rows; NaN where there is no list. Raises DataError."""
    import pyarrow.compute as compute

    lengths = compute.fill_null(compute.list_value_length(column), width).to_numpy()
    wrong = np.flatnonzero(lengths != width)
    if wrong.size:
        raise DataError(
            f"{place}: row {first_row + wrong[0]}: expected a list of {width} numbers as in the first row, got "
            f"{lengths[wrong[0]]}; --drop-columns leaves it out"
        )
    there = column.is_valid().to_numpy()
    rows = np.full((len(column), width), np.nan)
    rows[there] = _numbers(compute.list_flatten(column), place).reshape(-1, width)
    return rows


def _seconds(column: Any, place: str) -> np.ndarray:
    """Dates and times as seconds since 1970, times of a day since midnight, durations as they are; NaN where missing."""
    import pyarrow

    kinds = pyarrow.types
    if kinds.is_date(column.type):
        column = column.cast(pyarrow.timestamp("s"))
    unit = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
    whole = column.cast(pyarrow.int32() if kinds.is_time32(column.type) else pyarrow.int64())
    values = whole.to_pylist()
    return np.array([np.nan if value is None else value / unit for value in values], np.float64)
