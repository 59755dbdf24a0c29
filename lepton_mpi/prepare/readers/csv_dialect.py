"""How a CSV file is written: its delimiter, its header, the names of its columns."""

import csv
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.wording import one_line, printable

# The first records are looked for in so many bytes.
_HEAD_BYTES = 4 << 20
_DELIMITERS = ",;\t|"


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


def sniff(path: Path, options: Options) -> Dialect:
    """Delimiter, header and names of the columns, from the first records. Raises DataError."""
    with open_raw(path) as file:
        head = read_raw(file, path, 0, _HEAD_BYTES)
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
    names = tuple(_unique([printable(name.strip()) for name in records[0]]))
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
    quote = re.escape(options.quote)
    bare = text if options.quote == "none" else re.sub(f"{quote}[^{quote}]*{quote}", "", text)
    first = bare.lstrip("\r\n").split("\n", 1)[0]
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


def open_raw(path: Path) -> BinaryIO:
    """The file, unpacked if it is gzipped. Raises DataError."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if packed else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def read_raw(file: BinaryIO, path: Path, start: int, count: int) -> bytes:
    """Bytes from ``start``, fewer at the end of the file; all of them if ``count`` is -1. Raises DataError."""
    try:
        file.seek(start)
        return file.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged: {one_line(error)}") from None
