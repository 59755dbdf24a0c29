"""CSV files, plain or gzipped, as tables; see csv_dialect.py, csv_cuts.py and csv_kernels.py for the steps."""

import re
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, Source, Words, csv_kernels, long_number_kernels
from lepton_mpi.prepare.readers.cells import Cells, block_of
from lepton_mpi.prepare.readers.columns import Roles, choose_roles, table_source
from lepton_mpi.prepare.readers.csv_cuts import block_bounds, without_footer
from lepton_mpi.prepare.readers.csv_dialect import Dialect, sniff
from lepton_mpi.prepare.readers.csv_raw import RawFile
from lepton_mpi.prepare.readers.csv_sample import FOOTER_MAX, REMARK_SIGNS
from lepton_mpi.prepare.readers.inputs import Input

# What a backslash and a letter mean, as MySQL writes them; a backslash before a quote is gone by then.
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MEANT = {"\\": "\\", "n": "\n", "t": "\t", "r": "\r", "0": "\0", ",": ",", ";": ";"}
_POWERS = 10.0 ** np.arange(23)
_FIVES = long_number_kernels.powers_of_five()


def open_csv(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """All files as one table: they must have the same columns. Collective."""
    parts, dialects = [], []
    for given in inputs:
        with world.agreeing():
            dialect = _dialect(given, options) if world.rank == 0 else None
        dialect = world.comm.bcast(dialect)
        if dialects and dialect.names != dialects[0].names:
            with world.agreeing():
                raise DataError(_other_columns(given, inputs[0], dialect, dialects[0]))
        dialects.append(dialect)
        bounds = block_bounds(given.path, dialect, options.block, world)
        parts.append((given, dialect, bounds))
    with world.agreeing():
        decimal = chr(dialects[0].decimal)
        roles = choose_roles(
            dialects[0].names, options, inputs[0].path.name, dialects[0].hints, decimal
        )
    words = frozenset(options.words_for_missing)
    made = tuple(CsvPart(given, dialect, bounds, roles, words) for given, dialect, bounds in parts)
    return table_source(made, "CSV", roles, dialects[0].notes)


def _dialect(given: Input, options: Options) -> Dialect:
    dialect = sniff(given.path, options)
    if options.footer:
        dialect = without_footer(given.path, dialect, options.footer)
    return dialect


def _other_columns(given: Input, first: Input, got: Dialect, wanted: Dialect) -> str:
    name = next(
        (
            f"{b!r} in place of {a!r}"
            for a, b in zip(wanted.names, got.names, strict=False)
            if a != b
        ),
        f"{len(got.names)} column{'s' * (len(got.names) != 1)} in place of {len(wanted.names)}",
    )
    is_labels = len(got.names) == 1 < len(wanted.names)
    hint = f"; --labels {given.path}, if it holds the labels of {first.path}" * is_labels
    return f"{given.path}: expected the columns of {first.path}, got {name}{hint}"


class CsvPart:
    """One file; see ``Part``."""

    def __init__(
        self,
        given: Input,
        dialect: Dialect,
        bounds: list[tuple[int, int, int]],
        roles: Roles,
        missing_words: frozenset[str],
    ) -> None:
        self.name, self.split, self.path = given.path.name, given.split, given.path
        self._dialect, self._bounds, self._roles = dialect, bounds, roles
        self._missing = missing_words
        self._file: RawFile | None = None

    @property
    def block_count(self) -> int:
        return len(self._bounds)

    def read(self, index: int) -> Block:
        """Block ``index``. Raises DataError."""
        start, stop, line = self._bounds[index]
        if self._file is None:
            self._file = RawFile(self.path, self._dialect.notation)
        raw = self._file.read(start, stop - start if stop >= 0 else -1, begins_line=True)
        return block_of(
            self._cells(raw, line, index == len(self._bounds) - 1), self._roles, self.path
        )

    def close(self) -> None:
        """Close the file, which a later ``read`` opens again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _cells(self, raw: bytes, first_line: int, is_last: bool) -> Cells:
        dialect = self._dialect
        text = np.frombuffer(raw, np.uint8).copy()  # the kernels take arrays that may be written to
        space = raw.count(b"\n") + raw.count(bytes([dialect.delimiter])) + 2
        starts, stops = np.empty(space, np.int64), np.empty(space, np.int64)
        doubled, found = np.empty(space, np.bool_), np.zeros(4, np.int64)
        records = raw.count(b"\n") + 2
        record_cells, record_starts = np.empty(records, np.int64), np.empty(records, np.int64)
        csv_kernels.split_cells(
            text, dialect.delimiter, dialect.quote, starts, stops, doubled, record_cells, record_starts, found
        )  # fmt: skip
        cell_count, row_count, wrong, where = map(int, found)
        if wrong:
            self._refuse_quotes(raw, first_line, wrong, where)
        newlines = np.flatnonzero(text == 10)
        lines = first_line + np.searchsorted(newlines, record_starts[:row_count])
        widths = np.diff(record_cells[: row_count + 1])
        if (widths != len(dialect.names)).any():
            self._refuse_widths(raw, widths, lines, record_starts, is_last)
        width = len(dialect.names)
        numbers, kinds = np.empty(cell_count), np.empty(cell_count, np.uint8)
        csv_kernels.parse_numbers(
            text, starts[:cell_count], stops[:cell_count], dialect.decimal, _POWERS, numbers, kinds
        )
        shape = (row_count, width)
        table = _Table(
            raw, text, bytes([dialect.quote]), starts, stops, doubled, numbers.reshape(shape), kinds.reshape(shape)
        )  # fmt: skip
        return self._columns(table, lines)

    def _columns(self, table: "_Table", lines: np.ndarray) -> Cells:
        """Numbers where cells are numbers, words in the columns where some are not."""
        table.numbers[table.kinds != csv_kernels.NUMBER] = np.nan
        self._round_long_numbers(table)
        used = {*self._roles.features, *self._roles.labels}
        wanted = self._roles.texts
        odd = set(np.flatnonzero((table.kinds == csv_kernels.TEXT).any(axis=0)).tolist()) & used
        words = {}
        for column in sorted(odd | wanted):
            cells = self._texts(table, column, lines, all_of_them=column in wanted)
            if column in wanted or any(cell is not None for cell in cells):
                words[column] = Words.of(cells)
        return Cells(table.numbers, words, lines)

    def _round_long_numbers(self, table: "_Table") -> None:
        """Numbers of more digits than one operation rounds exactly; those that the kernel leaves, by Python's conversion."""
        cells = np.flatnonzero(table.kinds == csv_kernels.LONG_NUMBER)
        if not cells.size:
            return
        numbers, done = table.numbers.reshape(-1), np.empty(cells.size, np.bool_)
        long_number_kernels.round_long_numbers(
            table.text, cells, table.starts, table.stops, self._dialect.decimal, _FIVES, numbers.view(np.uint64), done
        )  # fmt: skip
        raw, decimal, cells = table.raw, bytes([self._dialect.decimal]), cells[~done]
        bounds = zip(table.starts[cells].tolist(), table.stops[cells].tolist(), strict=True)
        numbers[cells] = [float(raw[start:stop].replace(decimal, b".")) for start, stop in bounds]

    def _texts(
        self, table: "_Table", column: int, lines: np.ndarray, all_of_them: bool
    ) -> list[str | None]:
        """Texts of a column, None for cells that are missing, and unless ``all_of_them`` for numbers."""
        kinds = table.kinds[:, column]
        rows = (
            range(len(kinds)) if all_of_them else np.flatnonzero(kinds == csv_kernels.TEXT).tolist()
        )
        cells: list[str | None] = [None] * len(kinds)
        for row in rows:
            raw = table.raw_cell(row, column)
            try:
                text = raw.decode(self._dialect.encoding)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{self.path}: line {lines[row]}, column {self._dialect.names[column]!r}: expected text in "
                    f"{self._dialect.encoding}, got byte {raw[error.start]:#04x}; see --encoding"
                ) from None
            if self._dialect.notation.escape and "\\" in text:
                text = _ESCAPED.sub(lambda found: _MEANT.get(found[1], found[0]), text)
            cells[row] = None if not text or text in self._missing else text
        return cells

    def _refuse_widths(
        self,
        raw: bytes,
        widths: np.ndarray,
        lines: np.ndarray,
        record_starts: np.ndarray,
        is_last: bool,
    ) -> NoReturn:
        names = self._dialect.names
        row = int(np.flatnonzero(widths != len(names))[0])
        missing = f", none for {names[widths[row]]!r}" if widths[row] < len(names) else ""
        sign, left = chr(raw[record_starts[row]]), len(widths) - row
        hint = ""
        if sign in REMARK_SIGNS:
            hint = f"; --comment '{sign}' leaves out lines that begin so"
        elif self._dialect.delimiter == ord(" ") and not row:
            hint = "; blanks divide the cells: quotes are around a cell that holds one, or --delimiter says another"
        elif is_last and row and left <= FOOTER_MAX:
            hint = f"; --footer {left} leaves out the last lines"
        raise DataError(
            f"{self.path}: line {lines[row]}: expected {len(names)} cells as in the first line, "
            f"got {widths[row]}{missing}{hint}"
        )

    def _refuse_quotes(self, raw: bytes, first_line: int, wrong: int, where: int) -> NoReturn:
        line = first_line + raw.count(b"\n", 0, where)
        record = raw[raw.rfind(b"\n", 0, where) + 1 : where]
        column = min(record.count(bytes([self._dialect.delimiter])), len(self._dialect.names) - 1)
        if raw[max(0, where - 2) : where + 1].find(b"\\") >= 0 and self._dialect.quote:
            hint = "--escape '\\' takes the meaning from a quote behind a backslash"
        else:
            hint = "a quote in a quoted cell is written twice; --quote none takes quotes as ordinary characters"
        what = {
            csv_kernels.UNCLOSED: "expected a closing quote, got the end of the file",
            csv_kernels.AFTER_QUOTE: "expected a delimiter behind a closing quote",
            csv_kernels.INSIDE_CELL: "expected quotes around the whole cell, got one inside it",
        }[wrong]
        raise DataError(
            f"{self.path}: line {line}, column {self._dialect.names[column]!r}: {what}; {hint}"
        )


@dataclass(frozen=True)
class _Table:
    """Bounds and numbers of the cells of one block; ``numbers`` and ``kinds`` are of shape (rows, columns)."""

    raw: bytes
    text: np.ndarray  # the same bytes
    quote: bytes
    starts: np.ndarray
    stops: np.ndarray
    doubled: np.ndarray
    numbers: np.ndarray
    kinds: np.ndarray

    def raw_cell(self, row: int, column: int) -> bytes:
        """Bytes of a cell, two quotes in it being one."""
        cell = row * self.kinds.shape[1] + column
        raw = self.raw[self.starts[cell] : self.stops[cell]]
        return raw.replace(self.quote * 2, self.quote) if self.doubled[cell] else raw
