"""The tokens of one split of a text, of one file or of several, of which a row is a window."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lepton_mpi.batch import Input
from lepton_mpi.data.files.stored_rows import StoredRows
from lepton_mpi.data.tables import BLOCK_BYTES, check_codes
from lepton_mpi.data.windows import Windows


@dataclass(frozen=True)
class TokenTable:
    """See ``tables.RowTable``. A row that is read has one token more than the input: the last next token.

    Attributes
    ----------
    specs : mapping of str to Input
        ``tokens`` alone, with the length of a row.
    files : list of StoredRows
        The stream of each.
    windows : Windows
        Which tokens a row is.
    """

    specs: Mapping[str, Input]
    files: list[StoredRows]
    windows: Windows
    _reading: list[StoredRows] = field(default_factory=list, repr=False)

    @property
    def row_count(self) -> int:
        return self.windows.row_count

    @property
    def first(self) -> StoredRows:
        """The stream of the first file, for messages."""
        return self.files[0]

    def stored(self, name: str) -> list[StoredRows]:
        """The stream of each file."""
        return self.files

    def twin(self) -> "TokenTable":
        """The same rows, for another thread."""
        return TokenTable(self.specs, [stored.twin() for stored in self.files], self.windows)

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> np.ndarray:
        """Where runs of rows begin that are read together, and the end: int64, shape (blocks + 1,).

        A run is the rows that begin in about ``block_bytes`` of a file, of whole chunks; one at least.
        """
        starts, first = [], 0
        for stored, rows in zip(self.files, self.windows.counts, strict=True):
            tokens = np.arange(0, stored.row_count, _chunk_tokens(stored, block_bytes))
            starts.append(first + np.minimum(-(-tokens // self.windows.stride), rows))
            first += rows
        return np.unique(np.concatenate([*starts, [first]]).astype(np.int64))

    def read(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """Rows [start, stop) into ``out``, shape (stop - start, length + 1). Raises DataError."""
        starts, _ = self.windows.place(np.arange(start, stop))
        length = self.windows.length
        for stored, base, first, last in self._parts(start, stop):
            begins = starts[first:last] - base
            begin, end = int(begins[0]), int(begins[-1]) + length + 1
            tokens = np.empty(end - begin, out.dtype)
            self._read(stored, begin, end, tokens)
            out[first:last] = sliding_window_view(tokens, length + 1)[begins - begin]

    def memory_shape(self, name: str) -> tuple[int, ...]:
        """The tokens of all files, each once, one behind the other."""
        return (sum(self.windows.token_counts),)

    def memory_blocks(self) -> np.ndarray:
        """Those of tokens."""
        starts, first = [], 0
        for stored in self.files:
            starts.append(
                first + np.arange(0, stored.row_count, _chunk_tokens(stored, BLOCK_BYTES))
            )
            first += stored.row_count
        return np.unique(np.concatenate([*starts, [first]]).astype(np.int64))

    def read_memory(self, name: str, start: int, stop: int, out: np.ndarray) -> None:
        """Tokens [start, stop), counted through all files, into ``out``, shape (stop - start,). Raises DataError."""
        for stored, base in zip(self.files, self.windows.bases.tolist(), strict=True):
            first, last = max(start, base), min(stop, base + stored.row_count)
            if first < last:
                self._read(stored, first - base, last - base, out[first - start : last - start])

    def check_mapped(self, name: str, start: int, block: np.ndarray) -> None:
        """Nothing: a look at a thousand million tokens takes longer than to begin; each is checked when it is used."""

    def read_y(self, start: int, stop: int, out: np.ndarray) -> None:
        """Nothing: the next tokens are read with the rows."""

    def will_need(self, start: int, stop: int) -> None:
        """Have the system read the tokens of rows [start, stop) ahead of their use."""
        if start >= stop:
            return
        starts, _ = self.windows.place(np.arange(start, stop))
        for stored, base, first, last in self._parts(start, stop):
            end = int(starts[last - 1]) - base + self.windows.length + 1
            stored.will_need(int(starts[first]) - base, end)

    def place_of(self, row: int) -> str:
        """File, data set and first token of a row, for a message."""
        (start,), _ = self.windows.place(np.array([row]))
        ((stored, base, _, _),) = self._parts(row, row + 1)
        return f"{stored.path}: {stored.name}: tokens from {start - base}"

    def _read(self, stored: StoredRows, start: int, stop: int, out: np.ndarray) -> None:
        """Tokens of a file as they are: one that is too large for ``out`` must not become another one. Raises DataError."""
        # Only the file that is being read keeps a chunk in memory: there may be thousands of them.
        if self._reading and self._reading[0] is not stored:
            self._reading.pop().forget()
        self._reading[:] = [stored]
        is_direct = stored.dtype == out.dtype
        tokens = out if is_direct else np.empty(out.shape, stored.dtype)
        stored.read(start, stop, tokens)
        check_codes(self.specs["tokens"], stored, start, tokens.reshape(-1, 1), "token")
        if not is_direct:
            out[:] = tokens

    def _parts(self, start: int, stop: int) -> Iterator[tuple[StoredRows, int, int, int]]:
        """Yield (file, its first position, first, last) for the files of rows [start, stop), which count from ``start``."""
        begin = 0
        bases = self.windows.bases.tolist()
        for stored, base, rows in zip(self.files, bases, self.windows.counts, strict=True):
            first, last = max(start, begin), min(stop, begin + rows)
            if first < last:
                yield stored, base, first - start, last - start
            begin += rows


def _chunk_tokens(stored: StoredRows, block_bytes: int) -> int:
    """Tokens of a run of whole chunks, of about so many bytes."""
    chunks = max(1, round(block_bytes / (stored.dtype.itemsize * stored.chunk_rows)))
    return chunks * stored.chunk_rows
