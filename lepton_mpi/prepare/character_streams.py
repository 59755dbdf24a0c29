"""The tokens of texts that are characters or bytes: one pass finds which there are, each later one reads their ids.

Characters are those of the text: a byte order mark is none, and a line ends by one newline, whatever the file ends it by.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare import text_pieces
from lepton_mpi.prepare.found_tokens import FoundTokens, Run, dtype_for
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.prepare.readers.text import division, no_character_0
from lepton_mpi.prepare.stream_encoding import StreamEncoding

_CODE_POINTS = 0x110000


def find(
    inputs: tuple[Input, ...], options: Options, like: StreamEncoding | None
) -> Generator[None, None, FoundTokens]:
    """Count them; pauses after every piece. Raises DataError and ConfigurationError."""
    seen, counts, documents = np.zeros(_CODE_POINTS, bool), [], []
    notes: dict[str, None] = {}
    for given in inputs:
        count, separators = 0, _Separators(options)
        starts = [np.zeros(0, np.int64)]
        for points in _pieces(given.path, options, notes):
            seen[points] = True
            count += points.size
            starts.append(separators.ends_in(points))
            yield
        counts.append(count)
        documents.append(np.concatenate(starts))
    known, id_of = _counted(seen, options)
    if like is not None:
        points = np.flatnonzero(seen)
        tokens = [known[number] for number in id_of[points].tolist()]
        id_of = np.zeros(_CODE_POINTS, np.int64)
        id_of[points] = like.ids_of(tokens, inputs[0].path.name)
        known = like.vocabulary
    runs = tuple(
        Run(split, number, start, stop)
        for number, (given, count) in enumerate(zip(inputs, counts, strict=True))
        for split, start, stop in division(given, count, inputs, options)
    )

    def read(number: int) -> Iterator[np.ndarray]:
        for points in _pieces(inputs[number].path, options, {}):
            yield id_of[points].astype(dtype_for(len(known)))

    encoding = StreamEncoding(
        options.tokens, options.context, known, options.document_separator or ""
    )
    found = {"notes": list(notes)}
    return FoundTokens(encoding, runs, tuple(counts), tuple(documents), read, found)


def _counted(seen: np.ndarray, options: Options) -> tuple[tuple[bytes, ...], np.ndarray]:
    """Tokens, and the id of each code point or byte, in their order; all 256 bytes have one."""
    if options.tokens == "bytes":
        return tuple(bytes([byte]) for byte in range(256)), np.arange(256)
    points = np.flatnonzero(seen)
    id_of = np.zeros(_CODE_POINTS, np.int64)
    id_of[points] = np.arange(points.size)
    return tuple(chr(point).encode() for point in points.tolist()), id_of


def _pieces(path: Path, options: Options, notes: dict[str, None]) -> Iterator[np.ndarray]:
    """Bytes or code points of a file, some MiB at a time; adds to the notes what is not taken as it is. Raises DataError."""
    if options.tokens == "characters":
        piece_bytes = text_pieces.PIECE_BYTES
        for text in text_pieces.decoded(path, options.encoding, True, notes, piece_bytes):
            if "\0" in text:
                raise no_character_0(path)
            yield np.frombuffer(text.encode("utf-32-le"), np.uint32)
        return
    try:
        with path.open("rb") as raw:
            while content := raw.read(text_pieces.PIECE_BYTES):
                yield np.frombuffer(content, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


@dataclass
class _Separators:
    """Where separators of documents end in a file, of which the pieces come one after the other."""

    options: Options
    # Number of the first code point or byte that has not been looked at, and those from there on.
    begin: int = 0
    rest: bytes = b""

    def ends_in(self, points: np.ndarray) -> np.ndarray:
        """Of those that end in the next piece: numbers of the code points or bytes behind them, int64."""
        text = self.options.document_separator
        if not text:
            return np.zeros(0, np.int64)
        size = points.itemsize
        wanted = text.encode("utf-32-le" if size == 4 else "utf-8")
        held, at, found = self.rest + points.tobytes(), 0, []
        while (place := held.find(wanted, at)) >= 0:
            if place % size:  # bytes of two characters
                at = place + 1
                continue
            at = place + len(wanted)
            found.append(self.begin + at // size)
        # What may be the begin of one; of whole characters.
        kept = max(-(-at // size) * size, len(held) - len(wanted) + size)
        self.begin, self.rest = self.begin + kept // size, held[kept:]
        return np.array(found, np.int64)
