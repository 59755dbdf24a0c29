"""CSV files, plain or gzipped, cut into blocks at newlines that are in no quotes.

Whether a newline is in quotes depends on all quotes before it, but only on whether their number is odd. So every rank
counts the quotes of its own pieces of a file and notes the first newline of each piece for both cases; from the notes of all
pieces, every rank knows where the lines begin at which blocks are cut, and their numbers. (The idea is that of Ge, Li,
Eilebrecht, Chandramouli and Kossmann, "Speculative distributed CSV data parsing", SIGMOD 2019, without speculation.)
A gzipped file has to be unpacked from its beginning: rank 0 cuts it, and each rank unpacks it once in a pass.
"""

import csv
import gzip
import io
import itertools
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError, one_line
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, Source, Words, csv_kernels
from lepton_mpi.prepare.readers.columns import Cells, Roles, block_of, choose_roles
from lepton_mpi.prepare.readers.inputs import Input

# The first records are looked for in so many bytes.
_HEAD_BYTES = 4 << 20
_DELIMITERS = ",;\t|"
_POWERS = 10.0 ** np.arange(23)


@dataclass(frozen=True)
class Dialect:
    """How a file is written, and where its records begin.

    ``delimiter``, ``quote`` (0: none) and ``decimal`` are bytes; ``start`` is the first byte behind the header, on line
    ``first_line``.
    """

    delimiter: int
    quote: int
    decimal: int
    encoding: str
    names: tuple[str, ...]
    start: int
    first_line: int
    header: str  # for the report


class Piece(NamedTuple):
    """What a piece of a file tells of where its lines begin."""

    quotes: int
    newlines: int
    # First byte behind a newline, and newlines up to it, if the piece begins outside quotes, or inside; -1: none.
    begins: tuple[int, int]
    lines: tuple[int, int]


def open_csv(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """All files as one table: they must have the same columns. Collective."""
    world.first_of_host_first(_import_kernels)
    parts, dialects = [], []
    for given in inputs:
        with world.agreeing():
            dialect = world_first(world, lambda given=given: sniff(given.path, options))
        dialect = world.comm.bcast(dialect)
        if dialects and dialect.names != dialects[0].names:
            with world.agreeing():
                raise DataError(_other_columns(given, inputs[0], dialect, dialects[0]))
        dialects.append(dialect)
        bounds = _bounds(given.path, dialect, options.block, world)
        parts.append((given, dialect, bounds))
    with world.agreeing():
        roles = choose_roles(dialects[0].names, options, inputs[0].path.name)
    words = frozenset(options.missing_words)
    made = tuple(CsvPart(given, dialect, bounds, roles, words) for given, dialect, bounds in parts)
    return Source(
        made,
        "CSV",
        (len(roles.features),),
        roles.feature_names,
        f"the label column {roles.label_name!r}",
        categorical=roles.categorical_features,
        notes=(dialects[0].header,),
    )


def world_first(world, function):
    """``function()`` on rank 0, None elsewhere."""
    return function() if world.rank == 0 else None


def _import_kernels() -> None:
    assert csv_kernels.split_cells.signatures


def _other_columns(given: Input, first: Input, got: Dialect, wanted: Dialect) -> str:
    name = next(
        (
            f"{b!r} in place of {a!r}"
            for a, b in zip(wanted.names, got.names, strict=False)
            if a != b
        ),
        f"{len(got.names)} columns in place of {len(wanted.names)}",
    )
    return f"{given.path}: expected the columns of {first.path}, got {name}"


def _open(path: Path) -> BinaryIO:
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if packed else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _read(file: BinaryIO, path: Path, start: int, count: int) -> bytes:
    try:
        file.seek(start)
        return file.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged: {one_line(error)}") from None


# -- the dialect -------------------------------------------------------------------------------------


def sniff(path: Path, options: Options) -> Dialect:
    """Delimiter, header and names of the columns, from the first records. Raises DataError."""
    with _open(path) as file:
        head = _read(file, path, 0, _HEAD_BYTES)
    if not head.strip():
        raise DataError(f"{path}: expected rows, got an empty file")
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    if b"\0" in head[:4096]:
        raise DataError(
            f"{path}: expected text, got bytes of 0; CSV must be in an encoding such as UTF-8"
        )
    first_line = 1
    if options.header not in ("auto", "none"):
        for _ in range(int(options.header) - 1):
            start = head.find(b"\n", start) + 1
            first_line += 1
            if start == 0:
                raise DataError(
                    f"{path}: expected a header in line {options.header}, got fewer lines"
                )
    text = _decoded(head[start:], options.encoding, path)
    delimiter = _delimiter(text, options, path)
    records = _first_records(text, delimiter, options.quote, path)
    has_header = options.header != "none" and (
        options.header != "auto" or _is_header(records, options)
    )
    width = len(records[0])
    if not has_header:
        names = tuple(f"column {i}" for i in range(width))
        return Dialect(
            *_bytes(delimiter, options), options.encoding, names, start, first_line, "no header"
        )
    names = tuple(_unique([name.strip() for name in records[0]]))
    lines, end = _end_of_first_record(head, start, options.quote)
    return Dialect(
        *_bytes(delimiter, options),
        options.encoding,
        names,
        end,
        first_line + lines,
        f"header in line {first_line}",
    )


def _decoded(raw: bytes, encoding: str, path: Path) -> str:
    try:
        # The last character may be cut.
        return io.TextIOWrapper(
            io.BytesIO(raw[: raw.rfind(b"\n") + 1] or raw), encoding, newline=""
        ).read()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}: line {line}: expected text in {encoding}, got byte {raw[error.start]:#04x}; see --encoding"
        ) from None
    except LookupError:
        raise ConfigurationError(f"--encoding: expected an encoding, got {encoding!r}") from None


