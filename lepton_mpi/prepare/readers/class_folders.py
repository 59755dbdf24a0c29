"""Folders with a folder for each class, or one for each split with those in it.

Left out and counted: hidden files and folders (``._*``, ``.ipynb_checkpoints``), what systems put beside files (``__MACOSX``,
``Thumbs.db``), files with other suffixes, files beside the folders of the classes, and folders without a file that is read.
Asked about: names of splits among names of classes, folders of folds, and folders such as ``_background_noise_``.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lepton_mpi.data.files.array_names import split_of_word
from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import printable

IMAGES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".ppm", ".pgm", ".pbm"),
    *(".tif", ".tiff", ".webp", ".avif"),
)
SOUNDS = (".wav", ".wave")
_OF_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "icon\r"}
_FOLD = re.compile(r"fold[ _-]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class ClassFiles:
    """Files of one split, in the order of their classes and names.

    ``codes`` are numbers of classes; ``groups`` are names of folds, one for each file, or empty.
    """

    split: str | None
    paths: tuple[Path, ...]
    codes: tuple[int, ...]
    groups: tuple[str, ...] = ()


@dataclass
class Found:
    """Classes of all splits, and what was left out on the way.

    Attributes
    ----------
    files : list of ClassFiles
    names : tuple of str
        Of the classes.
    notes : list of str
        For the user.
    """

    files: list[ClassFiles] = field(default_factory=list)
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    hidden: Counter = field(default_factory=Counter)
    others: Counter = field(default_factory=Counter)
    beside: int = 0


def list_classes(inputs: tuple[Input, ...], suffixes: tuple[str, ...], options: Options) -> Found:
    """All files by split and class. One rank calls it, since a file system may list in any order.

    Raises DataError for folders without classes, or with some that look like none.
    """
    found = Found()
    splits = [one for given in inputs for one in _splits(given, suffixes, found)]
    by_split = [(split, _classes(folder, suffixes, options, found)) for split, folder in splits]
    dropped = set(options.drop_classes)
    names = sorted({name for _, rows in by_split for _, name, _ in rows} - dropped)
    if unknown := dropped - {"none", *(name for _, rows in by_split for _, name, _ in rows)}:
        raise ConfigurationError(f"--drop-classes: no class is called {', '.join(sorted(unknown))}")
    folder = splits[0][1] if len(splits) == 1 else inputs[0].path
    _check_names(names, folder, options, splits)
    for split, rows in by_split:
        kept = [(path, names.index(name), fold) for path, name, fold in rows if name in names]
        if kept:
            paths, codes, folds = zip(*kept, strict=True)
            found.files.append(ClassFiles(split, paths, codes, folds if all(folds) else ()))
    if len(names) < 2:
        raise DataError(
            f"{inputs[0].path}: expected a folder for each of several classes, with files of {', '.join(suffixes)}, got "
            f"{', '.join(names) or 'none'}{_left_out_text(found)}"
        )
    found.names = tuple(map(printable, names))
    found.notes += _notes(found)
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Files in a folder and in those in it, in the order of their paths; hidden ones left out."""
    for path in sorted(folder.iterdir()):
        if not _is_hidden(path):
            if path.is_dir():
                yield from files_below(path)
            else:
                yield path


def _check_names(
    names: list[str],
    folder: Path,
    options: Options,
    splits: list[tuple[str | None, Path]],
) -> None:
    """Ask about classes that look like none. Raises DataError."""
    given = all(split is not None for split, _ in splits)
    of_splits = [name for name in names if split_of_word(name)]
    if of_splits and not given:
        others = [name for name in names if name not in of_splits]
        in_order = sorted(of_splits, key=lambda name: SPLITS.index(split_of_word(name)))
        words = " ".join(f"{split_of_word(name)}={folder / name}" for name in in_order)
        raise DataError(
            f"{folder}: {', '.join(of_splits)} are names of splits, {', '.join(others)} of none: classes or splits? "
            f"{words} takes them as splits, train={folder} all of them as classes"
        )
    folds = [name for name in names if _FOLD.fullmatch(name)]
    if folds and len(folds) == len(names):
        raise DataError(
            f"{folder}: {', '.join(folds[:3])} are folds, no classes: where a table names files and labels, "
            f"python -m lepton_mpi prepare LABELS.csv OUT.h5 --files COLUMN --folder {folder} --label NAME --group NAME; "
            "where each has folders of classes, --group fold"
        )
    odd = [name for name in names if name.startswith("_")]
    if odd and "none" not in options.drop_classes:
        raise DataError(
            f"{folder}: {', '.join(odd)}: a class? --drop-classes {','.join(odd)} leaves it out, --drop-classes none "
            "keeps it"
        )


