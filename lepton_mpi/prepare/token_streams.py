"""``prepare --stream``: a text as one stream of tokens for each split, of which training cuts rows as it wants them.

First passes over the files, in pieces so that any length fits into memory, find the tokens and how many there are:
``character_streams.py`` of characters and bytes, ``byte_pair_streams.py`` of BPE. A last one writes their ids into the file.
Rank 0 does all of it, since a piece begins where the one before ended; the others wait.
Files of one split follow each other, and each is a document, or several with --document-separator: the first token of a
document does not follow from the one before.
"""

import dataclasses
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lepton_mpi import __version__
from lepton_mpi.data.files.file_format import ENCODING, SPLITS
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare import byte_pair_streams, character_streams
from lepton_mpi.prepare.found_tokens import FoundTokens
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.prepare.stream_encoding import StreamEncoding
from lepton_mpi.prepare.writing import RowWriter, disk_errors, new_file, write_facts

# Of a chunk in the file: rows are read from any place, and what is read of a chunk is all of it.
_CHUNK_BYTES = 128 << 10
# Options that say what a stream is; the others are for rows.
_KNOWN = {
    *("inputs", "output", "format", "encoding", "split", "context", "tokens", "stream", "compress"),
    *("layout", "dry_run", "force", "timeout", "seed", "block", "memory", "like"),
    *("vocabulary", "tokenizer", "document_separator"),
}


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
            of = "--tokens bpe" if options.tokens == "bpe" else "--stream"
            raise ConfigurationError(
                f"--{field.name.replace('_', '-')}: is for rows, got {of}, which writes a text in one piece"
            )


def _write(
    inputs: tuple[Input, ...],
    options: Options,
    like: StreamEncoding | None,
    facts: list[dict[str, Any]],
) -> Generator[None, None, None]:
    """All of it; pauses after every piece."""
    with ExitStack() as stack:
        if options.tokens == "bpe":
            spill = _spill(options, stack)
            found = yield from byte_pair_streams.find(inputs, options, like, spill)
        else:
            found = yield from character_streams.find(inputs, options, like)
        _check_length(inputs, found, options)
        facts.append(_facts(inputs, found, options))
        if options.dry_run:
            return
        file = stack.enter_context(new_file(Path(options.output)))
        with disk_errors(options.output):
            writers = _open(file, found, options)
            for number, given in enumerate(inputs):
                yield from _write_file(given, number, found, writers)
            for writer in writers.values():
                writer.close()
            _write_rest(file, found, facts[0])


def _spill(options: Options, stack: ExitStack) -> BinaryIO | None:
    """A file without a name, for ids until their number is known; None where nothing is written. Raises LauncherError."""
    if options.dry_run:
        return None
    with disk_errors(options.output):
        folder = Path(options.output).absolute().parent
        return stack.enter_context(tempfile.TemporaryFile(dir=folder))


def _check_length(inputs: tuple[Input, ...], found: FoundTokens, options: Options) -> None:
    is_to_score = options.like is not None
    runs = found.runs if is_to_score else found.of_split("train")
    tokens = sum(run.stop - run.start for run in runs)
    if tokens <= options.context:
        raise DataError(
            f"{inputs[0].path}: expected more than --context {options.context} tokens to train on, got {tokens}"
        )


def _open(file: Any, found: FoundTokens, options: Options) -> dict[str, RowWriter]:
    """What writes the stream of each split that has tokens."""
    writers = {}
    for name in SPLITS:
        count = sum(run.stop - run.start for run in found.of_split(name))
        if count:
            storage = found.dtype, options.layout, options.compress, _CHUNK_BYTES
            writers[name] = RowWriter(file, f"{name}/tokens", (count,), *storage)
            writers[name].describe("tokens", len(found.encoding.vocabulary))
            file[f"{name}/tokens"].attrs["context"] = np.int64(options.context)
    return writers


def _write_file(
    given: Input, number: int, found: FoundTokens, writers: dict[str, RowWriter]
) -> Generator[None, None, None]:
    """Every token of a file to the split that it belongs to; pauses after every piece."""
    begin, runs = 0, [run for run in found.runs if run.number == number]
    for ids in found.read(number):
        for run in runs:
            first, last = max(run.start, begin), min(run.stop, begin + ids.size)
            if first < last:
                writers[run.split].append(ids[first - begin : last - begin])
        begin += ids.size
        yield
    if begin != found.counts[number]:
        raise DataError(f"{given.path}: has changed while it was read")


def _write_rest(file: Any, found: FoundTokens, facts: dict[str, Any]) -> None:
    """Where documents begin, what tokens stand for, and the report."""
    arrays = {}
    for name in SPLITS:
        starts = found.document_starts(name)
        if starts.size > 1:
            arrays[f"{name}/document_starts"] = starts
    known = found.encoding.vocabulary
    text = np.frombuffer(b"".join(known), np.uint8)
    ends = np.cumsum([len(token) for token in known]).astype(np.int64)
    arrays |= {"vocabulary/bytes": text, "vocabulary/ends": ends}
    arrays[ENCODING] = np.frombuffer(found.encoding.as_bytes(), np.uint8)
    write_facts(file, facts, arrays, (), 2)


def _facts(inputs: tuple[Input, ...], found: FoundTokens, options: Options) -> dict[str, Any]:
    """What the report says, as JSON can hold it."""
    splits = dict.fromkeys(SPLITS, 0)
    for run in found.runs:
        splits[run.split] += run.stop - run.start
    sources = [
        [given.path.name, given.split, count]
        for given, count in zip(inputs, found.counts, strict=True)
    ]
    names = ["tokens", "encoding", "context", "split"]
    names += ["document_separator"] * (options.document_separator is not None)
    documents = {name: found.document_starts(name).size for name in SPLITS}
    return {
        "made_by": f"lepton_mpi {__version__}",
        "task": "language",
        "sources": sources,
        "options": {name: getattr(options, name) for name in names},
        "values": len(found.encoding.vocabulary),
        "dtype": str(found.dtype),
        "splits": splits,
        **({"documents": documents} if max(documents.values()) > 1 else {}),
        **found.facts,
    }
