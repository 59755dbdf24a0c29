"""Which addresses of this process are rows of which file, so that the end names them when a row cannot be read (``bus_kernels.py``).

Linux sends SIGBUS to who touches a page of a mapped file that is not there any more: the file has been cut short, its disk or its server is
gone. The process ends with one line, exit code 3, and the ranks of its host end with that, too.
"""

import ctypes
import mmap
import signal
import threading
import weakref

import numpy as np

from lepton_mpi import launcher, report_word
from lepton_mpi.data.files import bus_kernels as kernels
from lepton_mpi.errors import DataError

_MAPPINGS_MAX = 256
_LINE_BYTES_MAX = 8192
_AFTER = b": the file has become shorter, or cannot be read any more, while the row was in use\n"
# The other ranks, or a thread of this one, see that one has reported, and end the job with the exit code, by way of MPI; launchers have other codes
# for a rank that just ends.
_PATIENCE_MICROSECONDS = 6_000_000
# As Linux has them.
_SA_SIGINFO, _SA_ONSTACK = 4, 0x08000000


class _Action(ctypes.Structure):
    """``struct sigaction`` of the C library."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_byte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Watch:
    """The table of ``bus_kernels.py``, and the handler that reads it."""

    def __init__(self) -> None:
        self._table = np.zeros(kernels.HEAD + kernels.ROW * _MAPPINGS_MAX, np.int64)
        self._line = ctypes.create_string_buffer(_LINE_BYTES_MAX)
        self._after = ctypes.create_string_buffer(_AFTER)
        self._before, self._first = _Action(), _Action()
        self._texts: list[ctypes.Array | None] = []
        head = self._table
        head[kernels.LINE] = ctypes.addressof(self._line)
        head[kernels.AFTER], head[kernels.AFTER_BYTES] = ctypes.addressof(self._after), len(_AFTER)
        head[kernels.REPORTED_AT] = report_word.place()
        head[kernels.REPORTED] = report_word.reported_with(DataError.exit_code)
        head[kernels.EXIT_CODE] = DataError.exit_code
        if launcher.launched_size() > 1:
            head[kernels.PATIENCE] = _PATIENCE_MICROSECONDS
        head[kernels.BEFORE] = ctypes.addressof(self._before)
        head[kernels.FIRST] = ctypes.addressof(self._first)
        self._address = kernels.on_bus_error.address()
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int32, ctypes.c_int64, ctypes.c_int64)
        kind(self._address)(-1, self._table.ctypes.data, 0)
        self._libc = ctypes.CDLL(None)
        self._libc.sigaction(signal.SIGBUS, None, ctypes.byref(self._first))

    def install(self) -> None:
        """Handle SIGBUS from now on; again, if somebody else, such as ``faulthandler``, does so meanwhile."""
        present = _Action()
        self._libc.sigaction(signal.SIGBUS, None, ctypes.byref(present))
        if present.handler != self._address:
            ctypes.memmove(
                ctypes.byref(self._before), ctypes.byref(present), ctypes.sizeof(present)
            )
            action = _Action(handler=self._address, flags=_SA_SIGINFO | _SA_ONSTACK)
            self._libc.sigaction(signal.SIGBUS, ctypes.byref(action), None)

    def add(self, start: int, stop: int, row_bytes: int, text: bytes) -> int:
        """Number of a new entry, -1 where there is no room."""
        number = next((n for n, kept in enumerate(self._texts) if kept is None), len(self._texts))
        if number == _MAPPINGS_MAX:
            return -1
        kept = ctypes.create_string_buffer(text[: _LINE_BYTES_MAX - len(_AFTER) - 32])
        self._texts[number : number + 1] = [kept]
        row = self._row(number)
        row[kernels.ROW_BYTES], row[kernels.TEXT] = row_bytes, ctypes.addressof(kept)
        row[kernels.TEXT_BYTES] = len(kept) - 1
        row[kernels.FROM], row[kernels.TO] = start, stop
        self._table[kernels.COUNT] = len(self._texts)
        return number

    def remove(self, number: int) -> None:
        """The addresses may be others' now."""
        self._row(number)[:] = 0
        self._texts[number] = None

    def _row(self, number: int) -> np.ndarray:
        start = kernels.HEAD + kernels.ROW * number
        return self._table[start : start + kernels.ROW]


_lock = threading.Lock()
_watches: list[_Watch] = []


def name_rows(memory: mmap.mmap, rows: np.ndarray, row_bytes: int, where: str) -> None:
    """Until ``memory`` is given back, have a fault within ``rows``, which lie in it, end the process with a line that names ``where``.

    Parameters
    ----------
    rows : array
        Contiguous.
    row_bytes : int
        Of each of them.
    where : str
        File and data set.
    """
    size, rank = launcher.launched_size(), launcher.launched_rank()
    who = f"rank {rank} of {size}: " if size > 1 else ""
    start = rows.ctypes.data
    with _lock:
        if not _watches:
            _watches.append(_Watch())
        watch = _watches[0]
        watch.install()
        text = f"lepton_mpi: {who}{where}: row ".encode(errors="replace")
        number = watch.add(start, start + rows.nbytes, max(1, row_bytes), text)
    if number >= 0:
        weakref.finalize(memory, watch.remove, number).atexit = False
