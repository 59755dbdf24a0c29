"""Tries what HDF5 and training do in a folder: a program of its own, since a file system that does not answer would stop it.

Its arguments are the folder, and a file to read or nothing. Prints one line of JSON, see ``storage.Trial``.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_BLOCK_BYTES, _BYTES_MAX, _SECONDS = 4 << 20, 64 << 20, 0.5


def main(folder: str, data: str) -> None:
    """Carry out all trials."""
    found: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix=".lepton_mpi-doctor-", dir=folder) as own:
            found |= _try_locks(Path(own))
            if not data:
                path = Path(own, "read")
                _write(path)
                found["read_bytes_per_second"] = _read(path)
    except OSError as error:
        found["not_writable"] = error.strerror or str(error)
    if data:
        try:
            found["read_bytes_per_second"] = _read(Path(data))
        except OSError as error:
            found["not_readable"] = error.strerror or str(error)
    print(json.dumps(found))


def _try_locks(folder: Path) -> dict[str, str]:
    found = {}
    try:
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        found["lock_error"] = error.strerror or str(error)
    import h5py

    found |= {"h5py": h5py.version.version, "hdf5": h5py.version.hdf5_version}
    try:
        with h5py.File(folder / "trial.h5", "w") as file:
            file["x"] = [1, 2, 3]
        with h5py.File(folder / "trial.h5", "r") as file:
            assert file["x"].shape == (3,)
    except OSError as error:
        found["hdf5_error"] = " ".join(str(error).split())
    return found


def _write(path: Path) -> None:
    block, end = os.urandom(_BLOCK_BYTES), time.monotonic() + _SECONDS
    with path.open("wb", buffering=0) as file:
        for _ in range(_BYTES_MAX // 2 // _BLOCK_BYTES):
            file.write(block)
            if time.monotonic() > end:
                break
        os.fsync(file.fileno())


def _read(path: Path) -> float | None:
    """Bytes per second, past the pages that Linux keeps; None for a file that is too short to tell."""
    count, block = 0, bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        with suppress(OSError):  # a file system that does not know it
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        while count < _BYTES_MAX and time.perf_counter() - began < _SECONDS:
            read = file.readinto(block)
            count += read or 0
            if not read:
                break
        took = time.perf_counter() - began
    return count / took if count >= 1 << 20 else None


if __name__ == "__main__":
    main(*sys.argv[1:])
