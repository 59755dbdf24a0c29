"""The first records of a CSV file, cut by the standard library, and what they tell: delimiter, preamble, quotes, decimal comma."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers.csv_header import guess_header, is_value
from lepton_mpi.wording import one_line

# Records that are looked at, and lines that the delimiter is told from.
_RECORDS, _LINES = 400, 100
# In the order in which they are believed, if all lines have as many of each.
_DELIMITERS = "\t;|,"
# Records that a title of a spreadsheet and what follows it may take.
_TITLE_RECORDS = 20
# Lines behind the last row that may be a footer.
FOOTER_MAX = 10
REMARK_SIGNS = "#%|!*;@"
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_COMMA_GROUPS = re.compile(r"[+-]?\d{1,3},\d{3}")


@dataclass(frozen=True)
class Sample:
    """Cells of the first records, and the line of each, from 1 for the first line of the text."""

    records: list[list[str]]
    lines: list[int]

    @property
    def width(self) -> int:
        """Cells of most records behind the first."""
        widths = Counter(map(len, self.records[1:] or self.records))
        return widths.most_common(1)[0][0]

    def below(self, first: int) -> list[list[str]]:
        """Records from number ``first`` that are as wide as most."""
        return [record for record in self.records[first:] if len(record) == self.width]


def first_records(text: str, delimiter: str, quote: str, path: Path) -> Sample:
    """As many as are looked at; empty lines are none. Raises DataError."""
    quoting = {"quoting": csv.QUOTE_NONE} if quote == "none" else {"quotechar": quote}
    lines = [line.strip("\r") for line in text.split("\n")]
    if delimiter == " ":
        lines = [" ".join(line.split()) for line in lines[:_RECORDS]]
    found = Sample([], [])
    reader = csv.reader(
        (line + "\n" for line in lines), delimiter=delimiter, skipinitialspace=True, **quoting
    )
    before = 0
    try:
        for record in reader:
            if len(record) > 1 or (record and record[0].strip()):
                found.records.append(record)
                found.lines.append(before + 1)
            before = reader.line_num
            if len(found.records) == _RECORDS:
                break
    except csv.Error as error:
        raise DataError(f"{path}: line {before + 1}: {one_line(error)}") from None
    return found


def find_delimiter(text: str, options: Options, path: Path) -> str:
    """What divides the cells of most lines into equally many. Raises DataError."""
    if options.delimiter != "auto":
        return {"tab": "\t", "space": " "}.get(options.delimiter, options.delimiter)
    quote = re.escape(options.quote)
    bare = text if options.quote == "none" else re.sub(f"{quote}[^{quote}]*{quote}", "q", text)
    lines = [line for line in bare.split("\n") if line.strip()][:_LINES]
    if len(lines) > 2 and not text.endswith("\n"):
        lines = lines[:-1]  # may be cut
    shares = {}
    for sign in _DELIMITERS.replace(options.decimal, ""):
        counts = Counter(line.count(sign) for line in lines)
        counts.pop(0, None)
        if counts:
            shares[sign] = counts.most_common(1)[0][1] / len(lines)
    if shares:
        return max(shares, key=lambda sign: shares[sign])  # of equals the first
    words = {len(line.split()) for line in lines}
    if words == {1}:
        return ","
    if len(words) == 1 or (len(words) == 2 and len(lines[0].split()) < max(words)):
        return " "
    raise DataError(
        f"{path}: line 1: expected cells divided by a comma, semicolon, tab, bar or space, got "
        f"{one_line(lines[0])[:40]!r}; see --delimiter, --skip"
    )


def check_first_lines(
    found: Sample, first_line: int, path: Path, missing_words: Sequence[str]
) -> None:
    """Raise DataError for lines above the table that are no part of it, and say how to leave them out."""
    records, width = found.records, found.width
    if len(records) < 3 or width < 2:
        return
    sign, cells = records[0][0][:1], len(records[0])
    if cells == width:
        odd = _records_above_names(found, missing_words)
    else:
        odd = next((i for i, record in enumerate(records) if len(record) == width), 0)
        if cells == width - 1 and odd == 1 and not _names_values(found, 1, missing_words):
            return  # names of all columns but that of the rows' names
    if not odd:
        return
    got = f"{cells} cells, most below hold {width}" if cells != width else "no names of columns"
    if sign and sign in REMARK_SIGNS and all(record[0].startswith(sign) for record in records[:odd]):  # fmt: skip
        raise DataError(
            f"{path}: line {first_line}: expected {width} cells as in most lines, got {cells}; "
            f"--comment '{sign}' leaves out lines that begin so"
        )
    last = found.lines[odd] - 1
    lines = "line 1 holds" if last == 1 else f"lines 1 to {last} hold"
    raise DataError(
        f"{path}: {lines} {got}: --skip {first_line - 1 + last} leaves what "
        f"stands above the table out; got {one_line(records[0][0])[:40]!r}"
    )


def _records_above_names(found: Sample, missing_words: Sequence[str]) -> int:
    """How many records with mostly empty cells, as of a spreadsheet's title, stand above one with names of values."""
    records = found.records
    first = [cell for cell in records[0] if cell.strip()]
    if found.width - len(first) < 2 or 2 * len(first) > found.width:
        return 0
    full = (i for i, record in enumerate(records[:_TITLE_RECORDS]) if all(map(str.strip, record)))
    number = next(full, 0)
    return number if _names_values(found, number, missing_words) else 0


