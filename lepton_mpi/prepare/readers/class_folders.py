"""Folders with a folder for each class, or one for each split with those in it."""

from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.data.files.array_names import split_of_word
from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.errors import DataError
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import printable

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ClassFiles:
    """Files of one split, in the order of their classes and names; ``codes`` are numbers of classes."""

    split: str | None
    paths: tuple[Path, ...]
    codes: tuple[int, ...]


def list_classes(
    inputs: tuple[Input, ...], suffixes: tuple[str, ...]
) -> tuple[list[ClassFiles], tuple[str, ...]]:
    """Files by split, and the names of the classes. One rank calls it, since a file system may list in any order.

    Raises DataError for folders without classes, and files that are in no class.
    """
    folders = [found for given in inputs for found in _splits(given)]
    classes = [(split, _classes(folder)) for split, folder in folders]
    names = sorted({folder.name for _, found in classes for folder in found})
    if len(names) < 2:
        raise DataError(
            f"{inputs[0].path}: expected a folder for each of several classes, got {', '.join(names) or 'none'}"
        )
    out = []
    for split, found in classes:
        files = [
            (path, names.index(folder.name))
            for folder in found
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in suffixes and path.is_file()
        ]
        if files:
            out.append(ClassFiles(split, *map(tuple, zip(*files, strict=True))))
    if not out:
        raise DataError(f"{inputs[0].path}: expected files of {', '.join(suffixes)}, got none")
    return out, tuple(map(printable, names))


def _splits(given: Input) -> list[tuple[str | None, Path]]:
    """Folders that hold classes, with their splits, training first."""
    if not given.path.is_dir():
        raise DataError(f"{given.path}: expected a folder with a folder for each class, got a file")
    inside = [path for path in sorted(given.path.iterdir()) if path.is_dir()]
    found = [(split_of_word(path.name), path) for path in inside]
    if given.split is None and found and all(split for split, _ in found):
        return sorted(found, key=lambda pair: SPLITS.index(pair[0]))
    return [(given.split, given.path)]


def _classes(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")
    ]
