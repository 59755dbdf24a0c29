"""Who compiles what: locks among the processes of a user on one host, of one job or of several.

A lock is a byte of a file in a temporary folder, which nobody writes to. The system takes back the locks of a process that
ends, however it ends. Hosts that share a folder of kernels do not see each other's locks, and may compile the same one twice:
on many network file systems locks are missing, or hang.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from itertools import islice

from lepton_mpi.kernels import cache as store
from lepton_mpi.kernels.sources import Key

POLL_SECONDS = 0.03
# How long others are waited for that compile, if nothing comes of it: one may have been suspended. A kernel of 5 s took 60 s
# with 30 processes on 2 cores; after 300 s a watchdog may end the job.
PATIENCE_SECONDS = 240.0
# Bytes from here on stand for places on a core, those before it for kernels.
_PLACES = 1 << 56


@contextmanager
def compiling(key: Key | None, patience_seconds: float) -> Iterator[bool]:
    """A block in which no other process compiles this kernel; whether that is so.

    True as well once another one has been waited for as long as that; with no patience it is False at once.
    """
    folder = store.folder()
    if folder is None or key is None:  # nobody could take over what another one has compiled
        yield True
        return
    name = f"{folder}/{key.digest}".encode()
    number = int.from_bytes(blake2b(name, digest_size=7).digest())
    until = time.monotonic() + patience_seconds
    is_mine = _take(number)
    while not is_mine and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        is_mine = _take(number)
    try:
        yield is_mine or patience_seconds > 0
    finally:
        if is_mine:
            _release(number)


@contextmanager
def place_of(count: int) -> Iterator[Callable[[], bool]]:
    """A block in which at most ``count`` processes get a place; what it gives tells whether this one has, and takes a free one."""
    taken: list[int] = []

    def take_place() -> bool:
        if not taken:
            free = (_PLACES + number for number in range(count) if _take(_PLACES + number))
            taken.extend(islice(free, 1))
        return bool(taken)

    try:
        yield take_place
    finally:
        for place in taken:
            _release(place)


def _take(number: int) -> bool:
    """Lock a byte for this process, unless another one has; a lock that cannot be had anywhere counts as taken."""
    file = _file()
    if file is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except (BlockingIOError, PermissionError):  # which of them is the system's choice
        return False
    except OSError:
        return True
    return True


def _release(number: int) -> None:
    file = _file()
    if file is not None:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_UN, 1, number)


@cache
def _file() -> int | None:
    """Descriptor of the file, open while the process lives: closing it would give back all locks. None if there is no place."""
    folder = store.private_temporary()
    if store.unusable(folder):
        return None
    try:
        return os.open(folder / "locks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
