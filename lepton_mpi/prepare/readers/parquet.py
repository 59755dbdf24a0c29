"""Parquet tables, read by pyarrow (the extra ``parquet``); a block is a row group of the file."""

from pathlib import Path

import numpy as np

from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, Source, Words
from lepton_mpi.prepare.readers.arrays import labels_as_words
from lepton_mpi.prepare.readers.columns import Cells, Roles, block_of, choose_roles
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line


def open_parquet(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """All files as one table: they must have the same columns. Collective."""
    with world.agreeing():
        found = [_look(given) for given in inputs]
        names = found[0][0]
        for given, (others, _) in zip(inputs, found, strict=True):
            if others != names:
                raise DataError(
                    f"{given.path}: expected the columns of {inputs[0].path}: {', '.join(names)[:200]}"
                )
        roles = choose_roles(names, options, inputs[0].path.name)
        parts = [
            ParquetPart(given, first_rows, roles, options)
            for given, (_, first_rows) in zip(inputs, found, strict=True)
        ]
    return Source(
        tuple(parts),
        "Parquet",
        (len(roles.features),),
        roles.feature_names,
        f"the label column {roles.label_name!r}",
        categorical=roles.categorical_features,
    )


def _look(given: Input) -> tuple[tuple[str, ...], list[int]]:
    """Names of the columns of a file, and the first row of each row group."""
    with _open(given.path) as file:
        groups = (file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        return tuple(file.schema_arrow.names), np.cumsum([0, *groups]).tolist()


def _open(path: Path):
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise LauncherError(
            "Parquet is read by pyarrow: pip install 'lepton_mpi[parquet]'"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file: {one_line(error)}") from None


class ParquetPart:
    """One file; see ``Part``."""

    def __init__(self, given: Input, first_rows: list[int], roles: Roles, options: Options) -> None:
        self.name, self.split, self._path = given.path.name, given.split, given.path
        self._file, self._first_rows, self._roles = None, first_rows, roles
        self._missing = frozenset(options.missing_words)

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
        first, names = self._first_rows[index], self._roles.names
        numbers = np.full((table.num_rows, len(names)), np.nan)
        used = {*self._roles.features, *self._roles.labels, *self._roles.texts}
        words = {}
        for number in sorted(used):
            place = f"{self._path}: column {names[number]!r}"
            column = table.column(number)
            if pyarrow.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
                words[number] = self._words(column)
            else:
                numbers[:, number] = _numbers(column, place)
                if number in self._roles.texts:
                    words[number] = labels_as_words(numbers[:, number], place, first, as_text=True)
        return block_of(Cells(numbers, words, None, first), self._roles, self._path)

    def _words(self, column) -> Words:
        cells = column.to_pylist()
        return Words.of([None if not cell or cell in self._missing else cell for cell in cells])


def _numbers(column, place: str) -> np.ndarray:
    import pyarrow

    kinds = pyarrow.types
    fits = (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_decimal, kinds.is_null)
    if not any(fit(column.type) for fit in fits):
        raise DataError(
            f"{place}: expected numbers or texts, got {column.type}; --drop-columns leaves it out"
        )
    if kinds.is_boolean(column.type):
        column = column.cast(pyarrow.uint8())
    try:
        return column.cast(pyarrow.float64()).to_numpy()
    except pyarrow.ArrowException as error:  # whole numbers beyond 2**53
        raise DataError(
            f"{place}: expected numbers that float64 can hold: {one_line(error)}"
        ) from None