def _delimiter(text: str, options: Options, path: Path) -> str:
    if options.delimiter != "auto":
        return {"tab": "\t", "space": " "}.get(options.delimiter, options.delimiter)
    first = text.lstrip("\r\n").split("\n", 1)[0]
    candidates = [c for c in _DELIMITERS if c != options.decimal]
    found = max(candidates, key=first.count)
    if first.count(found) == 0:
        if " " in first.strip():
            return " "
        raise DataError(
            f"{path}: line 1: expected cells divided by a comma, semicolon, tab, bar or space, got "
            f"{one_line(first)[:40]!r}; see --delimiter"
        )
    return found


def _first_records(text: str, delimiter: str, quote: str, path: Path) -> list[list[str]]:
    quoting = {"quoting": csv.QUOTE_NONE} if quote == "none" else {"quotechar": quote}
    if delimiter == " ":
        text = "\n".join(" ".join(line.split()) for line in text.split("\n")[:8])
    records = []
    try:
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **quoting):
            if record:
                records.append(record)
            if len(records) == 2:
                break
    except csv.Error as error:
        raise DataError(f"{path}: line 1: {one_line(error)}") from None
    return records


def _is_header(records: list[list[str]], options: Options) -> bool:
    """No cell of the first record is a number or missing, and all differ."""
    cells = [cell.strip() for cell in records[0]]
    plain = all(
        cell and cell not in options.missing_words and not _is_number(cell) for cell in cells
    )
    return plain and len(set(cells)) == len(cells)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _unique(names: list[str]) -> list[str]:
    """Names of columns; an empty one gets its number, a second one of a name likewise."""
    seen: set[str] = set()
    for i, name in enumerate(names):
        names[i] = name if name and name not in seen else f"{name or 'column'} {i}"
        seen.add(names[i])
    return names


def _end_of_first_record(head: bytes, start: int, quote: str) -> tuple[int, int]:
    """Newlines up to the end of the first record that is not empty, and its end."""
    lines = 0
    while head[start : start + 1] in (b"\n", b"\r"):
        lines += head[start] == ord("\n")
        start += 1
    at, inside, quote_byte = start, False, b"" if quote == "none" else quote.encode()
    while at < len(head):
        end = head.find(b"\n", at)
        end = len(head) if end < 0 else end + 1
        inside ^= bool(quote_byte) and head[at:end].count(quote_byte) % 2 == 1
        at, lines = end, lines + 1
        if not inside:
            break
    return lines, at


def _bytes(delimiter: str, options: Options) -> tuple[int, int, int]:
    quote = 0 if options.quote == "none" else ord(options.quote)
    raw = delimiter.encode()
    if len(raw) != 1:
        raise ConfigurationError(f"--delimiter: expected a character of ASCII, got {delimiter!r}")
    return raw[0], quote, ord(options.decimal)


# -- where blocks are cut ----------------------------------------------------------------------------


def _bounds(path: Path, dialect: Dialect, block_bytes: int, world) -> list[tuple[int, int, int]]:
    """(start, stop, line of the first record) of each block. Collective."""
    with world.agreeing():
        mine = _pieces(path, dialect, block_bytes, world.rank, world.size)
    pieces: dict[int, Piece] = {}
    for some in world.comm.allgather(mine):
        pieces |= some
    in_order = [pieces[number] for number in sorted(pieces)]
    return cut(in_order, dialect.start, block_bytes, dialect.first_line)[0]


def _pieces(
    path: Path, dialect: Dialect, block_bytes: int, rank: int, world_size: int
) -> dict[int, Piece]:
    """This rank's pieces by their numbers."""
    pieces = {}
    with _open(path) as file:
        packed = isinstance(file, gzip.GzipFile)
        if packed and rank > 0:
            return pieces
        for number in itertools.count(rank, 1 if packed else world_size):
            raw = _read(file, path, dialect.start + number * block_bytes, block_bytes)
            if not raw:
                return pieces
            pieces[number] = look_at_piece(raw, dialect.quote)


