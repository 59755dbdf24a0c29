"""The command: chunks read, predicted and written, in rounds of one a rank; the package's docstring has the design."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lepton_mpi.durable import try_writing
from lepton_mpi.errors import ConfigurationError, LauncherError, same_on_all_ranks
from lepton_mpi.prediction import sources
from lepton_mpi.prediction.ahead import BlocksAhead
from lepton_mpi.prediction.encoder import Encoder
from lepton_mpi.prediction.fields import SPLIT, Field, check_names, key_field
from lepton_mpi.prediction.files.choosing import check_suffix, format_of
from lepton_mpi.prediction.files.output import Format, Writer
from lepton_mpi.prediction.predictor import Predictor, Wanted
from lepton_mpi.prediction.prepared import PreparedRows
from lepton_mpi.prediction.request import Request
from lepton_mpi.prediction.subject import open_subject
from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.prepare.readers import Words
from lepton_mpi.prepare.writing import disk_errors, partial_of
from lepton_mpi.run.trained import Trained, find, load_found
from lepton_mpi.wording import grouped, print_line


@dataclass(frozen=True)
class Part:
    """A chunk, predicted.

    Attributes
    ----------
    row_count : int
        Rows of the input, those that are left out too.
    kept : int64, shape (rows,)
        Places in the chunk of the rows that were predicted.
    keys : list of array
        What stands before the answers, but for the number of a row, which is known when all chunks before are counted.
    answers : list of array
    """

    row_count: int
    kept: np.ndarray
    keys: list[np.ndarray]
    answers: list[np.ndarray]


class Chunks(Protocol):
    """The input.

    Attributes
    ----------
    count : int
        Chunks, the same on every rank.
    keys : list of Field
        What stands before the answers.
    fields : list of Field
        The answers.
    dtype : np.dtype
        Of the model.
    """

    count: int
    keys: list[Field]
    fields: list[Field]
    dtype: np.dtype[Any]

    def part(self, number: int) -> Part:
        """A chunk. Raises LeptonError."""

    def notes(self, world: Any) -> list[str]:
        """What the user should know of all chunks. Collective."""


def predict(request: Request, world: Any) -> None:
    """Write ``request.out`` and print what is in it. Collective. Raises LeptonError, on every rank."""
    world.agree_on("the options", vars(request))
    out = Path(request.out)
    _check_output(out, request.force, world)
    place = find(Path(request.checkpoint), world)
    request = replace(request, checkpoint=str(place))
    is_prepared = sources.are_prepared(request.inputs, world)
    with _prepared(request, world) if is_prepared else _raw(request, world) as chunks:
        with same_on_all_ranks():
            check_names([*chunks.keys, *chunks.fields])
        with world.agreeing():
            form = format_of(out, chunks.dtype)
        rows, written = _write(chunks, form, out, world)
        notes = chunks.notes(world)
    if world.rank == 0:
        for note in notes:
            print_line(f"unknown    {note}")
        left_out = f", {grouped(rows - written)} left out: missing cells, as --missing drop said"
        print_line(f"rows       {grouped(written)} predicted{left_out * (rows > written)}")
        print_line(f"wrote      {out}: {_columns_text([*chunks.keys, *chunks.fields])}")


def _check_output(path: Path, force: bool, world: Any) -> None:
    """Find out before the work whether its result can be kept; rank 0 looks. Collective."""
    with world.agreeing():
        check_suffix(path)
        if world.rank == 0:
            if path.is_dir() or not path.parent.is_dir():
                raise LauncherError(f"cannot write {path}: no such folder, or a folder itself")
            if path.exists() and not force:
                raise ConfigurationError(f"--out: {path} exists; --force writes over it")
            with disk_errors(path):
                partial_of(path).unlink(missing_ok=True)  # what a kill has left
                try_writing(path.parent)


@contextmanager
def _prepared(request: Request, world: Any) -> Iterator[Chunks]:
    """Rows of prepared files. Collective."""
    with same_on_all_ranks():
        for flag, value in (("--key", request.key), ("--prepare", request.prepare)):
            if value:
                raise ConfigurationError(
                    f"{flag}: is for raw inputs, got {request.inputs[0]}, a prepared file"
                )
    place = Path(request.checkpoint)
    found = load_found(place, request.inputs, world, request.model)
    with same_on_all_ranks():
        chunks = _PreparedChunks(found, request)
    _say_model(found, world)
    yield chunks


@contextmanager
def _raw(request: Request, world: Any) -> Iterator[Chunks]:
    """Rows of raw files. Collective."""
    subject = open_subject(Path(request.checkpoint), request.like, world, request.model)
    with same_on_all_ranks():
        if request.split != "all":
            raise ConfigurationError(
                f"--split: is for prepared files, got {request.inputs[0]}, of which all rows are predicted"
            )
        predictor = Predictor(subject.found, Wanted(request.proba, request.embeddings))
    how = request.unknown, request.key, request.prepare
    opened = sources.open_raw(subject, request.inputs, world, *how)
    try:
        _say_model(subject.found, world)
        if world.rank == 0:
            print_line(f"input      {', '.join(request.inputs)}, {opened.source.format}")
            for note in opened.notes:
                print_line(f"           {note}")
        chunks = _RawChunks(opened, predictor, request, world)
        try:
            yield chunks
        finally:
            chunks.close()
    finally:
        opened.source.close()


def _say_model(found: Trained, world: Any) -> None:
    if world.rank == 0:
        print_line(f"model      {found.model}, {found.path}")


class _PreparedChunks:
    """See ``Chunks``."""

    def __init__(self, found: Trained, request: Request) -> None:
        self._predictor = Predictor(found, Wanted(request.proba, request.embeddings))
        self._rows = PreparedRows(found.data, request.split)
        self.count, self.dtype = len(self._rows.chunks), found.data.dtype
        self.keys = [key_field(None, False)] + [SPLIT] * self._rows.names_splits
        self.fields = self._predictor.fields

    def part(self, number: int) -> Part:
        """See ``Chunks``."""
        chunk = self._rows.chunks[number]
        keys = [self._rows.splits(chunk)] * self._rows.names_splits
        answers = self._predictor.of(self._rows.batches(chunk), chunk.row_count)
        return Part(chunk.row_count, np.arange(chunk.row_count), keys, answers)

    def notes(self, world: Any) -> list[str]:
        """See ``Chunks``."""
        return []


class _RawChunks:
    """See ``Chunks``."""

    def __init__(
        self, opened: sources.Opened, predictor: Predictor, request: Request, world: Any
    ) -> None:
        self._predictor = predictor
        self._encoder = Encoder(opened.subject, request.unknown == "missing")
        self._blocks = Blocks(opened.source, world, 0)
        self._ahead = BlocksAhead(self._blocks, world.size)
        self.count, self.dtype = self._blocks.count, predictor.data.dtype
        self.keys, self.fields = [key_field(opened.key, opened.are_files)], predictor.fields

    def part(self, number: int) -> Part:
        """See ``Chunks``."""
        block = self._ahead.read(number)
        rows = self._encoder.encoded(block, self._blocks.places[number][0].name)
        answers = self._predictor.of(self._encoder.batches(rows), rows.row_count)
        keys = []
        if self.keys[0].kind == "text":
            assert block.group is not None
            keys = [_texts(block.group, rows.kept)]
        return Part(len(block.x), rows.kept, keys, answers)

    def close(self) -> None:
        """Read no more."""
        self._ahead.close()

    def notes(self, world: Any) -> list[str]:
        """See ``Chunks``."""
        return self._encoder.notes_on(world.comm.allgather(self._encoder.unknown))


def _texts(words: Words, rows: np.ndarray) -> np.ndarray:
    """Cells as bytes of UTF-8; empty where there is none."""
    texts = [text.encode("utf-8", "replace") for text in words.texts]
    return np.array([*texts, b""], np.bytes_)[words.codes[rows]]


# -- rounds ------------------------------------------------------------------------------------------------


def _write(chunks: Chunks, form: Format, out: Path, world: Any) -> tuple[int, int]:
    """All chunks into the file, in their order; returns how many rows there were, and were written. Collective."""
    fields = [*chunks.keys, *chunks.fields]
    read = written = 0
    with _opened(form, out, fields, world) as writer:
        for first in range(0, chunks.count, world.size):
            world.clock.enter("evaluation", first)
            number, mine = first + world.rank, None
            with world.agreeing():
                if number < chunks.count:
                    mine = chunks.part(number)
            counts = world.comm.allgather((mine.row_count, len(mine.kept)) if mine else (0, 0))
            packed: list[np.ndarray] = []
            if mine is not None:
                before = read + sum(count for count, _ in counts[: world.rank])
                packed = form.packed(fields, _arrays(chunks, mine, before))
            received = _gathered(packed, world)
            with world.agreeing(), disk_errors(out):
                for arrays in received if writer else ():
                    assert writer
                    writer.append(arrays)
            read += sum(count for count, _ in counts)
            written += sum(count for _, count in counts)
    return read, written


def _arrays(chunks: Chunks, part: Part, before: int) -> list[np.ndarray]:
    """Of each field the chunk's, with the numbers of its rows, of which ``before`` were before."""
    numbers = [part.kept + before] * (chunks.keys[0].kind == "number")
    return [*numbers, *part.keys, *part.answers]


