"""How a CSV file is written: its delimiter, its header, the names of its columns."""

import io
import re
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers.csv_header import Guess, guess_header
from lepton_mpi.prepare.readers.csv_raw import Notation, RawFile, wide_encoding
from lepton_mpi.prepare.readers.csv_sample import (
    Sample,
    check_first_lines,
    check_quotes,
    check_units_line,
    find_decimal,
    find_delimiter,
    first_records,
)
from lepton_mpi.prepare.readers.hints import Hints, hints_of, names_rows
from lepton_mpi.wording import printable

# As Excel writes it, and takes it.
_SEPARATOR = re.compile(rb'"?sep=([\x20-\x7e\t])"?\r?\n', re.IGNORECASE)
# The first records are looked for in so many bytes.
_HEAD_BYTES = 4 << 20


@dataclass(frozen=True)
class Dialect:
    """How a file is written, and where its records begin.

    ``delimiter``, ``quote`` (0: none) and ``decimal`` are bytes; ``start`` is the first byte behind the header, on line
    ``first_line``, and ``stop`` the first behind the last row, -1 for the end of the file, both as ``RawFile`` counts.
    """

    delimiter: int
    quote: int
    decimal: int
    encoding: str
    notation: Notation
    names: tuple[str, ...]
    start: int
    first_line: int
    notes: tuple[str, ...]  # for the report
    hints: Hints = field(default_factory=Hints)
    stop: int = -1


def sniff(path: Path, options: Options) -> Dialect:
    """Delimiter, header and names of the columns, from the first records. Raises DataError."""
    notation, head = _head(path, options)
    encoding = "utf-8" if notation.wide else options.encoding
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    notes = []
    if (
        told := _SEPARATOR.match(head, start)
        if options.header == "auto" and not options.skip
        else None
    ):
        notes.append(f"line 1 says that {told[1].decode()!r} divides the cells")
        if options.delimiter == "auto":
            options = replace(options, delimiter=told[1].decode())
        start, first_line = told.end(), 2
    else:
        start, first_line = _skipped(head, start, options, path)
    text = _decoded(head[start:], encoding, path)
    delimiter = find_delimiter(text, options, path)
    found = first_records(text, delimiter, options.quote, path)
    if not found.records:
        raise DataError(f"{path}: expected rows, got empty lines only")
    if options.header == "auto":
        check_first_lines(found, first_line, path, options.words_for_missing)
    check_quotes(text, found, first_line, options, path)
    found, names_note = _with_all_names(found)
    guess = _guess(found, first_line, options, path)
    is_in = f"header in line {first_line - 1 + found.lines[0]}" if guess.is_header else "no header"
    notes = [is_in + (f" ({guess.why})" if guess.why else ""), *notes, *names_note]
    lines = 0
    if guess.is_header:
        if options.header == "auto" and not options.units_line:
            check_units_line(found, first_line, path)
        for _ in range(1 + options.units_line):
            more, start = _end_of_first_record(head, start, options.quote, delimiter)
            lines += more
    rows = found.below(guess.is_header + (guess.is_header and options.units_line))
    decimal = find_decimal(rows, delimiter, options, path)
    notes += ["decimal comma"] if decimal == "," else []
    notes += [f"text in {notation.wide}"] if notation.wide else []
    names, more_notes = _names(found.records[0], guess.is_header, options)
    hints = hints_of(found.records[0] if guess.is_header else (), names, rows, options)
    if not guess.is_header:
        hints = replace(hints, first_record=tuple(cell.strip() for cell in found.records[0]))
    return Dialect(
        *_bytes(delimiter, options.quote, decimal),
        encoding,
        notation,
        names,
        start,
        first_line + lines,
        (*notes, *more_notes),
        hints,
    )


