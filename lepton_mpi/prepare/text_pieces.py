"""A text in pieces that can be encoded each by itself, so that a text of any length fits into memory.

A piece of about 128 Ki characters ends between a letter or digit and white space, where every rule that
``data/tokenizer_facts.py`` knows ends a word: the tokens of the pieces are those of the whole. Where there is no such place
within 64 Ki characters, as in one endless word, it ends where it is long enough, which is counted. It ends behind a separator
of documents, too, and where a split ends, which is therefore moved to the next end of a word, but not to the next split::

    text     …the sea. The winter of that year ~~ Next document…           stop of the split: in "winter"
    pieces   …the sea. The winter│ of that year ~~│ Next document…         separator ~~
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import IncrementalNewlineDecoder
from pathlib import Path

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.readers.text import MARK, MARK_LEFT_OUT, RETURNS_READ, not_decodable

# Of a file at a time.
PIECE_BYTES = 8 << 20
# Characters of a piece, and behind it in which an end of a word is looked for.
_LENGTH, _SEARCH = 128 << 10, 64 << 10
# White space for Python and for every rule of words.
_END_OF_WORD = re.compile(r"(?<=[^\W_])[ \n\r\t\u3000]")


@dataclass(frozen=True)
class Piece:
    """Characters [start, stop) of a text.

    Attributes
    ----------
    begins_document : bool
        Whether a separator stands before it.
    ends_document : bool
        Whether it ends with one.
    is_within_word : bool
        Whether it may end within a word.
    """

    start: int
    text: str
    begins_document: bool
    ends_document: bool
    is_within_word: bool

    @property
    def stop(self) -> int:
        return self.start + len(self.text)


def decoded(
    path: Path, encoding: str, reads_returns: bool, notes: dict[str, None], piece_bytes: int
) -> Iterator[str]:
    """The characters of a file, some at a time, without a byte order mark; adds to the notes what is not taken as it is.

    ``reads_returns``: a carriage return, or one with a newline behind it, is a newline; else both stay. Raises DataError and
    ConfigurationError.
    """
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ConfigurationError(f"--encoding: expected an encoding, got {encoding!r}") from None
    # A carriage return at the end of a piece waits for what comes behind it.
    newlines = IncrementalNewlineDecoder(decoder, translate=True) if reads_returns else None
    before, begins = 0, True
    try:
        with path.open("rb") as raw:
            while True:
                content = raw.read(piece_bytes)
                try:
                    text = (newlines or decoder).decode(content, not content)
                except UnicodeDecodeError as error:
                    raise not_decodable(path, error, before) from None
                if begins and text:
                    begins = False
                    if text[0] == MARK:
                        notes[MARK_LEFT_OUT], text = None, text[1:]
                if text:
                    yield text
                if not content:
                    break
                before += content.count(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if newlines is not None and any("\r" in ends for ends in newlines.newlines or ()):
        notes[RETURNS_READ] = None


def cut(texts: Iterator[str], stops: Sequence[int], separator: str) -> Iterator[Piece]:
    """Pieces of a text that comes in any parts.

    Parameters
    ----------
    stops
        Characters before which splits end, ascending: a piece ends there or a little behind, before the next of them.
    separator
        What stands between documents; empty for nothing.
    """
    held, begins = _Held(texts, _LENGTH + 2 * _SEARCH + len(separator)), False
    while held.fill():
        stop, is_within_word = held.end_of_piece(stops)
        found = held.text.find(separator, held.at, stop + len(separator) - 1) if separator else -1
        ends = 0 <= found < stop
        if ends:
            stop, is_within_word = found + len(separator), False
        yield Piece(held.start, held.text[held.at : stop], begins, ends, is_within_word)
        begins, held.at = ends, stop


@dataclass
class _Held:
    """What has come of a text and is not in a piece: ``text`` from ``at`` on, of which the rest is taken off in large parts."""

    texts: Iterator[str]
    wanted: int
    text: str = ""
    at: int = 0
    before: int = 0
    is_all: bool = field(default=False)

    @property
    def start(self) -> int:
        """Of the next piece."""
        return self.before + self.at

    def fill(self) -> bool:
        """Have as much as a piece may need, or all there is; False at the end of the text."""
        if not self.is_all and len(self.text) - self.at < self.wanted:
            parts = [self.text[self.at :]]
            self.before, self.at, count = self.start, 0, len(parts[0])
            while count < self.wanted:
                part = next(self.texts, None)
                if part is None:
                    self.is_all = True
                    break
                parts.append(part)
                count += len(part)
            self.text = "".join(parts)
        return self.at < len(self.text)

    def end_of_piece(self, stops: Sequence[int]) -> tuple[int, bool]:
        """Where in ``text`` the next piece ends if no document ends before, and whether that is within a word."""
        ahead = [stop - self.before for stop in stops if stop > self.start]
        target = self.at + _LENGTH
        is_stop = bool(ahead) and ahead[0] <= target
        if is_stop:
            target = ahead.pop(0)
        place = self._end_of_word(target, ahead)
        if place is None and not is_stop and ahead and ahead[0] <= target + _SEARCH:
            target = ahead.pop(0)
            place = self._end_of_word(target, ahead)
        if target >= len(self.text):
            return len(self.text), False
        return (target, True) if place is None else (place, False)

    def _end_of_word(self, start: int, ahead: Sequence[int]) -> int | None:
        """The first from ``start`` on, before a split ends again."""
        found = _END_OF_WORD.search(
            self.text, start, min(start + _SEARCH, *ahead[:1], len(self.text))
        )
        return found.start() if found else None
