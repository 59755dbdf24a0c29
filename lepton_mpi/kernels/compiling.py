"""How every Numba kernel of the package is declared and compiled: one decorator each for the three kinds of function.

    @kernel("void(M, i8[::1], V)")   called from Python and from kernels; declared signatures; kept on disk (``cache.py``)
    @inner                           called from kernels; compiled as a part of each kernel that calls it
    @inlined                         the same, and its code stands in the caller's loops

Nothing is compiled at import. A kernel is compiled, or loaded from disk, for one signature: when a run asks for it
(``queue.py``), or at the first call with arguments that fit. Then a call costs what a call of a Numba dispatcher costs,
since a kernel is one: its C code finds the compiled function, and comes here only if there is none.

Arguments are converted to a declared signature, and no other signature is ever compiled: so vectors stay contiguous and
loops vectorised. All kernels release the interpreter lock, divide as NumPy does, and repeat their bits: no fastmath.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core import bytecode, entrypoints, sigutils, typing
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

from lepton_mpi.kernels import cache

# Numba's names of the types that a run may have.
_KINDS = {np.dtype(np.float32): "f4", np.dtype(np.float64): "f8"}
_OPTIONS = {"nogil": True, "error_model": "numpy"}


def kernel(*patterns: str) -> Callable[[Callable[..., Any]], "Kernel"]:
    """Declare a kernel by its signatures, in Numba's notation.

    In a pattern F is a number of the run's type, float32 or float64, V a vector and M a matrix of it. A pattern with none of
    them is one signature, for all runs.
    """
    return lambda function: Kernel(function, patterns)


def inner(function: Callable[..., Any]) -> CPUDispatcher:
    """A function that kernels call, for whatever types they call it with."""
    return njit(**_OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> CPUDispatcher:
    """A short function whose code is put into the kernels that call it, before their types are known."""
    return njit(inline="always", **_OPTIONS)(function)


class Compiled(NamedTuple):
    """One compilation; ``seconds`` include those of kernels that were compiled as a part of it."""

    kernel: "Kernel"
    signature: typing.Signature
    seconds: float


# What this process has compiled, in the order in which it was ready.
COMPILED: list[Compiled] = []


class Kernel(CPUDispatcher):
    """A function compiled for declared signatures, each when it is needed.

    Attributes
    ----------
    patterns : tuple of str
        See ``kernel``.
    """

    def __init__(self, function: Callable[..., Any], patterns: tuple[str, ...]) -> None:
        super().__init__(function, targetoptions=_OPTIONS | {"nopython": True, "boundscheck": None})
        self.patterns = patterns
        self._can_compile = False  # for types that nobody declared

    def signatures_for(self, dtype: np.dtype) -> list[typing.Signature]:
        """Those of a run with numbers of ``dtype``: float32 or float64."""
        return [_parse(text) for text in _filled(self.patterns, _KINDS[np.dtype(dtype)])]

    def ready(self, signature: typing.Signature) -> bool:
        """Whether the kernel is compiled, or loaded, for one of its signatures."""
        return signature.args in self.overloads

    def load(self, signature: typing.Signature) -> bool:
        """Take the kernel for one of its signatures from disk; False if it is not there."""
        with global_compiler_lock:
            if not self.ready(signature):
                result = cache.load(self._key(signature), self.targetctx)
                if result is None:
                    return False
                self._add(result)
            return True

    def compile(self, signature: Any) -> Any:
        """Load the kernel for one of its signatures, or compile and store it; returns the address of its function.

        Takes a text as well, and a tuple of types. Raises TypeError for a signature that is not declared.
        """
        arguments, _ = sigutils.normalize_signature(signature)
        declared = self._declared.get(tuple(arguments))
        if declared is None:
            raise TypeError(
                f"{self.__qualname__}: {signature} is not declared, only {self.patterns}"
            )
        with global_compiler_lock:
            if not self.load(declared):
                self._compile_anew(declared)
            return self.overloads[declared.args].entry_point

    def _compile_anew(self, signature: typing.Signature) -> None:
        key = self._key(signature)
        entrypoints.init_all()
        began = perf_counter()
        with self._compiling_counter, _names_of(key):
            result = self._compiler.compile(signature.args, signature.return_type)
        self._add(result)
        cache.save(key, result)
        COMPILED.append(Compiled(self, signature, perf_counter() - began))

    def _add(self, result: Any) -> None:
        libraries = [result.library]
        self.targetctx.insert_user_function(result.entry_point, result.fndesc, libraries)
        self.add_overload(result)

    def _key(self, signature: typing.Signature) -> cache.Key:
        return cache.key_of(self.py_func, str(signature), self.targetoptions, self.targetctx)

    @cached_property
    def _declared(self) -> dict[tuple[types.Type, ...], typing.Signature]:
        """All signatures, by the types of the arguments."""
        texts = dict.fromkeys(
            text for kind in _KINDS.values() for text in _filled(self.patterns, kind)
        )
        signatures = [_parse(text) for text in texts]
        arrays = {
            tuple(kind for kind in signature.args if isinstance(kind, types.Array))
            for signature in signatures
        }
        # Numbers are converted: what has been compiled for others only must not take an argument that it would round.
        assert len(arrays) == len(signatures), f"{self.__qualname__}: signatures differ in numbers"
        return {signature.args: signature for signature in signatures}

    def _prepare(self, arguments: tuple[types.Type, ...]) -> bool:
        """Compile for the declared signature that fits ``arguments`` best; False if it was there, or there is none."""
        declared = list(self._declared.values())
        found = self.typingctx.resolve_overload(self.py_func, declared, arguments, {})
        if found is None or self.ready(found):
            return False
        self.compile(found)
        return True

    # -- what Numba calls ----------------------------------------------------------------------------

    def _search_new_conversions(self, *arguments: Any, **keywords: Any) -> bool:
        """Called by the C code for values that nothing compiled so far takes; whether it should look again."""
        try:
            is_new = self._prepare(tuple(self.typeof_pyval(argument) for argument in arguments))
            return super()._search_new_conversions(*arguments, **keywords) or is_new
        finally:
            self._types_active_call.clear()

    def get_call_template(self, args: Any, kws: Any) -> tuple[Any, Any, Any, Any]:
        """Called while a kernel that calls this one is compiled."""
        _, arguments = self.fold_argument_types(args, kws)
        self._prepare(tuple(arguments))
        return super().get_call_template(args, kws)

    def _explain_matching_error(self, *arguments: Any, **keywords: Any) -> None:
        found = ", ".join(str(self.typeof_pyval(argument)) for argument in arguments)
        raise TypeError(
            f"{self.__qualname__}: no matching definition for argument types ({found}); declared: "
            f"{', '.join(self.patterns)}"
        )


def _filled(patterns: tuple[str, ...], kind: str) -> list[str]:
    """The signatures of ``patterns`` for one type, as text.

    >>> _filled(("void(M, i8[::1], F)",), "f4")
    ['void(f4[:,::1], i8[::1], f4)']
    """
    of_letter = {"F": kind, "V": f"{kind}[::1]", "M": f"{kind}[:,::1]"}
    return [
        re.sub(r"\b[FVM]\b", lambda found: of_letter[found[0]], pattern) for pattern in patterns
    ]


def _parse(text: str) -> typing.Signature:
    arguments, result = sigutils.normalize_signature(text)
    return typing.signature(result, *arguments)


class _names_of:
    """A block in which compiled functions get names that no other kernel's have, and in every process the same.

    Numba numbers what it compiles, by process. What two processes have compiled and a third one loads could have the same
    names, and the one be called in place of the other.
    """

    def __init__(self, key: cache.Key) -> None:
        self._first = int(key.digest[:12], 16)

    def __enter__(self) -> None:
        self._before: Iterator[int] = bytecode.FunctionIdentity._unique_ids
        bytecode.FunctionIdentity._unique_ids = itertools.count(self._first)

    def __exit__(self, *error: object) -> None:
        bytecode.FunctionIdentity._unique_ids = self._before