def _splits(given: Input, suffixes: tuple[str, ...], found: Found) -> list[tuple[str | None, Path]]:
    """Folders that hold classes, with their splits, training first."""
    if not given.path.is_dir():
        raise DataError(f"{given.path}: expected a folder with a folder for each class, got a file")
    folder = _deepest_alone(given.path, suffixes, found)
    inside = _folders(folder, suffixes)
    splits = [(split_of_word(path.name), path) for path in inside]
    if given.split is None and splits and all(split for split, _ in splits):
        _rows_beside(folder, suffixes, found)
        in_order = sorted(splits, key=lambda pair: SPLITS.index(pair[0]))
        return [(split, _deepest_alone(path, suffixes, found)) for split, path in in_order]
    return [(given.split, folder)]


def _deepest_alone(folder: Path, suffixes: tuple[str, ...], found: Found) -> Path:
    """The first folder with more than one folder of files in it, or with files: archives often have one more around."""
    inside = _folders(folder, suffixes)
    while len(inside) == 1 and not split_of_word(inside[0].name) and _folders(inside[0], suffixes):
        found.notes.append(f"classes are one folder deeper, in {printable(inside[0].name)}")
        folder = inside[0]
        inside = _folders(folder, suffixes)
    return folder


def _folders(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Folders in a folder with a file that is read somewhere in them."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and not _is_hidden(path)]
    return [path for path in inside if next(_files(path, suffixes, Found()), None)]


def _classes(
    folder: Path, suffixes: tuple[str, ...], options: Options, found: Found
) -> list[tuple[Path, str, str]]:
    """Path, class and fold of every file below a folder; the fold is empty unless folders of folds are asked for."""
    rows, empty = [], []
    if options.group not in (None, "fold"):
        raise ConfigurationError(
            f"--group: of folders it is fold, or a column of a table; got {options.group!r}"
        )
    if options.group == "fold":
        for fold in sorted(path for path in folder.iterdir() if _FOLD.fullmatch(path.name)):
            rows += [(path, name, fold.name) for path, name in _rows(fold, suffixes, found, empty)]
    else:
        rows += [(path, name, "") for path, name in _rows(folder, suffixes, found, empty)]
    if empty:
        found.notes.append(f"no file to read in {', '.join(empty)}: no class")
    return rows


def _rows(
    folder: Path, suffixes: tuple[str, ...], found: Found, empty: list[str]
) -> list[tuple[Path, str]]:
    rows = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not _is_hidden(path):
            files = list(_files(path, suffixes, found))
            rows += [(file, path.name) for file in files]
            empty += [printable(path.name)] * (not files)
    _rows_beside(folder, suffixes, found)
    return rows


def _rows_beside(folder: Path, suffixes: tuple[str, ...], found: Found) -> None:
    """Count what stands beside the folders in a folder."""
    for path in sorted(folder.iterdir()):
        if _is_hidden(path):
            _count_hidden(path, found)
        elif path.is_file():
            found.beside += path.suffix.lower() in suffixes
            found.others[path.suffix.lower()] += path.suffix.lower() not in suffixes


def _files(folder: Path, suffixes: tuple[str, ...], found: Found) -> Iterator[Path]:
    """Yield the files below a folder in the order of their paths, and count the others."""
    for path in sorted(folder.iterdir()):
        if _is_hidden(path):
            _count_hidden(path, found)
        elif path.is_dir():
            yield from _files(path, suffixes, found)
        elif path.suffix.lower() in suffixes:
            yield path
        else:
            found.others[path.suffix.lower()] += 1


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _OF_SYSTEMS


def _count_hidden(path: Path, found: Found) -> None:
    name = "._*" if path.name.startswith("._") else path.name
    inside = sum(len(files) for _, _, files in os.walk(path)) if path.is_dir() else 1
    found.hidden[name] += inside


def _notes(found: Found) -> list[str]:
    """What was left out, in words."""
    notes = []
    if found.hidden:
        kinds = ", ".join(printable(name) for name in sorted(found.hidden)[:6])
        notes.append(f"{_files_text(found.hidden.total(), 'hidden')} left out ({kinds})")
    if others := +found.others:
        kinds = ", ".join(
            f"{count} {printable(suffix) or 'without suffix'}"
            for suffix, count in sorted(others.items())
        )
        notes.append(f"{_files_text(others.total())} of other kinds left out: {kinds}")
    if found.beside:
        notes.append(f"{_files_text(found.beside)} beside the folders of classes left out")
    return notes


def _files_text(count: int, kind: str = "") -> str:
    return f"{count} {kind}{' ' * bool(kind)}file{'s' * (count != 1)}"


def _left_out_text(found: Found) -> str:
    notes = _notes(found)
    return f"; {'; '.join(notes)}" if notes else ""
