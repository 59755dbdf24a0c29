"""Compiled kernels on disk: one file for each kernel and signature, under a name that says all that its code depends on.

    FOLDER/<kernel>-<digest>.kernel      the digest is that of a ``sources.Key``

So a change gives up the kernels that it concerns and no others, and all environments and work trees of a user share what
they have in common. Nothing is locked and there is no index: a file is written under a temporary name and renamed, on a network
file system too, and whoever writes the same file at the same time writes the same code. A file begins with its own name and a
checksum: one that is cut off, damaged or foreign is compiled anew.

A file is code that is run. So the folder must belong to the user, and nobody else may write to it.
Numba's own cache has one index for all signatures of a function, which processes that write it at once can damage for good,
knows nothing of the functions in other files that are compiled in, and lies in the package, whose folders then outlive it.
"""

import os
import pickle
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from lepton_mpi import launcher
from lepton_mpi.kernels.sources import Key
from lepton_mpi.wording import WARNING

_PACKAGE = __name__.partition(".")[0]
_SUFFIX = ".kernel"
_MAGIC = b"lepton_mpi kernel 1\n"
_UNUSED_DAYS_MAX = 30
_DAY_SECONDS = 86400.0


# -- files ---------------------------------------------------------------------------------------


def load(key: Key, target: Any) -> CompileResult | None:
    """What was compiled under a key; None if it is not there, or not whole."""
    where = folder()
    if where is None:
        return None
    path = where / _file_name(key)
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            head, content = file.readline() + file.readline(), file.read()
        if found.st_uid != os.geteuid() or head != _head(key, content):
            return None
        target.refresh()  # compiled code calls Numba's run-time library, which this starts
        result = CompileResult._rebuild(target, *pickle.loads(content))
    except Exception:  # whatever another program, a bad disk or an old version can have left there
        return None
    with suppress(OSError):
        if time.time() - found.st_mtime > _DAY_SECONDS:
            os.utime(path)
    return result


def save(key: Key, result: CompileResult) -> None:
    """Store what was compiled under a key, if there is a folder that has room for it."""
    where = folder()
    if where is None or result.library.has_dynamic_globals or result.lifted:
        return
    content = dumps(result._reduce())
    try:
        _write(where, where / _file_name(key), _head(key, content) + content)
        _forget_unused(where)
    except OSError as error:
        _complain_once(f"cannot store compiled kernels in {where}: {error.strerror}")


def _file_name(key: Key) -> str:
    return f"{key.name}-{key.digest}{_SUFFIX}"


def _head(key: Key, content: bytes) -> bytes:
    checksum = blake2b(content, digest_size=16, key=key.digest.encode()).hexdigest()
    return _MAGIC + checksum.encode() + b"\n"


def _write(where: Path, path: Path, content: bytes) -> None:
    """The file in full, or none."""
    descriptor, temporary = tempfile.mkstemp(".part", "", where)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _forget_unused(where: Path) -> None:
    """Once a day, remove what nobody has used for long, and what a process that was killed has left."""
    stamp, now = where / "cleaned", time.time()
    with suppress(FileNotFoundError):
        if now - stamp.stat().st_mtime < _DAY_SECONDS:
            return
    stamp.touch()
    for path in where.iterdir():
        if path.suffix in (_SUFFIX, ".part"):
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > _UNUSED_DAYS_MAX * _DAY_SECONDS:
                    path.unlink()


# -- folder --------------------------------------------------------------------------------------


@cache
def folder() -> Path | None:
    """Where compiled kernels are; None if there is no place for them. Says so if it is not the first choice."""
    wrong = ""
    for where in candidates():
        found = unusable(where)
        if not found:
            if wrong:
                _complain_once(f"{wrong}; they are in {where}")
            return where
        wrong = wrong or f"cannot keep compiled kernels in {where}: {found}"
    _complain_once(f"{wrong}; every process compiles its own")
    return None


def candidates() -> Iterator[Path]:
    """Folders to try, in this order: the one that the user has named; else that of the user's caches, else a temporary one."""
    if named := os.environ.get("LEPTON_CACHE_DIR"):
        yield Path(named, "kernels")
    elif config.CACHE_DIR:
        yield Path(config.CACHE_DIR, _PACKAGE)
    else:
        with suppress(RuntimeError):  # a user without a home
            yield Path(
                os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", _PACKAGE, "kernels"
            )
    yield private_temporary()


def private_temporary() -> Path:
    """A folder of this user among the temporary ones of this host."""
    return Path(tempfile.gettempdir(), f"{_PACKAGE}-kernels-{os.geteuid()}")


def unusable(where: Path) -> str:
    """Make the folder if it is not there; returns what is wrong with it, or nothing."""
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = where.stat()
        with tempfile.TemporaryFile(dir=where):
            pass
    except OSError as error:
        return error.strerror or str(error)
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    return "others may write to it" if found.st_mode & 0o022 else ""


@cache
def _complain_once(text: str) -> None:
    """Said by the first rank; the others go on at once, as nothing ends here."""
    if launcher.launched_rank() == 0:
        launcher.complain(f"{WARNING}{text}")
