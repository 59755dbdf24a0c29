"""Rows of prepared files in chunks that do not depend on the number of ranks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.data.rows import Rows
from lepton_mpi.errors import DataError
from lepton_mpi.run import evaluation

# Batches of a chunk: a round of messages costs less than they do.
_BATCHES = 32


@dataclass(frozen=True)
class Chunk:
    """Rows [start, stop) of ``rows``."""

    rows: Rows
    start: int
    stop: int

    @property
    def row_count(self) -> int:
        return self.stop - self.start


class PreparedRows:
    """The rows of a split, or with ``all`` every row, in the order of the file: training, validation, test.

    Attributes
    ----------
    chunks : list of Chunk
    names_splits : bool
        Whether rows are of several splits.
    """

    def __init__(self, data: DataSet, split: str) -> None:
        self._data = data
        self._reader = BatchReader(data, evaluation.batch_rows(data))
        chosen = [data.splits[name] for name in ([split] if split != "all" else SPLITS)]
        there = [rows for rows in chosen if rows.row_count]
        self._splits = {name: data.splits[name] for name in SPLITS if data.splits[name].row_count}
        self.names_splits = split == "all" and len(self._splits) > 1
        if not there:
            have = ", ".join(f"{rows.row_count} {name}" for name, rows in data.splits.items())
            raise DataError(
                f"{data.paths[0]}: expected {split} rows, got none; it has {have}; --split chooses"
            )
        if split == "all":
            # Rows that were held out lie among those that were not.
            by_table = {id(rows.table): rows for rows in there}
            there = [replace(rows, chosen=None) for rows in by_table.values()]
        size = _BATCHES * evaluation.rows_of_call(self._reader)
        self.chunks = [
            Chunk(rows, start, min(start + size, rows.row_count))
            for rows in there
            for start in range(0, rows.row_count, size)
        ]

    def batches(self, chunk: Chunk) -> Iterator[Batch]:
        """The rows; a batch lasts until the next."""
        size = evaluation.rows_of_call(self._reader)
        for read in reads_in_order(chunk.rows, chunk.start, chunk.stop, size):
            yield self._reader.read(read)

    def splits(self, chunk: Chunk) -> np.ndarray:
        """Which split each row is of, int32: its place in ``SPLITS``."""
        numbers = chunk.rows.numbers(chunk.start, chunk.stop)
        out = np.zeros(len(numbers), np.int32)
        for code, name in enumerate(SPLITS):
            rows = self._splits.get(name)
            if rows is None or rows.table is not chunk.rows.table:
                continue
            out[np.isin(numbers, rows.chosen) if rows.chosen is not None else slice(None)] = code
        return out
