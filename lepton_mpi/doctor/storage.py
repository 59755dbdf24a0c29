"""The file system of the data: HDF5, its file locks, free space, speed of reading."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_mpi.doctor import folder_trial, trial
from lepton_mpi.doctor.finding import Finding, fault, note, ok
from lepton_mpi.wording import one_line, size_text

LOCKING = "HDF5_USE_FILE_LOCKING"
# What HDF5 knows; it takes no notice of other values.
_VALUES = ("TRUE", "1", "FALSE", "0", "BEST_EFFORT")
# A checkpoint or prepared file of moderate size.
_FREE_BYTES = 256 << 20
# A disk that turns reads 100 MB/s or more; below, ranks that stream wait for it.
_SLOW_BYTES_PER_SECOND = 50e6


@dataclass(frozen=True)
class Trial:
    """What ``folder_trial.py`` prints; texts are empty where nothing is wrong."""

    h5py: str = ""
    hdf5: str = ""
    lock_error: str = ""
    hdf5_error: str = ""
    not_writable: str = ""
    not_readable: str = ""
    read_bytes_per_second: float | None = None


@dataclass(frozen=True)
class Facts:
    """Of one host and one folder."""

    folder: str
    data: str = ""
    kind: str = ""
    free: int = 1 << 40
    total: int = 1 << 41
    locking: str = ""
    trial: Trial = field(default_factory=Trial)


def gather(
    folder: Path,
    data: Path | None,
    environment: Mapping[str, str],
    limit_seconds: float,
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
) -> Facts:
    """Raises TimeoutError if the file system does not answer, OSError if it cannot be tried."""
    found = statvfs(folder)
    return Facts(
        str(folder),
        str(data or ""),
        _kind(folder),
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        environment.get(LOCKING, ""),
        _try(folder, data, limit_seconds),
    )


def _try(folder: Path, data: Path | None, limit_seconds: float) -> Trial:
    # Without -P, modules beside the program would stand for those of the standard library.
    words = [sys.executable, "-P", folder_trial.__file__, str(folder), str(data or "")]
    ended = trial.run(words, limit_seconds)
    if ended.code:
        raise OSError(one_line(ended.reason))
    said: dict[str, Any] = json.loads(ended.out)
    return Trial(**said)


def _kind(folder: Path) -> str:
    """Type of the file system, such as nfs4."""
    best, kind = -1, ""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    path = os.path.realpath(folder)
    for line in lines:
        _, place, name, *_ = line.split()
        if (path + "/").startswith(place.rstrip("/") + "/") and len(place) >= best:
            best, kind = len(place), name
    return kind


def findings(facts: Facts) -> Iterator[Finding]:
    """HDF5, locks, disk, reading."""
    tried = facts.trial
    if tried.hdf5:
        yield ok("HDF5", f"HDF5 {tried.hdf5}, h5py {tried.h5py}")
    yield _locks(facts)
    yield _disk(facts)
    yield from _reading(facts)


def _locks(facts: Facts) -> Finding:
    tried = facts.trial
    where = f"{facts.folder}{f' ({facts.kind})' if facts.kind else ''}"
    off = f"export {LOCKING}=FALSE"
    if facts.locking and facts.locking not in _VALUES:
        return fault(
            "file locks",
            f"{LOCKING}={facts.locking} has no effect: HDF5 knows {', '.join(_VALUES)}",
            off,
            f"unset {LOCKING}",
        )
    if tried.hdf5_error:
        return fault("file locks", f"HDF5 cannot write in {where}: {tried.hdf5_error}", off)
    is_off = facts.locking in ("FALSE", "0")
    if tried.lock_error and not is_off:
        return fault(
            "file locks",
            f"{where} refuses locks ({tried.lock_error}): other HDF5 programs fail there, "
            "training itself takes none",
            off,
        )
    if tried.not_writable:
        return ok("file locks", f"not tried: {where} cannot be written ({tried.not_writable})")
    return ok("file locks", f"{LOCKING}={facts.locking}" if is_off else f"they work in {where}")


def _disk(facts: Facts) -> Finding:
    room = f"{size_text(facts.free)} of {size_text(facts.total)} are free in {facts.folder}"
    if facts.free < _FREE_BYTES:
        return fault(
            "disk",
            f"{room}, too little for checkpoints and prepared files",
            f"du -sh {shlex.quote(facts.folder)}/* | sort -h",
        )
    if facts.trial.not_writable:
        return note(
            "disk",
            f"{facts.folder} cannot be written ({facts.trial.not_writable}): checkpoints need another folder",
            "python -m lepton_mpi.train --checkpoint FOLDER",
        )
    return ok("disk", room)


def _reading(facts: Facts) -> Iterator[Finding]:
    speed, what = facts.trial.read_bytes_per_second, facts.data or "a new file"
    if facts.trial.not_readable:
        yield fault(
            "disk read",
            f"{facts.data} cannot be read: {facts.trial.not_readable}",
            f"ls -l {shlex.quote(facts.data)}",
        )
    elif speed is None:
        yield ok("disk read", "not measured: no file of 1 MiB or more")
    elif speed < _SLOW_BYTES_PER_SECOND:
        yield note(
            "disk read",
            f"{speed / 1e6:.0f} MB/s from {what}: ranks that stream rows wait for them",
            "python -m lepton_mpi.train --loader memory",
            "cp DATA /tmp && python -m lepton_mpi.train --data /tmp/DATA",
        )
    else:
        yield ok("disk read", f"{speed / 1e6:.0f} MB/s from {what}")
