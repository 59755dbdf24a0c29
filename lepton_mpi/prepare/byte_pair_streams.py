"""The tokens of texts by byte-level BPE: a vocabulary that is trained here, of a ``tokenizer.json``, or of another file.

Three passes over the files, in pieces (``text_pieces.py``), so that memory does not grow with the text: how long they are,
which says where splits end; the vocabulary, trained on the training split alone; then the ids, which wait in a file without a
name beside the output until their number is known. With a vocabulary that is there already the second pass is left out.

Texts are taken as they are, carriage returns and characters 0 too, but for a byte order mark. The ids are those of the whole
text of a document, see ``text_pieces.py``; a split ends at the first end of a word behind its share of the characters.
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lepton_mpi.data import byte_pairs
from lepton_mpi.data.byte_pairs import BytePairs, Training
from lepton_mpi.data.files import probe
from lepton_mpi.errors import DataError
from lepton_mpi.prepare import text_pieces
from lepton_mpi.prepare.found_tokens import FoundTokens, Run, dtype_for
from lepton_mpi.prepare.options import VOCABULARY, Options
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.prepare.readers.text import division
from lepton_mpi.prepare.stream_encoding import StreamEncoding
from lepton_mpi.prepare.text_pieces import Piece
from lepton_mpi.prepare.writing import disk_errors
from lepton_mpi.wording import grouped, one_line

# Characters that are encoded at a time, and pieces.
_BATCH_LENGTH, _BATCH_PIECES = 2 << 20, 4096
# Characters that a vocabulary is trained on: of more, every second or third piece, and so on. Bounds the different words.
_TRAINED_LENGTH = 1 << 30
# Parts of the files by split, (split, start, stop) in characters.
Divisions = list[list[tuple[str, int, int]]]


def find(
    inputs: tuple[Input, ...],
    options: Options,
    like: StreamEncoding | None,
    spill: BinaryIO | None,
) -> Generator[None, None, FoundTokens]:
    """Encode them into ``spill``, an open file, if there is one, else count them; pauses after every piece.

    Raises DataError, ConfigurationError, and LauncherError without the library.
    """
    notes: dict[str, None] = {}
    pairs = _given(options, like)
    divisions = yield from _divided(inputs, options, notes)
    told = ""
    if pairs is None:
        pairs = yield from _trained(inputs, divisions, options, notes)
        told = "trained on the training text"
    elif options.tokenizer:
        told = f"of {Path(options.tokenizer).name}"
    encoder = _Encoder(pairs, options, spill)
    for number, given in enumerate(inputs):
        yield from encoder.add(number, given.path, divisions[number])
    if encoder.within_words:
        count = grouped(encoder.within_words)
        notes[
            f"cut {count} times where no word ends, so that the tokens there are not those of the whole"
        ] = None
    encoding = StreamEncoding(
        *("bpe", options.context, pairs.vocabulary),
        *(options.document_separator or "", pairs.facts),
    )
    return FoundTokens(
        *(encoding, tuple(encoder.runs), tuple(encoder.counts), tuple(encoder.documents)),
        encoder.read,
        {"notes": list(notes), "bytes": encoder.byte_count, "tokenizer": told},
    )


def _given(options: Options, like: StreamEncoding | None) -> BytePairs | None:
    """The tokenizer of --like or --tokenizer. Raises DataError, and LauncherError without the library."""
    if like is not None:
        place, content = options.like, like.tokenizer
    elif options.tokenizer is not None:
        place, content = options.tokenizer, None
    else:
        return None
    try:
        if content is not None:
            return BytePairs(content)
        probe.check_regular(Path(place))
        return byte_pairs.from_json(Path(place).read_bytes())
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{place}: not a tokenizer.json to use: {one_line(error)}") from None


def _divided(
    inputs: tuple[Input, ...], options: Options, notes: dict[str, None]
) -> Generator[None, None, Divisions]:
    """How the characters of each file are divided among the splits."""
    found = []
    for given in inputs:
        count = 0
        for text in _texts(given.path, options, notes):
            count += len(text)
            yield
        found.append(division(given, count, inputs, options))
    return found


def _trained(
    inputs: tuple[Input, ...], divisions: Divisions, options: Options, notes: dict[str, None]
) -> Generator[None, None, BytePairs]:
    """A vocabulary of the training split. Raises DataError for a text that has not so many pairs."""
    size, separator = options.vocabulary or VOCABULARY, options.document_separator or ""
    total = sum(b - a for parts in divisions for split, a, b in parts if split == "train")
    every = max(1, -(-total // _TRAINED_LENGTH))
    if every > 1:
        notes[f"vocabulary of one of {every} pieces of the training text"] = None
    with Training(size, separator) as training:
        for given, parts in zip(inputs, divisions, strict=True):
            number = 0
            for pieces in _batches(given.path, parts, options):
                chosen = []
                for piece in pieces:
                    if _split_of(piece, parts) == "train":
                        number += 1
                        chosen += [_without(piece, separator)] * (number % every == 0)
                while not training.feed(chosen):
                    yield
                yield
        while not training.end():
            yield
        pairs = training.result()
    made = len(pairs.vocabulary)
    if made < size:
        advice = f"--vocabulary {made}" if made > 256 else "--tokens bytes"
        raise DataError(
            f"{inputs[0].path}: expected a training text for --vocabulary {size}, got one of {made} tokens, in which no other pair "
            f"occurs twice: {advice}, or more text"
        )
    return pairs


def _batches(
    path: Path, parts: list[tuple[str, int, int]], options: Options
) -> Iterator[list[Piece]]:
    """Pieces of a file, some at a time. Raises DataError for one that is longer or shorter than it was."""
    batch: list[Piece] = []
    length, stop = 0, 0
    stops = [stop for _, _, stop in parts]
    separator = options.document_separator or ""
    for piece in text_pieces.cut(_texts(path, options, {}), stops, separator):
        batch.append(piece)
        length, stop = length + len(piece.text), piece.stop
        if stop > max(stops, default=0):
            break
        if length >= _BATCH_LENGTH or len(batch) >= _BATCH_PIECES:
            yield batch
            batch, length = [], 0
    if stop != max(stops, default=0):
        raise DataError(f"{path}: has changed while it was read")
    if batch:
        yield batch


def _texts(path: Path, options: Options, notes: dict[str, None]) -> Iterator[str]:
    return text_pieces.decoded(path, options.encoding, False, notes, text_pieces.PIECE_BYTES)


def _split_of(piece: Piece, parts: list[tuple[str, int, int]]) -> str:
    return next(split for split, _, stop in parts if piece.start < stop)


def _without(piece: Piece, separator: str) -> str:
    return piece.text.removesuffix(separator) if piece.ends_document else piece.text


class _Encoder:
    """What has become of the files so far; see ``FoundTokens``."""

    def __init__(self, pairs: BytePairs, options: Options, spill: BinaryIO | None) -> None:
        self.runs: list[Run] = []
        self.counts: list[int] = []
        self.documents: list[np.ndarray] = []
        self.byte_count = self.within_words = 0
        self._pairs, self._options, self._spill = pairs, options, spill
        self._dtype = dtype_for(len(pairs.vocabulary))
        self._byte_counts = np.array([len(token) for token in pairs.vocabulary], np.int64)

    def add(
        self, number: int, path: Path, parts: list[tuple[str, int, int]]
    ) -> Generator[None, None, None]:
        """Encode a file; pauses after every batch. Raises DataError."""
        counts = dict.fromkeys((split for split, _, _ in parts), 0)
        starts: list[int] = []
        for pieces in _batches(path, parts, self._options):
            for piece, ids in zip(pieces, self._encoded(path, pieces), strict=True):
                if piece.begins_document:
                    starts.append(sum(counts.values()))
                counts[_split_of(piece, parts)] += ids.size
                self.byte_count += int(self._byte_counts[ids].sum())
                is_end = piece.stop in (stop for _, _, stop in parts)
                self.within_words += piece.is_within_word and not is_end
                if self._spill is not None:
                    with disk_errors(self._options.output):
                        self._spill.write(ids.astype(self._dtype).tobytes())
            yield
        begin = 0
        for split, count in counts.items():
            if count:
                self.runs.append(Run(split, number, begin, begin + count))
                begin += count
        self.counts.append(begin)
        self.documents.append(np.array(starts, np.int64))

    def read(self, number: int) -> Iterator[np.ndarray]:
        """Ids of a file."""
        assert self._spill is not None
        self._spill.seek(sum(self.counts[:number]) * self._dtype.itemsize)
        left = self.counts[number]
        while left:
            count = min(left, max(1, text_pieces.PIECE_BYTES // self._dtype.itemsize))
            ids = np.frombuffer(self._spill.read(count * self._dtype.itemsize), self._dtype)
            yield ids
            left -= count

    def _encoded(self, path: Path, pieces: list[Piece]) -> list[np.ndarray]:
        """Raises DataError."""
        try:
            return self._pairs.encode([piece.text for piece in pieces])
        except ValueError as error:
            raise DataError(f"{path}: characters {pieces[0].start} up: {one_line(error)}") from None
