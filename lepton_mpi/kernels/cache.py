"""Compiled kernels on disk: one file for each kernel and signature, under a name that says all that its code depends on.

    FOLDER/<kernel>-<digest>.kernel      digest of: the source of the kernel's module and of the modules that this one
                                         imports, the signature, options, processor, versions of Numba, LLVM, NumPy, Python

So a change gives up the kernels that it concerns and no others, and all environments and work trees of a user share what
they have in common. Nothing is locked and there is no index: a file is written under a temporary name and renamed, on a network
file system too, and whoever writes the same file at the same time writes the same code. A file begins with its own name and a
checksum: one that is cut off, damaged or foreign is compiled anew.

A file is code that is run. So the folder must belong to the user, and nobody else may write to it.
Numba's own cache has one index for all signatures of a function, which processes that write it at once can damage for good,
knows nothing of the functions in other files that are compiled in, and lies in the package, whose folders then outlive it.
"""

import ast
import importlib.util
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from lepton_mpi import launch

_PACKAGE = __name__.partition(".")[0]
_SUFFIX = ".kernel"
_MAGIC = b"lepton_mpi kernel 1\n"
_UNUSED_DAYS_MAX = 30
_DAY_SECONDS = 86400.0
# Environment variables of Numba that do not change its code.
_HARMLESS = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER"}
# What declares kernels is imported by all of them, and is no part of their code.
_NO_PART = {f"{__name__.rpartition('.')[0]}.compiling"}


@dataclass(frozen=True)
class Key:
    """What one compiled kernel is stored under."""

    name: str
    digest: str

    @property
    def file_name(self) -> str:
        """Of the kernel's file in the folder."""
        return f"{self.name}-{self.digest}{_SUFFIX}"


def key_of(
    function: Callable[..., Any], signature: str, options: Mapping[str, Any], target: Any
) -> Key:
    """The key of a kernel for one signature; ``target`` is Numba's target context."""
    facts = (
        [function.__module__, function.__qualname__, signature, sorted(options.items())],
        [source_digest(module) for module in modules_behind(function.__module__)],
        _environment(target.codegen()),
    )
    name = "".join(letter for letter in function.__qualname__ if letter.isalnum() or letter == "_")
    return Key(name, blake2b(repr(facts).encode(), digest_size=16).hexdigest())


@cache
def _environment(codegen: Any) -> tuple[object, ...]:
    """What compiled code depends on beside its source."""
    settings = sorted(
        item
        for item in os.environ.items()
        if item[0].startswith("NUMBA_") and item[0] not in _HARMLESS
    )
    versions = numba.__version__, llvmlite.__version__, np.__version__, sys.version
    return codegen.magic_tuple(), versions, settings


# -- sources -------------------------------------------------------------------------------------


@cache
def modules_behind(name: str) -> tuple[str, ...]:
    """A module and all those of its package, or of this one, that it imports, or that these import; sorted."""
    packages = {_PACKAGE, name.partition(".")[0]}
    found, waiting = {name}, [name]
    while waiting:
        for imported in _imports(waiting.pop()) - found - _NO_PART:
            if imported.partition(".")[0] in packages:
                found.add(imported)
                waiting.append(imported)
    return tuple(sorted(found))


@cache
def source_digest(name: str) -> str:
    """Digest of a module's source; of nothing if it has none."""
    path = _path_of(name)
    return blake2b(path.read_bytes() if path else b"", digest_size=16).hexdigest()


@cache
def _imports(name: str) -> frozenset[str]:
    """Names of the modules that a module imports at its outermost level."""
    path = _path_of(name)
    if path is None:
        return frozenset()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: set[str] = set()
    for node in _outermost(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(relative, package) if node.level else relative
            inside = [f"{base}.{alias.name}" for alias in node.names]
            is_module = [_path_of(each) is not None for each in inside]
            names |= {each for each, is_one in zip(inside, is_module, strict=True) if is_one}
            if not all(is_module):
                names.add(base)
    return frozenset(names)


def _outermost(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.expr):
            yield node
            yield from _outermost(node)


@cache
def _path_of(name: str) -> Path | None:
    """The source of a module, if there is such a module and it has one."""
    module = sys.modules.get(name)
    if module is not None:
        path = getattr(module, "__file__", None)
    else:
        parent = name.rpartition(".")[0]
        if parent and not hasattr(sys.modules.get(parent), "__path__"):
            return None  # looking for it would import its parent
        spec = importlib.util.find_spec(name)
        path = spec.origin if spec else None
    return Path(path) if path and path.endswith(".py") and os.path.exists(path) else None


# -- files ---------------------------------------------------------------------------------------


def load(key: Key, target: Any) -> CompileResult | None:
    """What was compiled under a key; None if it is not there, or not whole."""
    where = folder()
    if where is None:
        return None
    path = where / key.file_name
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
        _write(where, where / key.file_name, _head(key, content) + content)
        _forget_unused(where)
    except OSError as error:
        _complain_once(f"cannot store compiled kernels in {where}: {error.strerror}")


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
    for where in _candidates():
        found = _usable(where)
        if not found:
            if wrong:
                _complain_once(f"{wrong}; they are in {where}")
            return where
        wrong = wrong or f"cannot keep compiled kernels in {where}: {found}"
    _complain_once(f"{wrong}; every process compiles its own")
    return None


def _candidates() -> Iterator[Path]:
    """The folder that the user has named; else that of the user's caches, else a temporary one."""
    if named := os.environ.get("LEPTON_CACHE_DIR"):
        yield Path(named, "kernels")
    elif config.CACHE_DIR:
        yield Path(config.CACHE_DIR, _PACKAGE)
    else:
        with suppress(RuntimeError):  # a user without a home
            yield Path(
                os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", _PACKAGE, "kernels"
            )
    yield Path(tempfile.gettempdir(), f"{_PACKAGE}-kernels-{os.geteuid()}")


def _usable(where: Path) -> str:
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
    if launch.launched_rank() == 0:
        launch.complain(f"lepton_mpi: {text}")
