"""Compiled kernels on disk, and when they are out of date.

Numba keeps what it has compiled beside the source, and takes it again while that file has not changed. But a kernel holds the
code of those that it calls, in other files: after an update of one of them the old code would run on, and take plans that
are laid out anew for old ones. So all of a package's kernels are given up when any of its files has changed.

Where it may not write there Numba writes to a folder of the user's: what is installed like that is installed in full, and
all its files are new then. Of a folder that ``NUMBA_CACHE_DIR`` names nothing is known here: after an update from git, empty it.
"""

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

_STAMP = "kernels.stamp"


def forget_stale_kernels(package: Path) -> None:
    """Remove the compiled kernels of a folder, and of those in it, if they may be older than its Python files.

    Before the first of them is imported. Several processes may do it at once: a kernel that is missing is compiled.
    """
    stamp = package / "__pycache__" / _STAMP
    sources, compiled = [], []
    for folder, folders, names in os.walk(package):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith(".py"):
                with suppress(FileNotFoundError):
                    found = os.stat(path)
                    sources.append(
                        (os.path.relpath(path, package), found.st_mtime_ns, found.st_size)
                    )
            elif name.endswith((".nbi", ".nbc")):
                compiled.append(path)
    now = hashlib.blake2b(repr(sources).encode(), digest_size=16).digest()
    # A folder that cannot be written to has no kernels either.
    with suppress(OSError):
        if stamp.exists() and stamp.read_bytes() == now:
            return
        stamp.parent.mkdir(exist_ok=True)
        with stamp.open("ab+") as file:
            # Whoever comes second must not remove what the first has compiled since.
            with suppress(OSError):  # a file system may have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if file.read() == now:
                return
            for path in compiled:
                with suppress(FileNotFoundError):
                    os.unlink(path)
            file.truncate(0)
            file.write(now)
