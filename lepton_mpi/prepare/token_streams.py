"""``prepare --stream``: a text as one stream of tokens for each split, of which training cuts rows as it wants them.

Two passes over the files, in pieces of a few MiB, so that any length fits into memory: which characters there are and how
many; then their ids, into the file. Rank 0 does both, since a piece begins where the one before ended; the others wait.
Files of one split follow each other, and each is a document: its first token does not follow from the file before.
Characters are those of the text: a byte order mark is none, and a line ends by one newline, whatever the file ends it by.
"""

import codecs
import dataclasses
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import IncrementalNewlineDecoder
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi import __version__
from lepton_mpi.data.files.file_format import ENCODING, SPLITS
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.prepare.readers.text import (
    MARK,
    MARK_LEFT_OUT,
    RETURNS_READ,
    division,
    no_character_0,
    not_decodable,
)
from lepton_mpi.prepare.stream_encoding import StreamEncoding
from lepton_mpi.prepare.writing import RowWriter, disk_errors, new_file, write_facts

# Of a file at a time.
_PIECE_BYTES = 8 << 20
# Of a chunk in the file: rows are read from any place, and what is read of a chunk is all of it.
_CHUNK_BYTES = 128 << 10
_CODE_POINTS = 0x110000
# Options that say what a stream is; the others are for rows.
_KNOWN = {
    *("inputs", "output", "format", "encoding", "split", "context", "tokens", "stream", "compress"),
    *("layout", "dry_run", "force", "timeout", "seed", "block", "memory", "like"),
}


