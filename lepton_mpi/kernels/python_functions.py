"""Kernels that Python calls as it calls its own built-in functions, several times as fast as a dispatcher of Numba is called.

    f(a, b)  ->  entry(self, [a, b], 2) in C  ->  kernel(address of words, address of [a, b], 2)  ->  a whole number of Python

A dispatcher looks at the type of each argument and takes it apart. Here the kernel is given the addresses of Python's objects, as a
function written in C by METH_FASTCALL (docs.python.org/3/c-api/structures.html), and looks at what it needs.
It is called with the interpreter lock held, and may give it up by ``release_lock`` for as long as it touches no object.

An array of int64, ``words``, is the function's ``self``; its first word is the address of the kernel.
NumPy's ``PyArrayObject`` is read at fixed places, the same in NumPy 1 and 2; ``arrays_fit`` says whether they are those of this process.
"""

import ctypes
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lepton_mpi.kernels.compiling import Kernel, kernel

SIGNATURE = "i8(i8, i8, i8)"

# Words of an array object: its type, data, dimensions (the lower half), lengths, dtype, flags (the lower half).
ARRAY_TYPE, ARRAY_DATA, ARRAY_DIMENSIONS, ARRAY_SHAPE, ARRAY_DTYPE, ARRAY_FLAGS = 1, 2, 3, 4, 7, 8
ARRAY_WORDS = 9
CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400
_LOWER_HALF = (1 << 32) - 1

_METH_FASTCALL = 0x80
_word = ir.IntType(64)

# Of the C interface of Python. The state is an address, for ``retake_lock``.
release_lock = types.ExternalFunction("PyEval_SaveThread", types.int64())
retake_lock = types.ExternalFunction("PyEval_RestoreThread", types.void(types.int64))


@intrinsic
def _entry(typing_context):
    def generate(context, builder, signature, arguments):
        module, whole = builder.module, [types.int64] * 3
        kind = ir.FunctionType(_word, [_word] * 3)
        entry = ir.Function(module, kind, f"{builder.function.name}.entry")
        entry.linkage = "internal"
        inside = ir.IRBuilder(entry.append_basic_block("entry"))
        me, given, count = entry.args

        def word_at(address):
            return inside.load(inside.inttoptr(address, _word.as_pointer()))

        words = word_at(inside.add(me, _word(8 * ARRAY_DATA)))
        kind = context.call_conv.get_function_type(types.int64, whole)
        function = inside.inttoptr(word_at(words), kind.as_pointer())
        _, value = context.call_conv.call_function(
            *(inside, function, types.int64, whole, [words, given, count])
        )
        to_python = ir.FunctionType(_word, [_word])
        make = cgutils.get_or_insert_function(module, to_python, "PyLong_FromLongLong")
        inside.ret(inside.call(make, [value]))
        return builder.ptrtoint(entry, _word)

    return types.int64(), generate


@kernel("i8()")
def _entry_address():
    return _entry()


class _Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        *(("name", ctypes.c_char_p), ("function", ctypes.c_void_p)),
        *(("flags", ctypes.c_int), ("documentation", ctypes.c_char_p)),
    )


@cache
def _definition() -> _Definition:
    """For the life of the process, as functions point to it."""
    _entry_address.compile("i8()")
    return _Definition(b"kernel", _entry_address(), _METH_FASTCALL, None)


def python_function(called: Kernel, words: np.ndarray) -> Callable[..., int]:
    """A function of Python that calls a kernel; only where ``arrays_fit``.

    Parameters
    ----------
    called : Kernel
        Of SIGNATURE: (address of ``words``, address of the addresses of the arguments, how many they are). It raises nothing.
    words : int64, one dimension
        The first is filled here. Kept as long as the function.
    """
    called.compile(SIGNATURE)
    (result,) = called.overloads.values()
    words[0] = result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.argtypes = [ctypes.POINTER(_Definition), ctypes.py_object, ctypes.c_void_p]
    new.restype = ctypes.py_object
    function: Callable[..., int] = new(ctypes.byref(_definition()), words, None)
    return function


@cache
def arrays_fit() -> bool:
    """Whether arrays lie in memory as this module says: not in a Python without interpreter lock, for one."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    plain, frozen = np.zeros((3, 5), np.float32), np.zeros((4, 2), np.int16)[:, 0]
    frozen.flags.writeable = False
    return all(map(_fits, (plain, frozen)))


def _fits(array: np.ndarray) -> bool:
    words: Any = (ctypes.c_int64 * ARRAY_WORDS).from_address(id(array))
    flags = words[ARRAY_FLAGS] & _LOWER_HALF
    named = array.flags.c_contiguous, array.flags.aligned, array.flags.writeable
    if (
        words[ARRAY_TYPE] != id(type(array))
        or words[ARRAY_DATA] != array.ctypes.data
        or words[ARRAY_DIMENSIONS] & _LOWER_HALF != array.ndim
        or words[ARRAY_DTYPE] != id(array.dtype)
        or tuple(bool(flags & flag) for flag in (CONTIGUOUS, ALIGNED, WRITEABLE)) != named
    ):
        return False
    shape = (ctypes.c_int64 * array.ndim).from_address(words[ARRAY_SHAPE])
    return tuple(shape) == array.shape