def _names_values(found: Sample, number: int, missing_words: Sequence[str]) -> bool:
    """Whether a record is a header by what stands below it: names above values."""
    record, below = found.records[number], found.below(number + 1)
    guess = guess_header(record, below, missing_words)
    texts = [not is_value(cell) and cell not in missing_words for cell in record]
    above_values = (
        is_text and all(is_value(row[column]) for row in below if row[column].strip())
        for column, is_text in enumerate(texts)
    )
    return bool(below) and bool(guess.is_header) and any(above_values)


def check_quotes(text: str, found: Sample, first_line: int, options: Options, path: Path) -> None:
    """Raise DataError for cells in single quotes, which hold delimiters or numbers, in a text without double ones."""
    if options.quote != '"' or '"' in text:
        return
    rows = list(zip(found.records, found.lines, strict=True))[1:]
    for row, line in rows:
        begins = [i for i, cell in enumerate(row) if cell.startswith("'") and not _is_quoted(cell)]
        ends = [i for i, cell in enumerate(row) if cell.endswith("'") and not _is_quoted(cell)]
        is_cut = bool(begins) and bool(ends) and begins[0] < ends[-1]
        number = next((c for c in row if _is_quoted(c) and plain_number(c[1:-1]) is not None), "")
        if is_cut or number:
            got = repr(number) if number else f"{row[begins[0]]!r} and {row[ends[-1]]!r}"
            raise DataError(
                f'{path}: line {first_line - 1 + line}: a cell in single quotes? got {got}: --quote "\'" takes them for '
                "quotes, --quote none for letters"
            )


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == "'"


def check_units_line(found: Sample, first_line: int, path: Path) -> None:
    """Raise DataError if the line below the header holds units, as far as can be seen."""
    rows = found.below(1)
    if len(rows) < 3 or rows[0] is not found.records[1]:
        return
    of_values = [
        column
        for column in range(found.width)
        if all(is_value(row[column]) for row in rows[1:] if row[column].strip())
        and any(row[column].strip() for row in rows[1:])
    ]
    cells = [rows[0][column].strip() for column in of_values]
    units = [cell for cell in cells if cell and not is_value(cell)]
    if units and len(units) == sum(map(bool, cells)) and 2 * len(units) >= len(of_values):
        shown = ", ".join(map(repr, units[:4]))
        raise DataError(
            f"{path}: line {first_line - 1 + found.lines[1]}: expected values as in the lines below, got {shown}: "
            "units? --units-line leaves the line out; if they are missing values, --missing-words"
        )


def find_decimal(
    rows: Sequence[Sequence[str]], delimiter: str, options: Options, path: Path
) -> str:
    """``--decimal``, or a comma if numbers have one and none has a point. Raises DataError if commas may mean groups."""
    if options.decimal != "auto":
        return options.decimal
    cells = [cell.strip() for row in rows for cell in row]
    with_comma = [cell for cell in cells if _COMMA_NUMBER.fullmatch(cell)]
    if not with_comma or any("." in cell and plain_number(cell) is not None for cell in cells):
        return "."
    if all(map(_COMMA_GROUPS.fullmatch, with_comma)):
        if delimiter == ",":
            return "."
        raise DataError(
            f"{path}: numbers such as {with_comma[0]!r}: expected to know whether the comma is before the decimals or "
            "between thousands: --decimal , or --decimal . (then --numbers COLUMN reads them)"
        )
    return ","