@dataclass(frozen=True)
class Counted:
    """What the first pass finds: the id of every token, as a table, what each stands for, and the tokens of each file."""

    id_of: np.ndarray
    vocabulary: tuple[bytes, ...]
    counts: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Of ids in the file."""
        values = len(self.vocabulary)
        return np.dtype(
            np.uint8 if values <= 1 << 8 else np.uint16 if values <= 1 << 16 else np.int32
        )


def write_stream(
    inputs: tuple[Input, ...], options: Options, world: Any, like: StreamEncoding | None = None
) -> dict[str, Any]:
    """Write the file; returns the facts, the same on every rank. Collective. Raises LeptonError.

    ``like`` has the ids of tokens, if they are not to be made anew.
    """
    with world.agreeing():
        _check_options(options)
    facts: list[dict[str, Any]] = []
    _in_rounds(_write(inputs, options, like, facts), world)
    return world.comm.bcast(facts[0] if facts else None)


def _in_rounds(work: Generator[None, None, None], world: Any) -> None:
    """Rank 0's work, piece by piece: each is progress, for the time limit, and its errors are everybody's. Collective."""
    more = True
    while more:
        world.clock.enter("compute")
        with world.agreeing():
            if world.rank == 0:
                more = next(work, work) is not work
        more = world.comm.bcast(more)


def _check_options(options: Options) -> None:
    """Refuse what would be passed over. Raises ConfigurationError."""
    for field in dataclasses.fields(options):
        if field.name not in _KNOWN and getattr(options, field.name) != field.default:
            raise ConfigurationError(
                f"--{field.name.replace('_', '-')}: is for rows, got --stream, which writes a text in one piece"
            )


def _write(
    inputs: tuple[Input, ...],
    options: Options,
    like: StreamEncoding | None,
    facts: list[dict[str, Any]],
) -> Generator[None, None, None]:
    """All of it; pauses after every piece."""
    seen, counts = np.zeros(_CODE_POINTS, bool), []
    notes: dict[str, None] = {}
    for given in inputs:
        count = 0
        for points in _pieces(given.path, options, notes):
            seen[points] = True
            count += points.size
            yield
        counts.append(count)
    counted = _counted(seen, tuple(counts), options)
    if like is not None:
        counted = _renumbered(counted, seen, like, inputs[0].path.name)
    plan = [
        (split, number, start, stop)
        for number, (given, count) in enumerate(zip(inputs, counts, strict=True))
        for split, start, stop in division(given, count, inputs, options)
    ]
    _check_length(inputs, plan, options)
    facts.append({**_facts(inputs, plan, counted, options), "notes": list(notes)})
    if options.dry_run:
        return
    with ExitStack() as stack:
        file = stack.enter_context(new_file(Path(options.output)))
        with disk_errors(options.output):
            writers = _open(file, plan, counted, options)
            for number, given in enumerate(inputs):
                parts = [(split, a, b) for split, n, a, b in plan if n == number]
                yield from _write_file(given, parts, counted, writers, options)
            for writer in writers.values():
                writer.close()
            _write_rest(file, plan, counted, facts[0], options)


def _pieces(path: Path, options: Options, notes: dict[str, None]) -> Iterator[np.ndarray]:
    """Bytes or code points of a file, some MiB at a time; adds to the notes what is not taken as it is. Raises DataError."""
    try:
        decoder = _decoder(options)
        with path.open("rb") as raw:
            before, begins = 0, True
            while content := raw.read(_PIECE_BYTES):
                points = _points(content, decoder, path, before, is_last=False)
                if begins and points.size:
                    begins = False
                    if decoder is not None and points[0] == ord(MARK):
                        notes[MARK_LEFT_OUT], points = None, points[1:]
                yield points
                before += content.count(b"\n")
            if decoder is not None:
                yield _points(b"", decoder, path, before, is_last=True)
                if any("\r" in ends for ends in decoder.newlines or ()):
                    notes[RETURNS_READ] = None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _decoder(options: Options) -> IncrementalNewlineDecoder | None:
    """Of characters; a carriage return at the end of a piece waits for what comes behind it. Raises ConfigurationError."""
    if options.tokens != "characters":
        return None
    try:
        decoder = codecs.getincrementaldecoder(options.encoding)()
    except LookupError:
        raise ConfigurationError(
            f"--encoding: expected an encoding, got {options.encoding!r}"
        ) from None
    return IncrementalNewlineDecoder(decoder, translate=True)


def _points(
    content: bytes,
    decoder: IncrementalNewlineDecoder | None,
    path: Path,
    lines_before: int,
    is_last: bool,
) -> np.ndarray:
    if decoder is None:
        return np.frombuffer(content, np.uint8)
    try:
        text = decoder.decode(content, is_last)
    except UnicodeDecodeError as error:
        raise not_decodable(path, error, lines_before) from None
    if "\0" in text:
        raise no_character_0(path)
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _counted(seen: np.ndarray, counts: tuple[int, ...], options: Options) -> Counted:
    """Ids in the order of the code points; all 256 bytes have one."""
    if options.tokens == "bytes":
        return Counted(np.arange(256), tuple(bytes([byte]) for byte in range(256)), counts)
    points = np.flatnonzero(seen)
    id_of = np.zeros(_CODE_POINTS, np.int32)
    id_of[points] = np.arange(points.size)
    return Counted(id_of, tuple(chr(point).encode() for point in points.tolist()), counts)


def _renumbered(counted: Counted, seen: np.ndarray, like: StreamEncoding, name: str) -> Counted:
    """With the ids of another file. Raises DataError for tokens that it has not."""
    points = np.flatnonzero(seen)
    id_of = np.zeros(counted.id_of.size, np.int64)
    if points.size:
        tokens = [counted.vocabulary[number] for number in counted.id_of[points].tolist()]
        id_of[points] = like.ids_of(tokens, name)
    return Counted(id_of, like.vocabulary, counted.counts)


def _check_length(inputs: tuple[Input, ...], plan: list, options: Options) -> None:
    is_to_score = options.like is not None
    tokens = sum(stop - start for split, _, start, stop in plan if is_to_score or split == "train")
    if tokens <= options.context:
        raise DataError(
            f"{inputs[0].path}: expected more than --context {options.context} tokens to train on, got {tokens}"
        )


def _open(file: Any, plan: list, counted: Counted, options: Options) -> dict[str, RowWriter]:
    """What writes the stream of each split that has tokens."""
    writers = {}
    for name in SPLITS:
        count = sum(stop - start for split, _, start, stop in plan if split == name)
        if count:
            storage = counted.dtype, options.layout, options.compress, _CHUNK_BYTES
            writers[name] = RowWriter(file, f"{name}/tokens", (count,), *storage)
            writers[name].describe("tokens", len(counted.vocabulary))
            file[f"{name}/tokens"].attrs["context"] = np.int64(options.context)
    return writers


def _write_file(
    given: Input,
    parts: list[tuple[str, int, int]],
    counted: Counted,
    writers: dict[str, RowWriter],
    options: Options,
) -> Generator[None, None, None]:
    """Every token of a file to the split that it belongs to; pauses after every piece."""
    begin = 0
    for points in _pieces(given.path, options, {}):
        ids = counted.id_of[points].astype(counted.dtype)
        for split, start, stop in parts:
            first, last = max(start, begin), min(stop, begin + ids.size)
            if first < last:
                writers[split].append(ids[first - begin : last - begin])
        begin += ids.size
        yield
    if begin != parts[-1][2]:
        raise DataError(f"{given.path}: has changed while it was read")


def _write_rest(
    file: Any, plan: list, counted: Counted, facts: dict[str, Any], options: Options
) -> None:
    """Where documents begin, what tokens stand for, and the report."""
    arrays = {}
    for name in SPLITS:
        lengths = [stop - start for split, _, start, stop in plan if split == name]
        if len(lengths) > 1:
            starts = np.cumsum([0, *lengths[:-1]])
            arrays[f"{name}/document_starts"] = starts.astype(np.int64)
    ends = np.cumsum([len(token) for token in counted.vocabulary]).astype(np.int64)
    text = np.frombuffer(b"".join(counted.vocabulary), np.uint8)
    arrays |= {"vocabulary/bytes": text, "vocabulary/ends": ends}
    kept = StreamEncoding(options.tokens, options.context, counted.vocabulary)
    arrays[ENCODING] = np.frombuffer(kept.as_bytes(), np.uint8)
    write_facts(file, facts, arrays, (), 2)


def _facts(
    inputs: tuple[Input, ...], plan: list, counted: Counted, options: Options
) -> dict[str, Any]:
    """What the report says, as JSON can hold it."""
    splits = dict.fromkeys(SPLITS, 0)
    for split, _, start, stop in plan:
        splits[split] += stop - start
    sources = [
        [given.path.name, given.split, count]
        for given, count in zip(inputs, counted.counts, strict=True)
    ]
    return {
        "made_by": f"lepton_mpi {__version__}",
        "task": "language",
        "sources": sources,
        "options": {
            name: getattr(options, name) for name in ("tokens", "encoding", "context", "split")
        },
        "values": len(counted.vocabulary),
        "dtype": str(counted.dtype),
        "splits": splits,
    }
