"""What the code of a kernel is made of, as a key to store it under.

A kernel takes functions and constants of other modules into its code. So the key holds a digest of the source of its module and
of all modules behind it: those of the package that it imports, and that these import. Beside them: the signature, the options,
the processor and its features, the settings of Numba, and the versions of Numba, LLVM, NumPy and Python.
"""

import ast
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

_PACKAGE = __name__.partition(".")[0]
# Environment variables of Numba that do not change its code.
_HARMLESS = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER"}
# What declares kernels is imported by all of them, and is no part of their code.
_NO_PART = {f"{__name__.rpartition('.')[0]}.compiling"}


@dataclass(frozen=True)
class Key:
    """What one compiled kernel is stored under."""

    name: str
    digest: str


def key_of(
    function: Callable[..., Any], signature: str, options: Mapping[str, Any], target: Any
) -> Key | None:
    """The key of a kernel for one signature; None without a source, as of what is typed at a prompt.

    ``target`` is Numba's target context. A function within a function may take other functions from there.
    """
    functions = list(_with_enclosed(function))
    if any(_path_of(each.__module__) is None for each in functions):
        return None
    modules = {module for each in functions for module in modules_behind(each.__module__)}
    facts = (
        [(each.__module__, each.__qualname__, _constants(each)) for each in functions],
        [signature, sorted(options.items())],
        [(module, source_digest(module)) for module in sorted(modules)],
        _environment(target.codegen()),
    )
    name = "".join(letter for letter in function.__name__ if letter.isalnum() or letter == "_")
    return Key(name, blake2b(repr(facts).encode(), digest_size=16).hexdigest())


def _with_enclosed(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A function, and those that it takes from the function that it was made in, and that these take."""
    yield function
    for value in _enclosed(function):
        if isinstance(value, Dispatcher):
            yield from _with_enclosed(value.py_func)


def _constants(function: Callable[..., Any]) -> list[str]:
    """What else it takes from there; what the compiler takes for a constant in another way has no key."""
    values = [value for value in _enclosed(function) if not isinstance(value, Dispatcher)]
    assert all(isinstance(value, bool | int | float | str) for value in values), values
    return [repr(value) for value in values]


def _enclosed(function: Callable[..., Any]) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or ()]


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
