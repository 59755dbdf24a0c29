"""What an output file is to those who write it."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from lepton_mpi.durable import replace_durably
from lepton_mpi.prediction.fields import Field
from lepton_mpi.prepare.writing import disk_errors, partial_of


class Writer(Protocol):
    """An open file. Rank 0 alone."""

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """What ``Format.packed`` made of the next chunk."""


class Format(Protocol):
    """How a file of some suffix is written."""

    def check(self) -> None:
        """Raise LauncherError where a library is missing."""

    def packed(self, fields: Sequence[Field], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The fields of a chunk as arrays that can be sent: contiguous, none of objects. Every rank does it for its chunks."""

    def open(self, path: Path, fields: Sequence[Field]) -> AbstractContextManager[Writer]:
        """The file, whole at the end of the block or not there. Raises LauncherError if it cannot be written."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name for a file that is at ``path`` at the end of the block, or nowhere. Raises LauncherError."""
    temporary = partial_of(path)
    try:
        yield temporary
        with disk_errors(path):
            replace_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
