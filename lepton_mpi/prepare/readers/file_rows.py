"""Rows that are files, one each: of folders by class, or named by a table."""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, RowPart, Words
from lepton_mpi.prepare.readers.class_folders import ClassFiles


@dataclass(frozen=True)
class FileRows:
    """Files of one split, with what a block says of their rows; see ``Block``.

    Attributes
    ----------
    name : str
        For messages.
    split : str or None
    paths : tuple of Path
    y : Words, int64 (rows,), or float64 (rows, targets)
    group, split_cells : Words or None
    """

    name: str
    split: str | None
    paths: tuple[Path, ...]
    y: Words | np.ndarray
    group: Words | None = None
    split_cells: Words | None = None

    @staticmethod
    def of_classes(files: ClassFiles, folder: Path) -> "FileRows":
        """Files by class, of a folder."""
        name = folder.name + (f"/{files.split}" if files.split else "")
        group = Words.of(files.groups) if files.groups else None
        return FileRows(name, files.split, files.paths, np.array(files.codes, np.int64), group)


class FilePart(RowPart):
    """Rows of which each is a file; a subclass says how one is read. With ``--unreadable drop`` some may be left out."""

    def __init__(self, files: FileRows, like: np.ndarray, options: Options) -> None:
        """``like`` is a block without a row: its type and the shape of a row."""
        row_bytes = like.dtype.itemsize * prod(like.shape[1:])
        super().__init__(files.name, files.split, len(files.paths), row_bytes, options.block)
        self._files, self._like, self._drops = files, like, options.unreadable == "drop"

    @abstractmethod
    def read_file(self, path: Path) -> tuple[np.ndarray, list[str]]:
        """A row, and what the user should know of it, in words that many files share. Raises Unreadable, DataError."""

    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop), but for those that cannot be read and may be left out. Raises DataError."""
        rows, kept, notes = [], [], []
        for number in range(start, stop):
            try:
                row, told = self.read_file(self._files.paths[number])
            except Unreadable:
                if not self._drops:
                    raise
                notes.append("file that cannot be read left out")
                continue
            rows.append(row)
            kept.append(number)
            notes += told
        x = np.stack(rows) if rows else self._like
        files = self._files
        return Block(
            *(
                x,
                _some(files.y, kept),
                {},
                _some(files.group, kept),
                _some(files.split_cells, kept),
            ),
            first_row=start,
            notes=tuple(notes),
        )


class Unreadable(DataError):
    """A file that is damaged, or not what its name says."""


def _some(column: Words | np.ndarray | None, rows: list[int]) -> Words | np.ndarray | None:
    if isinstance(column, Words):
        return Words(column.codes[rows], column.texts)
    return None if column is None else column[rows]
