"""Raw inputs, opened as the training file was encoded: tables, arrays and texts by the readers of ``prepare``, images and sounds
as files, of which nobody knows the class yet and which need no folder for it."""

import dataclasses
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.data.files import hdf5
from lepton_mpi.errors import ConfigurationError, DataError, LeptonError, same_on_all_ranks
from lepton_mpi.prediction.subject import HINT, Subject
from lepton_mpi.prepare import options as prepare_options
from lepton_mpi.prepare.encoding import Encoding
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source, Words
from lepton_mpi.prepare.readers.arrays import ArrayPart
from lepton_mpi.prepare.readers.class_folders import IMAGES, SOUNDS, files_below
from lepton_mpi.prepare.readers.columns import no_labels
from lepton_mpi.prepare.readers.file_rows import FileRows
from lepton_mpi.prepare.readers.opening import open_inputs

# What only a data file of this package has: any of them.
_OF_PREPARE = ("about/encoding", "about/report")
_HDF5 = (".h5", ".hdf5")
# Options that the encoding decides, as messages begin with them.
_OF_ENCODING = re.compile("^--(columns|numbers|dates|categorical): (?=.* has no column )")
_OUTPUT = "predicted.h5"  # which prepare would write


@dataclasses.dataclass(frozen=True)
class Opened:
    """Raw inputs; ``key`` is the column that names rows, ``are_files`` says that each row is a file, whose name does."""

    source: Source
    subject: Subject
    key: str | None = None
    are_files: bool = False
    notes: tuple[str, ...] = ()


def are_prepared(inputs: tuple[str, ...], world: Any) -> bool:
    """Whether the inputs are files of ``prepare`` or embedded sets. Collective. Raises ConfigurationError for some of each."""
    found = []
    with world.agreeing():
        if world.rank == 0:
            found = [_is_prepared(name) for name in inputs]
    found = world.comm.bcast(found)
    with same_on_all_ranks():
        if len(set(found)) > 1:
            other = inputs[found.index(not found[0])]
            raise ConfigurationError(
                f"expected inputs that are all files of prepare, or none, got {inputs[0]} and {other}"
            )
    return found[0]


def _is_prepared(name: str) -> bool:
    path = hdf5.locate(name)
    if not path.exists() or path.suffix.lower() not in _HDF5 or path.is_dir():
        return False
    if path.parent == hdf5.EMBEDDED:
        return True
    try:
        hdf5.probe_file(path)
    except DataError:
        return False  # the reader of other files says what is wrong
    return any(hdf5.read_bytes(path, place) for place in _OF_PREPARE)


def options_for(
    encoding: Encoding, inputs: tuple[str, ...], unknown: str, key: str | None, prepare: str | None
) -> Options:
    """Options of ``prepare`` with which raw inputs are read, the encoding's among them. Raises ConfigurationError."""
    try:
        words = shlex.split(prepare or "")
    except ValueError as error:
        raise ConfigurationError(f"--prepare: {error}, got {prepare!r}") from None
    more = ["--like", "checkpoint", f"--unknown={unknown}", *words]
    chosen = prepare_options.parse([*more, "--", *inputs, _OUTPUT])
    for name in ("stream", "split_column", "group", "label", "labels"):
        if getattr(chosen, name):
            raise ConfigurationError(
                f"--prepare: expected options that say how inputs are read, got --{name.replace('_', '-')}"
            )
    chosen = encoding.applied_to(chosen)
    # The label is looked at by nobody, so it may be there or not, and be anything.
    return dataclasses.replace(chosen, label=(), group=key, may_lack_labels=True)


def open_raw(
    subject: Subject,
    inputs: tuple[str, ...],
    world: Any,
    unknown: str = "error",
    key: str | None = None,
    prepare: str | None = None,
) -> Opened:
    """Open raw inputs. Collective over ``world``. Raises LeptonError on every rank, whose message names the file."""
    encoding, files = subject.encoding, None
    with same_on_all_ranks():
        if key in encoding.columns:
            raise ConfigurationError(
                f"--key: expected a column beside the features, got {key!r}, which the model reads"
            )
        try:
            options = options_for(encoding, inputs, unknown, key, prepare)
        except LeptonError as error:
            raise about_inputs(error, subject) from None
    with world.agreeing():
        if world.rank == 0:
            files = None if options.files else _files(inputs)
    files = world.comm.bcast(files)
    try:
        if files is None:
            source = open_inputs(options, world)
        else:
            with same_on_all_ranks():
                if key is not None:
                    raise ConfigurationError("--key: is for tables; of files their names are")
            kind, paths = files
            source = _source_of_files(kind, paths, options, world)
    except LeptonError as error:
        raise about_inputs(error, subject) from None
    with same_on_all_ranks():
        try:
            subject, source, notes = _fitting(subject, source, options)
        except LeptonError as error:
            source.close()
            raise about_inputs(error, subject) from None
    return Opened(source, subject, key, files is not None, notes)


