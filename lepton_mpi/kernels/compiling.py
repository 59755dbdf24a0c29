"""How every Numba kernel of the package is declared and compiled: one decorator each for the kinds of function.

    @kernel("void(M, i8[::1], V)")   called from Python and from kernels; declared signatures; kept on disk (``cache.py``)
    @inner                           called from kernels; compiled as a part of each kernel that calls it
    @inlined                         the same, and its code stands in the caller's loops
    @forced                          the same, done by LLVM: for such that call each other
    @callback("i8(i4, i8)")          a kernel that C calls as well, by its address

Nothing is compiled at import. A kernel is compiled, or loaded from disk, for one signature: when a run asks for it
(``queue.py``), or at the first call with arguments that fit. Then a call costs what a call of a Numba dispatcher costs,
since a kernel is one: its C code finds the compiled function, and comes here only if there is none.

Arguments are converted to a declared signature, and no other signature is ever compiled: so vectors stay contiguous and
loops vectorised. All kernels release the interpreter lock, divide as NumPy does, and repeat their bits: no fastmath.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from time import thread_time
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core import bytecode, entrypoints, sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.typing.templates import Signature
from numba.core.typing.templates import signature as make_signature

from lepton_mpi.kernels import cache, locks
from lepton_mpi.kernels.sources import Key, key_of

# Numba's names of the types that a run may have.
_KINDS = {np.dtype(np.float32): "f4", np.dtype(np.float64): "f8"}
_LETTERS = re.compile(r"\b[FVM]\b")
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def kernel(*patterns: str) -> Callable[[Callable[..., Any]], "Kernel"]:
    """Declare a kernel by its signatures, in Numba's notation.

    In a pattern F is a number of the run's type, float32 or float64, V a vector and M a matrix of it. A pattern with none of
    them is one signature, for all runs.
    """
    return lambda function: Kernel(function, patterns)


def callback(*patterns: str) -> Callable[[Callable[..., Any]], "Kernel"]:
    """Declare a kernel of numbers that C may call; see ``Kernel.address``."""
    return lambda function: Kernel(function, patterns, {"no_cfunc_wrapper": False})


def inner(function: Callable[..., Any]) -> CPUDispatcher:
    """A function that kernels call, for whatever types they call it with."""
    return njit(**_OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> CPUDispatcher:
    """A short function whose code is put into the kernels that call it, before their types are known."""
    return njit(inline="always", **_OPTIONS)(function)


def forced(function: Callable[..., Any]) -> CPUDispatcher:
    """The same as ``inlined``, done by LLVM when the types are known: for functions that call others of their kind.

    Numba's own inlining works through all that a function calls again wherever it is called.
    """
    return njit(forceinline=True, **_OPTIONS)(function)


class Made(NamedTuple):
    """A kernel that was compiled for a signature, or loaded for it from disk.

    ``cpu_seconds`` are those of this thread, without those of kernels that were made as a part of it.
    """

    kernel: "Kernel"
    signature: Signature
    is_compiled: bool
    cpu_seconds: float


# What this process has compiled and loaded, in the order in which it was ready.
MADE: list[Made] = []


class _Began(NamedTuple):
    """When a kernel was begun: CPU seconds of this thread, and how many kernels were made by then."""

    time: float
    made: int

    @classmethod
    def now(cls) -> "_Began":
        return cls(thread_time(), len(MADE))


class Kernel(CPUDispatcher):
    """A function compiled for declared signatures, each when it is needed.

    Attributes
    ----------
    patterns : tuple of str
        See ``kernel``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        patterns: tuple[str, ...],
        options: Mapping[str, bool] = MappingProxyType({}),
    ) -> None:
        chosen = {**_OPTIONS, "nopython": True, "boundscheck": None, **options}
        super().__init__(function, targetoptions=chosen)
        self.patterns = patterns
        self._can_compile = False  # for types that nobody declared
        self._keys: dict[Signature, Key | None] = {}

    def signatures_for(self, dtype: np.dtype) -> list[Signature]:
        """Those of a run with numbers of ``dtype``: float32 or float64. All, if none depends on the run's type."""
        of_run = [pattern for pattern in self.patterns if _LETTERS.search(pattern)]
        texts = _filled(of_run or self.patterns, _KINDS[np.dtype(dtype)])
        return [_parse(text) for text in texts]

    def ready(self, signature: Signature) -> bool:
        """Whether the kernel is compiled, or loaded, for one of its signatures."""
        return signature.args in self.overloads

    def load(self, signature: Signature) -> bool:
        """Take the kernel for one of its signatures from disk, unless it is ready; False if it is not there."""
        with global_compiler_lock:
            if not self.ready(signature):
                began, key = _Began.now(), self._key(signature)
                result = cache.load(key, self.targetctx) if key else None
                if result is None:
                    return False
                self._add(signature, result, False, began)
            return True

    def obtain(
        self, signature: Signature, patience_seconds: float = locks.PATIENCE_SECONDS
    ) -> bool:
        """Load the kernel for one of its signatures, or compile and store it.

        One process of a host compiles it at a time, and the others load it then. Returns whether it is ready: False
        with no patience if another process is compiling it.
        """
        with global_compiler_lock:
            if self.load(signature):
                return True
            with locks.compiling(self._key(signature), patience_seconds) as is_free:
                if is_free and not self.load(signature):
                    self._compile_anew(signature)
            return self.ready(signature)

    def compile(self, signature: Any) -> Any:
        """``obtain`` for a text or a tuple of types, as Numba knows it; returns the address of the function.

        Raises TypeError for a signature that is not declared.
        """
        arguments, _ = sigutils.normalize_signature(signature)
        declared = self._declared.get(tuple(arguments))
        if declared is None:
            raise TypeError(
                f"{self.__qualname__}: {signature} is not declared, only {self.patterns}"
            )
        self.obtain(declared)
        return self.overloads[declared.args].entry_point

    def address(self) -> int:
        """Of the function that C calls, as long as this process lives; of a ``callback`` with one signature."""
        (signature,) = self._declared.values()
        self.obtain(signature)
        result = self.overloads[signature.args]
        name = result.fndesc.llvm_cfunc_wrapper_name
        return int(result.library.get_pointer_to_function(name))

    def _compile_anew(self, signature: Signature) -> None:
        began, key = _Began.now(), self._key(signature)
        entrypoints.init_all()
        with self._compiling_counter, _names_of(key):
            result = self._compiler.compile(signature.args, signature.return_type)
        if key:
            cache.save(key, result)
        self._add(signature, result, True, began)

    def _add(self, signature: Signature, result: Any, is_compiled: bool, began: "_Began") -> None:
        libraries = [result.library]
        self.targetctx.insert_user_function(result.entry_point, result.fndesc, libraries)
        self.add_overload(result)
        within = sum(made.cpu_seconds for made in MADE[began.made :])
        MADE.append(Made(self, signature, is_compiled, thread_time() - began.time - within))

    def _key(self, signature: Signature) -> Key | None:
        """What it is stored under; None if there is no source to tell one version of it from another."""
        if signature not in self._keys:
            options = self.targetoptions
            self._keys[signature] = key_of(self.py_func, str(signature), options, self.targetctx)
        return self._keys[signature]

    @cached_property
    def _declared(self) -> dict[tuple[types.Type, ...], Signature]:
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
        self.obtain(found)
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


def _filled(patterns: Sequence[str], kind: str) -> list[str]:
    """The signatures of ``patterns`` for one type, as text.

    >>> _filled(("void(M, i8[::1], F)",), "f4")
    ['void(f4[:,::1], i8[::1], f4)']
    """
    of_letter = {"F": kind, "V": f"{kind}[::1]", "M": f"{kind}[:,::1]"}
    return [_LETTERS.sub(lambda found: of_letter[found[0]], pattern) for pattern in patterns]


def _parse(text: str) -> Signature:
    arguments, result = sigutils.normalize_signature(text)
    return make_signature(result, *arguments)


@contextmanager
def _names_of(key: Key | None) -> Iterator[None]:
    """A block in which compiled functions get names that no other kernel's have, and in every process the same.

    Numba numbers what it compiles, by process. What two processes have compiled and a third one loads could have the same
    names, and the one be called in place of the other.
    """
    before = bytecode.FunctionIdentity._unique_ids
    if key:
        bytecode.FunctionIdentity._unique_ids = itertools.count(int(key.digest[:12], 16))
    try:
        yield
    finally:
        bytecode.FunctionIdentity._unique_ids = before
