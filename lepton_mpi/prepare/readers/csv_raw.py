"""The bytes of a CSV file as its cells are cut from them: unpacked, in UTF-8, with plain quotes, newlines and no remarks.

Every change but unpacking and decoding keeps the length of the text, so a byte has the same place before and after, and
any piece of a file can be read by itself:

- a carriage return that ends lines alone becomes a newline;
- a line that begins with the sign of remarks becomes carriage returns, which belong to no cell;
- ``\\"`` becomes ``""``, the way of RFC 4180 to write a quote.

What a piece begins in, a remark or behind a backslash, is found out by looking back from it.
A packed file, and one in UTF-16, can be read only from its beginning: going back starts anew.
"""

import codecs
import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

# Steps in which a line's beginning is looked for.
_BACK_BYTES = 4096
_WIDE = {"utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"}
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Notation:
    """How the bytes of a file become plain ones; see above. ``comment`` and ``quote`` are bytes, 0 for none.

    ``wide`` is an encoding of two or four bytes a letter, or empty: the text of such a file is read as UTF-8.
    """

    wide: str = ""
    returns: bool = False
    comment: int = 0
    escape: bool = False
    quote: int = 0


class RawFile:
    """A file open for reading.

    Parameters
    ----------
    path : Path
    notation : Notation

    Raises
    ------
    DataError
    """

    def __init__(self, path: Path, notation: Notation) -> None:
        self.path, self._notation = path, notation
        self._file = _opened(path)
        self.must_be_read_in_order = isinstance(self._file, gzip.GzipFile) or bool(notation.wide)
        if notation.wide:
            self._file = _Recoded(self._file, notation.wide)
        self._line_end = b"\r" if notation.returns else b"\n"
        self._line = (0, b"")  # where the last piece ended, and what it had of its last line

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def read(self, start: int, count: int, begins_line: bool = False) -> bytes:
        """Bytes from ``start``, fewer at the end of the file; all of them if ``count`` is -1. Raises DataError.

        ``begins_line`` tells that a line begins at ``start``, so that nothing before it need be looked at.
        """
        raw, notation = self._read(start, count), self._notation
        if not (notation.comment or notation.escape):
            return self._returned(raw)
        size = len(raw)
        before = b"" if begins_line or not raw else self._line_before(start)
        whole = before + raw
        self._line = (start + size, whole[whole.rfind(self._line_end) + 1 :])
        if raw.endswith(b"\\") and count >= 0:
            whole += self._read(start + size, 1)  # which the backslash may be about
        whole = self._returned(whole)
        if notation.comment:
            whole = _without_comments(whole, notation.comment)
        if notation.escape and notation.quote:
            whole = _with_plain_quotes(whole, bytes([notation.quote]))
        return whole[len(before) : len(before) + size]

    def tail(self, count: int) -> tuple[int, bytes]:
        """Where the last ``count`` bytes begin, and these; a file that is read in order is read once. Raises DataError."""
        found, start = b"", 0
        if not self.must_be_read_in_order:
            start = max(0, self.path.stat().st_size - count)
        while raw := self.read(start + len(found), max(count, _BACK_BYTES)):
            cut = max(0, len(found) + len(raw) - count)
            found, start = (found + raw)[cut:], start + cut
        return start, found

    def _returned(self, raw: bytes) -> bytes:
        return raw.replace(b"\r", b"\n") if self._notation.returns else raw

    def _line_before(self, start: int) -> bytes:
        """What stands before ``start`` in its line; what was read last ends there mostly."""
        end, found = self._line
        if end == start:
            return found
        found = b""
        while start > 0:
            step = min(max(_BACK_BYTES, len(found)), start)
            start -= step
            found = self._read(start, step) + found
            if self._line_end in found:
                return found[found.rfind(self._line_end) + 1 :]
        return found

    def _read(self, start: int, count: int) -> bytes:
        try:
            self._file.seek(start)
            return self._file.read(count)
        except UnicodeError as error:
            raise DataError(
                f"{self.path}: expected text in {self._notation.wide}: {one_line(error)}"
            ) from None
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: damaged: {one_line(error)}") from None


def wide_encoding(path: Path, encoding: str) -> str:
    """The encoding of two or four bytes a letter that ``--encoding`` or the file's first bytes say, or nothing.

    Raises DataError.
    """
    if encoding.lower().replace("_", "-") in _WIDE:
        return encoding
    with _opened(path) as file:
        try:
            first = file.read(4)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: damaged: {one_line(error)}") from None
    return next((name for mark, name in _MARKS if first.startswith(mark)), "")


def _opened(path: Path) -> BinaryIO:
    """The file, unpacked if it is gzipped. Raises DataError."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if packed else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


class _Recoded:
    """The text of a file in UTF-8; ``seek`` and ``read`` as of a file, going back means from the beginning."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._ready, self._at = b"", 0

    def seek(self, start: int) -> None:
        if start < self._at:
            self._rewind()
        while self._at < start:
            skipped = self.read(min(start - self._at, 1 << 20))
            if not skipped:
                break

    def read(self, count: int) -> bytes:
        parts, size = [self._ready], len(self._ready)
        while count < 0 or size < count:
            raw = self._file.read(1 << 16)
            parts.append(self._decoder.decode(raw, final=not raw).encode())
            size += len(parts[-1])
            if not raw:
                break
        whole = b"".join(parts)
        out, self._ready = (whole, b"") if count < 0 else (whole[:count], whole[count:])
        self._at += len(out)
        return out

    def close(self) -> None:
        self._file.close()


def _without_comments(raw: bytes, sign: int) -> bytes:
    """Lines that begin with ``sign`` as carriage returns, up to the newline.

    >>> _without_comments(b"1\\n# no\\n2", ord("#"))
    b'1\\n\\r\\r\\r\\r\\n2'
    """
    line = b"(?m)^" + re.escape(bytes([sign])) + b"[^\\n]*"
    return re.sub(line, lambda found: b"\r" * len(found[0]), raw)


def _with_plain_quotes(raw: bytes, quote: bytes) -> bytes:
    """A quote behind a backslash is written twice instead; a backslash behind one stands for itself.

    >>> _with_plain_quotes(b'"a \\\\"b\\\\" \\\\\\\\"', b'"')
    b'"a ""b"" \\\\\\\\"'
    """
    if b"\\" not in raw:
        return raw
    escaped = b"\\" + quote
    return re.sub(
        rb"\\.", lambda found: quote * 2 if found[0] == escaped else found[0], raw, flags=re.DOTALL
    )
