"""Parquet tables, read by pyarrow (the extra ``parquet``); a block is a row group of the file."""

import numpy as np

from lepton_mpi.errors import DataError, LauncherError, one_line
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, Source, Words
from lepton_mpi.prepare.readers.arrays import labels_as_words
from lepton_mpi.prepare.readers.columns import Cells, Roles, block_of, choose_roles
from lepton_mpi.prepare.readers.inputs import Input


def open_parquet(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """All files as one table: they must have the same columns. Collective."""
    with world.agreeing():
        files = [_open(given) for given in inputs]
        names = tuple(files[0].schema_arrow.names)
        for given, file in zip(inputs, files, strict=True):
            if tuple(file.schema_arrow.names) != names:
                raise DataError(
                    f"{given.path}: expected the columns of {inputs[0].path}: {', '.join(names)[:200]}"
                )
        roles = choose_roles(names, options, inputs[0].path.name)
        parts = []
        for given, file in zip(inputs, files, strict=True):
            first_rows = np.cumsum(
                [0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))]
            )
            parts.append(ParquetPart(given, file, first_rows.tolist(), roles, options))
    return Source(
        tuple(parts),
        "Parquet",
        (len(roles.features),),
        roles.feature_names,
        f"the label column {roles.label_name!r}",
        categorical=roles.categorical_features,
    )


def _open(given: Input):
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise LauncherError(
            "Parquet is read by pyarrow: pip install 'lepton_mpi[parquet]'"
        ) from None
    try:
        return parquet.ParquetFile(given.path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{given.path}: not a readable Parquet file: {one_line(error)}") from None


class ParquetPart:
    """One file; see ``Part``."""

    def __init__(
        self, given: Input, file, first_rows: list[int], roles: Roles, options: Options
    ) -> None:
        self.name, self.split, self._path, self._file = (
            given.path.name,
            given.split,
            given.path,
            file,
        )
        self._first_rows, self._roles = first_rows, roles
        self._missing = frozenset(options.missing_words)

    @property
    def block_count(self) -> int:
        return self._file.num_row_groups

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, index: int) -> Block:
        """Block ``index``. Raises DataError."""
        import pyarrow

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
