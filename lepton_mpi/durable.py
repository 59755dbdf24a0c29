"""A file that is there in full or not at all, also after a power cut."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.wording import one_line


class PatientFile(io.FileIO):
    """A new file that HDF5 writes through, which keeps the first error of the disk until it is closed.

    HDF5 cannot give up a file that it cannot write, on a disk that is full: it tries again whenever an object of the file
    goes, reports that from places that nobody can catch, and may crash when the process ends.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """All of ``data``, or nothing is said of it before ``close``."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest):
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = self._error or error
        return size

    def truncate(self, size: int | None = None) -> int:
        """The length, now or as ``write`` does it."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def close(self) -> None:
        """Raises the OSError of anything before."""
        super().close()
        error, self._error = self._error, None
        if error:
            raise error


def try_writing(folder: Path) -> None:
    """Find out whether files can be made in a folder, by making one without a name. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def replace_durably(temporary: Path, path: Path) -> None:
    """Put the written file ``temporary`` in the place of ``path``, both of one folder. Raises OSError."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def check_target(path: Path, flag: str, begins: bytes, writer: str) -> None:
    """Whether ``writer`` may write a file there: where nothing is, or one that it has written, which begins so.

    Raises ConfigurationError that names the option ``flag``.
    """
    # A pipe would have to be waited for.
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise ConfigurationError(f"{flag}: expected a file in a folder that exists, got {path}")
    try:
        with path.open("rb") as file:
            is_ours = file.read(len(begins)) == begins
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"{flag}: {path}: not readable: {error.strerror}") from None
    if not is_ours:
        raise ConfigurationError(
            f"{flag}: expected a new file, or one that {writer} has written, got {path}, which is another"
        )


def temporary_name(path: Path, mark: str = "") -> Path:
    """What a file is called while it is written: of ``mark``, or else of this process."""
    return path.with_name(f"{path.name}.{mark or os.getpid()}.tmp")


@contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """A block that writes the file whose name it is given, which then takes the place of ``path``; nothing is left if it fails.

    Raises OSError, also for the RuntimeError of HDF5 on a disk that is full.
    """
    temporary = temporary or temporary_name(path)
    try:
        yield temporary
        replace_durably(temporary, path)
    except RuntimeError as error:
        raise OSError(one_line(error)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_checkpoint(folder: str, error: OSError) -> LauncherError:
    """For a checkpoint that cannot be written."""
    return LauncherError(
        f"cannot write a checkpoint to {folder}: {one_line(error.strerror or error)}"
    )