def look_at_piece(raw: bytes, quote: int) -> Piece:
    """Quotes, newlines, and the first newline outside quotes for both cases."""
    newlines, mark = raw.count(b"\n"), bytes([quote])
    quotes = raw.count(mark) if quote else 0
    if not quotes:
        begin = raw.find(b"\n") + 1
        return Piece(0, newlines, (begin or -1, -1), (1 if begin else 0, 0))
    data = np.frombuffer(raw, np.uint8)
    at = np.flatnonzero(data == 10)
    odd = np.searchsorted(np.flatnonzero(data == quote), at) % 2 == 1
    begins, lines = [], []
    for inside in (False, True):
        outside = np.flatnonzero(odd == inside)
        begins.append(int(at[outside[0]]) + 1 if outside.size else -1)
        lines.append(int(outside[0]) + 1 if outside.size else 0)
    return Piece(quotes, newlines, tuple(begins), tuple(lines))


def cut(
    pieces: list[Piece], start: int, piece_bytes: int, first_line: int
) -> tuple[list[tuple[int, int, int]], bool]:
    """(start, stop, first line) of each block, and whether the file ends in quotes. Pure.

    A block begins behind the first newline outside quotes of its piece, and ends where the next begins; a piece without
    such a newline belongs to the block before. The last block's stop is -1, for the end of the file.
    """
    begins, inside, line = [(start, first_line)] if pieces else [], False, first_line
    for number, piece in enumerate(pieces):
        if number and piece.begins[inside] >= 0:
            begins.append(
                (start + number * piece_bytes + piece.begins[inside], line + piece.lines[inside])
            )
        inside ^= piece.quotes % 2 == 1
        line += piece.newlines
    stops = [begin for begin, _ in begins[1:]] + [-1]
    return [(begin, stop, at) for (begin, at), stop in zip(begins, stops, strict=False)], inside


# -- blocks ------------------------------------------------------------------------------------------


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
        self._file: BinaryIO | None = None

    @property
    def block_count(self) -> int:
        return len(self._bounds)

    def read(self, index: int) -> Block:
        """Block ``index``. Raises DataError."""
        start, stop, line = self._bounds[index]
        if self._file is None:
            self._file = _open(self.path)
        raw = _read(self._file, self.path, start, stop - start if stop >= 0 else -1)
        return block_of(self._cells(raw, line), self._roles, self.path)

    def _cells(self, raw: bytes, first_line: int) -> Cells:
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
        self._check_widths(np.diff(record_cells[: row_count + 1]), lines)
        width = len(dialect.names)
        numbers, kinds = np.empty(cell_count), np.empty(cell_count, np.uint8)
        csv_kernels.parse_numbers(
            text, starts[:cell_count], stops[:cell_count], dialect.decimal, _POWERS, numbers, kinds
        )
        shape = (row_count, width)
        table = _Table(
            raw, bytes([dialect.quote]), starts, stops, doubled, numbers.reshape(shape), kinds.reshape(shape)
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
        """Numbers of more digits than the kernel is exact for, by Python's own conversion."""
        cells = np.flatnonzero(table.kinds == csv_kernels.LONG_NUMBER)
        raw, decimal = table.raw, bytes([self._dialect.decimal])
        bounds = zip(table.starts[cells].tolist(), table.stops[cells].tolist(), strict=True)
        values = [float(raw[start:stop].replace(decimal, b".")) for start, stop in bounds]
        table.numbers.reshape(-1)[cells] = values

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
            cells[row] = None if not text or text in self._missing else text
        return cells

    def _check_widths(self, widths: np.ndarray, lines: np.ndarray) -> None:
        names = self._dialect.names
        wrong = np.flatnonzero(widths != len(names))
        if wrong.size:
            row = wrong[0]
            missing = f", none for {names[widths[row]]!r}" if widths[row] < len(names) else ""
            raise DataError(
                f"{self.path}: line {lines[row]}: expected {len(names)} cells as in the first line, "
                f"got {widths[row]}{missing}"
            )

    def _refuse_quotes(self, raw: bytes, first_line: int, wrong: int, where: int) -> None:
        line = first_line + raw.count(b"\n", 0, where)
        record = raw[raw.rfind(b"\n", 0, where) + 1 : where]
        column = min(record.count(bytes([self._dialect.delimiter])), len(self._dialect.names) - 1)
        what = {
            csv_kernels.UNCLOSED: "expected a closing quote, got the end of the file",
            csv_kernels.AFTER_QUOTE: "expected a delimiter behind a closing quote",
            csv_kernels.INSIDE_CELL: "expected quotes around the whole cell, got one inside it",
        }[wrong]
        raise DataError(
            f"{self.path}: line {line}, column {self._dialect.names[column]!r}: {what}; a quote in a quoted cell is "
            "written twice; --quote none takes quotes as ordinary characters"
        )


@dataclass(frozen=True)
class _Table:
    """Bounds and numbers of the cells of one block; ``numbers`` and ``kinds`` are of shape (rows, columns)."""

    raw: bytes
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
