"""The page cache of a file: into it, out of it, and how much of the file is in it. Needs neither root nor MPI."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_PIECE_BYTES = 8 << 20


def drop(path: Path) -> None:
    """Have the system forget the file's pages. Those that some process has mapped stay."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # pages that are not yet on the disk would stay
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def warm(path: Path) -> None:
    """Read the file once."""
    piece = bytearray(_PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def cached_share(path: Path) -> float:
    """The share of the file's pages that are in memory, from 0 to 1; without a page being read for it."""
    length = path.stat().st_size
    pages = -(-length // mmap.PAGESIZE)
    if not pages:
        return 1.0
    with path.open("rb") as file, mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ) as view:
        is_resident = np.zeros(pages, np.uint8)
        mapped = np.frombuffer(view, np.uint8)
        system = ctypes.CDLL(None, use_errno=True)
        arguments = (mapped.ctypes.data, length, is_resident.ctypes.data)
        failed = system.mincore(*(ctypes.c_void_p(argument) for argument in arguments))
        del mapped  # a map that is looked into cannot be closed
        if failed:
            raise OSError(ctypes.get_errno(), f"mincore of {path} failed")
    return float(np.count_nonzero(is_resident & 1)) / pages