def about_inputs(error: LeptonError, subject: Subject) -> LeptonError:
    """The same error about the checkpoint and the input, and not about options that nobody has given."""
    text = str(error).replace("the file of --like", str(subject.found.path))
    text = _OF_ENCODING.sub("", text).replace("--group: ", "--key: ")
    told = type(error)(text)
    told.agreed = error.agreed
    return told


def _fitting(
    subject: Subject, source: Source, options: Options
) -> tuple[Subject, Source, tuple[str, ...]]:
    """Both, once it is sure that the rows are the model's, and what the user should know. Raises DataError."""
    encoding, name = subject.encoding, source.parts[0].name if source.parts else "input"
    untold = no_labels(())
    notes = tuple(note for note in source.notes if not note.endswith(untold.partition(": ")[2]))
    shape = source.row_shape
    if not subject.has_names and source.columns and shape == (int(np.prod(encoding.row_shape)),):
        encoding = dataclasses.replace(encoding, columns=source.columns, row_shape=shape)
        notes += (f"{subject.found.path} names no columns: those of {name} in their order",)
    if not subject.has_names and source.columns and source.columns != encoding.columns:
        raise DataError(
            f"{name}: expected a table of {int(np.prod(encoding.row_shape))} columns of numbers, since {subject.found.path} names "
            f"none, got {len(source.columns)}; {HINT}, if prepare made it"
        )
    if not source.columns and encoding.columns:
        raise DataError(
            f"{name}: expected a table with the columns {', '.join(encoding.columns[:12])}, as {subject.found.path} was trained on, "
            f"got rows of shape {shape}"
        )
    if not source.columns and shape != encoding.row_shape:
        hint = "; --prepare '--image-size HxW' and '--colour' say how images are read"
        raise DataError(
            f"{name}: expected rows of shape {encoding.row_shape} as {subject.found.path} was trained on, got {shape}"
            f"{hint if source.format == 'images' else ''}"
        )
    parts = tuple(_without_labels(part) for part in source.parts)
    known = encoding.known_to(dataclasses.replace(source, parts=parts), options)
    return dataclasses.replace(subject, encoding=encoding), known, notes


def _without_labels(part: Any) -> Any:
    found: Any = part.without_labels() if isinstance(part, ArrayPart) else part
    return found


# -- files of images and sounds --------------------------------------------------------------------------


def _files(inputs: tuple[str, ...]) -> tuple[str, list[tuple[Path, str]]] | None:
    """images or sounds, and the files with their names in the output; None for inputs of another kind. One rank calls it."""
    found: list[tuple[Path, str]] = []
    for word in inputs:
        path = Path(word)
        if path.is_dir():
            below = [
                file for file in files_below(path) if file.suffix.lower() in (*IMAGES, *SOUNDS)
            ]
            found += [(file, file.relative_to(path).as_posix()) for file in below]
        elif path.suffix.lower() in (*IMAGES, *SOUNDS):
            if not path.is_file():
                raise DataError(f"{path}: no such file")
            found.append((path, word))
        else:
            return None
    suffixes = {path.suffix.lower() for path, _ in found}
    if not found:
        return None
    if suffixes <= set(IMAGES):
        return "images", found
    if suffixes <= set(SOUNDS):
        return "sounds", found
    raise DataError(f"{inputs[0]}: expected images or sounds, got files of both")


def _source_of_files(
    kind: str, files: list[tuple[Path, str]], options: Options, world: Any
) -> Source:
    """Rows of these files, each named by its path. Collective."""
    names = tuple(name for _, name in files)
    # Two folders may have files of the same name.
    places = {name: number for number, name in enumerate(dict.fromkeys(names))}
    keys = Words(np.array([places[name] for name in names], np.int32), tuple(places))
    paths = tuple(path for path, _ in files)
    rows = FileRows(kind, None, paths, np.zeros(len(paths), np.int64), keys)
    options = dataclasses.replace(options, group=None)
    facts = {"format": kind, "has_labels": False}
    module, make = {
        "images": ("image_folders", "image_source"),
        "sounds": ("wav_folders", "wav_source"),
    }[kind]
    reader = import_module(f"lepton_mpi.prepare.readers.{module}")
    source: Source = getattr(reader, make)([rows], options, world, (), facts)
    return source
