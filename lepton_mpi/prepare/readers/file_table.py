"""Images or sounds that a table names, with their labels: ``prepare LABELS.csv OUT.h5 --files COLUMN --folder DIR``.

The table is read as any table, but for its columns of features; the files are found by their path below the folder, or by
their name alone wherever they are below it, with or without suffix. A table may come from anybody: a name that leads out of the
folder is refused.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path, PurePath

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.prepare.readers import Block, Source, Words
from lepton_mpi.prepare.readers.class_folders import IMAGES, SOUNDS, files_below
from lepton_mpi.prepare.readers.file_rows import FileRows
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.prepare.survey import joined

OpenTable = Callable[[tuple[Input, ...], Options, object], Source]


def open_files(inputs: tuple[Input, ...], options: Options, world, open_table: OpenTable) -> Source:
    """Rows of the files that the tables name. Collective. Raises DataError and ConfigurationError."""
    only_files = replace(options, categorical=(options.files,), drop_columns=())
    columns = open_table(inputs, only_files, world).columns
    others = tuple(name for name in columns if name != options.files)
    table = open_table(inputs, replace(only_files, drop_columns=others), world)
    blocks = Blocks(table, world, 0)
    read = list(
        blocks.all_results(lambda number: (blocks.places[number][0].name, blocks.read(number)))
    )
    table.close()
    found = None
    with world.agreeing():
        if world.rank == 0:
            found = _find(table, read, options)
    found = world.comm.bcast(found)
    rows = [_rows(part, blocks_of, found.paths) for part, blocks_of in _by_part(table, read)]
    # A label is one of the table's: its classes are named by their texts.
    facts = {"format": f"{found.what} of a table", "label": table.label}
    source = import_module(f"lepton_mpi.prepare.readers.{found.module}")
    make = source.image_source if found.module == "image_folders" else source.wav_source
    return make(rows, options, world, found.notes, facts)


@dataclass(frozen=True)
class _Found:
    """Files by the name that the table has for them, and what they are."""

    paths: dict[str, Path]
    what: str
    module: str
    notes: tuple[str, ...]


def _find(table: Source, read: list[tuple[str, Block]], options: Options) -> _Found:
    """Every file that is named. One rank calls it. Raises DataError."""
    folder = Path(options.folder)
    if not folder.is_dir():
        raise DataError(f"--folder: {folder}: no such folder")
    index = _Index(folder)
    paths: dict[str, Path] = {}
    for name, block in read:
        cells = block.words[0]
        for row, code in enumerate(cells.codes.tolist()):
            place = f"{name}: {block.place(row)}, column {options.files!r}"
            if code < 0:
                raise DataError(f"{place}: expected the name of a file, got none")
            text = cells.texts[code]
            if text not in paths:
                paths[text] = index.file_of(text, place)
    suffixes = {path.suffix.lower() for path in paths.values()}
    for what, kinds, module in (
        ("images", IMAGES, "image_folders"),
        ("sounds", SOUNDS, "wav_folders"),
    ):
        if suffixes and suffixes <= set(kinds):
            left = index.count(kinds) - len(set(paths.values()))
            told = (f"{left} {what} of the folder are not in the table",) if left else ()
            return _Found(paths, what, module, (*table.notes, *told))
    raise DataError(
        f"{folder}: expected images or .wav files, got files of {', '.join(sorted(suffixes))}"
    )


class _Index:
    """Files below a folder by path, by name, and by name without suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, set[Path]] = defaultdict(set)
        self._suffixes: list[str] = []
        for path in files_below(folder):
            inside = path.relative_to(folder)
            self._suffixes.append(path.suffix.lower())
            # What a name may be; in the order in which it is tried there is only one of each kind.
            for key in (
                inside.as_posix(),
                inside.with_suffix("").as_posix(),
                path.name,
                path.stem,
            ):
                self._known[key].add(path)

    def file_of(self, text: str, place: str) -> Path:
        """The file that a text names. Raises DataError, also for one that leads out of the folder."""
        name = PurePath(text.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"{place}: expected a file in {self._folder}, got {text[:80]!r}")
        exact = self._folder / name
        if exact in self._known.get(name.as_posix(), ()):
            return exact
        found = self._known.get(name.as_posix()) or self._known.get(name.name) or set()
        if len(found) != 1:
            came = f"got {len(found)}" if found else "got none"
            raise DataError(f"{place}: expected one file {text[:80]!r} in {self._folder}, {came}")
        return next(iter(found))

    def count(self, suffixes: tuple[str, ...]) -> int:
        """Files with these suffixes."""
        return sum(suffix in suffixes for suffix in self._suffixes)


def _by_part(
    table: Source, read: list[tuple[str, Block]]
) -> list[tuple[tuple[str, str | None], list[Block]]]:
    """Blocks of each part of the table: its name and split."""
    out, start = [], 0
    for part in table.parts:
        blocks = [block for _, block in read[start : start + part.block_count]]
        start += part.block_count
        out.append(((part.name, part.split), blocks))
    return out


def _rows(part: tuple[str, str | None], blocks: list[Block], paths: dict[str, Path]) -> FileRows:
    names = joined([block.words[0] for block in blocks])
    files = tuple(paths[names.texts[code]] for code in names.codes.tolist())
    return FileRows(
        *(part[0], part[1], files),
        _joined([block.y for block in blocks]),
        _joined([block.group for block in blocks]),
        _joined([block.split for block in blocks]),
    )


def _joined(columns: list[Words | np.ndarray | None]) -> Words | np.ndarray | None:
    if isinstance(columns[0], Words):
        return joined(columns)
    return None if columns[0] is None else np.concatenate(columns)


def check_options(options: Options, format_name: str) -> None:
    """Refuse one of the two options without the other, and inputs that are no table. Raises ConfigurationError."""
    if bool(options.files) != bool(options.folder):
        raise ConfigurationError(
            "--files, --folder: expected both, a column of a table and a folder"
        )
    if options.files and format_name not in ("csv", "parquet"):
        raise ConfigurationError(f"--files: expected a table, got inputs of format {format_name}")
