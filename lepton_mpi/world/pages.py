"""Maps a file of shared memory into this process, in pages of 2 MiB where Linux gives them.

Memory in a memfd has pages of 4 KiB on most systems, whatever NumPy's own arrays have: its file system asks
``shmem_enabled``, which is "never" by default. ``MADV_COLLAPSE`` (Linux 6.1) does not ask. It gives the range large
pages at once, with what is in it, if address and place in the file agree modulo 2 MiB; hence the mapping by hand.
Where it is refused, by an older Linux, a container or for lack of whole free pages, the pages stay as they are.
"""

import ctypes
import errno
import mmap
import os
import weakref

import numpy as np

LARGE_PAGE_BYTES = 2 << 20
_MAP_FIXED, _MADV_COLLAPSE, _FAILED = 0x10, 25, ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
)
_libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
_libc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def file_length(byte_count: int) -> int:
    """Bytes to give a file for ``byte_count`` bytes, 1 or more: whole large pages, if they fill a fair part of one."""
    if byte_count < LARGE_PAGE_BYTES // 8:
        return byte_count
    return -(-byte_count // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES


def map_file(file: int, length: int) -> np.ndarray:
    """Bytes of the open ``file``, shape (length,), shared with whoever maps it; unmapped with the last view of them.

    Raises OSError.
    """
    spare = LARGE_PAGE_BYTES if length >= LARGE_PAGE_BYTES else 0
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    # Addresses are reserved first, so that the file can lie at a multiple of the large page in them.
    reserved = _mapped(_libc.mmap(None, length + spare, 0, kind, -1, 0))
    start = reserved if not spare else -(-reserved // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES
    access = mmap.PROT_READ | mmap.PROT_WRITE
    _mapped(_libc.mmap(start, length, access, mmap.MAP_SHARED | _MAP_FIXED, file, 0))
    memory = (ctypes.c_ubyte * length).from_address(start)
    weakref.finalize(memory, _libc.munmap, reserved, length + spare)
    return np.asarray(memory)


def collapse(memory: np.ndarray) -> bool:
    """Ask for large pages under what ``map_file`` gave, or a part of it that begins and ends with one.

    Pages that nobody has touched yet are made now, as zeros. Returns whether they all are large.
    """
    if memory.size < LARGE_PAGE_BYTES:
        return False
    memory[::LARGE_PAGE_BYTES].max()  # Linux refuses a range of which nothing is mapped yet
    return _libc.madvise(memory.ctypes.data, memory.size, _MADV_COLLAPSE) == 0


def _mapped(address: int) -> int:
    if address == _FAILED:
        number = ctypes.get_errno()
        hint = ": not enough memory for what is shared" if number == errno.ENOMEM else ""
        raise OSError(number, os.strerror(number) + hint)
    return address