def _head(path: Path, options: Options) -> tuple[Notation, bytes]:
    """How the bytes are to be read, and the first of them. Raises DataError."""
    quote = 0 if options.quote == "none" else ord(options.quote)
    comment = 0 if options.comment == "none" else ord(options.comment)
    notation = Notation(
        wide_encoding(path, options.encoding), False, comment, options.escape != "none", quote
    )
    with closing(RawFile(path, notation)) as file:
        head = file.read(0, _HEAD_BYTES, begins_line=True)
    if b"\n" not in head and b"\r" in head.strip(b"\r"):
        notation = replace(notation, returns=True)
        with closing(RawFile(path, notation)) as file:
            head = file.read(0, _HEAD_BYTES, begins_line=True)
    if not head.strip():
        raise DataError(f"{path}: expected rows, got an empty file")
    if b"\0" in head[:4096]:
        zeros = head[:4096].count(0)
        wide = "utf-16-be" if head[0] == 0 else "utf-16-le"
        raise DataError(
            f"{path}: expected text, got bytes of 0; CSV must be in an encoding such as UTF-8"
            + (f"; --encoding {wide} may read it" if 3 * zeros > len(head[:4096]) else "")
        )
    return notation, head


def _skipped(head: bytes, start: int, options: Options, path: Path) -> tuple[int, int]:
    """First byte and line that may be a header. Raises DataError."""
    given = options.header not in ("auto", "none")
    count = int(options.header) - 1 if given else options.skip
    for _ in range(count):
        start = head.find(b"\n", start) + 1
        if start == 0:
            what = f"a header in line {options.header}" if given else f"more than {count} lines"
            raise DataError(f"{path}: expected {what}, got fewer lines")
    return start, 1 + count


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


def _with_all_names(found: Sample) -> tuple[Sample, list[str]]:
    """The same where the first record has one cell less than the rows, as R and some others write headers."""
    first, rows = found.records[0], found.below(1)
    if len(first) + 1 != found.width or len(rows) < 2 or len(rows) < len(found.records) - 1:
        return found, []
    at_end = not any(row[-1].strip() for row in rows)
    if not at_end and not names_rows([row[0] for row in rows]):
        return found, []
    named = [*first, ""] if at_end else ["", *first]
    records = [named, *found.records[1:]]
    return Sample(records, found.lines), [f"no name for the {'last' if at_end else 'first'} column"]


def _guess(found: Sample, first_line: int, options: Options, path: Path) -> Guess:
    """What the first record is, by ``--header`` or the records below it. Raises DataError if that does not tell."""
    if options.header != "auto":
        return Guess(options.header != "none", "")
    first, below = found.records[0], found.below(1)
    if first[0][:1] in ("#", "%") and len(first) == found.width > 1:
        first = [first[0][1:], *first[1:]]  # as numpy.savetxt writes a header
    if len(first) != found.width:
        below = []
    guess = guess_header(first, below, options.words_for_missing)
    if guess.is_header is None:
        line = first_line - 1 + found.lines[0]
        raise DataError(
            f"{path}: line {line}: a header or a row? {guess.why}; say --header {line} or --header none"
        )
    return guess


def _names(
    first: list[str], is_header: bool, options: Options
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the columns, and what to say of them."""
    if not is_header:
        return tuple(f"column {i}" for i in range(len(first))), ()
    cells = [printable(name.strip()) for name in first]
    if cells[0][:1] in ("#", "%") and len(cells) > 1:
        cells[0] = cells[0][1:].strip()
    names = list(cells)
    seen: set[str] = set()
    for i, name in enumerate(names):
        names[i] = name if name and name not in seen else f"{name or 'column'} {i}"
        seen.add(names[i])
    twice = sorted({name for name in cells if name and cells.count(name) > 1})
    notes = (f"several columns are called {', '.join(twice[:5])}: numbered",) if twice else ()
    return tuple(names), notes


def _end_of_first_record(head: bytes, start: int, quote: str, delimiter: str) -> tuple[int, int]:
    """Newlines up to the end of the first record that is not empty, and its end."""
    blank = b" \t\r" if delimiter != "\t" else b" \r"
    at, lines, inside, is_record = start, 0, False, False
    quote_byte = b"" if quote == "none" else quote.encode()
    while at < len(head) and (inside or not is_record):
        end = head.find(b"\n", at)
        end = len(head) if end < 0 else end + 1
        line = head[at:end]
        is_record |= bool(line.strip(blank + b"\n"))
        inside ^= bool(quote_byte) and line.count(quote_byte) % 2 == 1
        at, lines = end, lines + 1
    return lines, at


def _bytes(delimiter: str, quote: str, decimal: str) -> tuple[int, int, int]:
    raw = delimiter.encode()
    if len(raw) != 1:
        raise ConfigurationError(f"--delimiter: expected a character of ASCII, got {delimiter!r}")
    return raw[0], 0 if quote == "none" else ord(quote), ord(decimal)