def _gathered(packed: list[np.ndarray], world: Any) -> list[list[np.ndarray]]:
    """On rank 0 what each rank has packed, in their order, of those that have something. Collective."""
    shapes = world.comm.allgather([(array.dtype.str, array.shape) for array in packed])
    if world.rank > 0:
        for array in packed:
            world.comm.Send(_bytes(array), 0)
        return []
    received = [packed]
    for sender, theirs in enumerate(shapes[1:], start=1):
        arrays = [np.empty(shape, dtype) for dtype, shape in theirs]
        for array in arrays:
            world.comm.Recv(_bytes(array), sender)
        received.append(arrays)
    return [arrays for arrays in received if arrays]


def _bytes(array: np.ndarray) -> np.ndarray:
    """The same memory, for MPI, which knows no texts."""
    return array.reshape(-1).view(np.uint8)


@contextmanager
def _opened(form: Format, out: Path, fields: list[Field], world: Any) -> Iterator[Writer | None]:
    """The file on rank 0, whole at the end of the block or not there; None elsewhere. Collective."""
    with ExitStack() as stack:
        writer = None
        with world.agreeing():
            if world.rank == 0:
                writer = stack.enter_context(form.open(out, fields))
        yield writer
        with world.agreeing():
            stack.close()


def _columns_text(fields: list[Field]) -> str:
    """The columns, of which many are counted."""
    texts = []
    for field in fields:
        few = len(field.columns) <= 4
        texts.append(", ".join(field.columns) if few else f"{len(field.columns)} {field.name}")
    return ", ".join(texts)
