"""A data file that stays open: what has become of it meanwhile, and reads that wait for a file system to come back.

What may happen to a file under the feet of a run:

    unlinked, renamed over     nothing: the descriptor, and what is mapped, stay those of the file that was opened
    cut short                  a read comes to its end early; touching what is mapped behind the new end kills the process (SIGBUS). So
                               readers of mapped rows ask ``changed`` before each batch: a call of fstat
    written to in place        checksums do not fit; where there are none, its time of modification is another one
    out of reach               EIO, ESTALE and the like from a network file system: tried again, and a stale handle opened again

A file that is cut short between the question and the touch ends the rank by SIGBUS, whose handler names file and row (``mapped_rows.py``).
"""

import errno
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from time import monotonic

import h5py

from lepton_mpi.wording import WARNING, one_line, printable

# What a network file system says of a server that may come back.
_OUT_OF_REACH = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED),
}
_RETRY_SECONDS = 1.0


class StoredFile:
    """An HDF5 file that stays open for reading after HDF5 has closed it, as long as this object lives.

    Parameters
    ----------
    path : Path
        For messages.
    file : h5py.File
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        # The same file for sure, even if another has taken its name.
        self.path, self.descriptor = path, os.dup(file.id.get_vfd_handle())
        self.retry_seconds = 0.0
        found = os.fstat(self.descriptor)
        self.size, self._version = found.st_size, _version_of(found)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def changed(self) -> str:
        """What has become of the file since it was opened, for a message; empty if nothing. Takes a microsecond.

        One that was unlinked, or renamed over, stays what it was.
        """
        try:
            now = os.fstat(self.descriptor)
        except OSError as error:
            return one_line(error)
        if _version_of(now) == self._version:
            return ""
        if now.st_size < self.size:
            return f"the file has become shorter: {now.st_size} bytes, expected {self.size}"
        return "the file was written to after it was opened: expected it to stay as it is while rows are read"

    def read(self, parts: list[memoryview], start: int) -> int:
        """``os.preadv``, again and again for ``retry_seconds`` where the file system is out of reach. Raises OSError."""
        end = None
        while True:
            try:
                return os.preadv(self.descriptor, parts, start)
            except OSError as error:
                if error.errno not in _OUT_OF_REACH or self.retry_seconds <= 0:
                    raise
                now = monotonic()
                if end is None:
                    end = now + self.retry_seconds
                    print(
                        f"{WARNING}{printable(str(self.path))}: {one_line(error)}; tried again for {self.retry_seconds:g} s (--io-retry)",
                        file=sys.stderr,
                    )
                if now >= end:
                    raise
                time.sleep(min(_RETRY_SECONDS, max(0.0, end - now)))
                self._open_again(error.errno)

    def _open_again(self, number: int | None) -> None:
        """A handle that is stale stays so; the file of that name may be the same one."""
        if number != errno.ESTALE:
            return
        with suppress(OSError):
            fresh = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _version_of(os.fstat(fresh)) == self._version:
                    os.dup2(fresh, self.descriptor, inheritable=False)
            finally:
                os.close(fresh)


def _version_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns
