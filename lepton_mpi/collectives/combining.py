"""Combining two vectors, as messages do: by NumPy, or by a kernel where it matters which of two equal numbers is taken."""

from collections.abc import Callable
from functools import partial

import numpy as np

from lepton_mpi.collectives import combining_kernels as kernels

# One vectorised pass at memory speed, and the interpreter's lock is free meanwhile.
_UFUNCS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def combination(
    operation: str, left: np.ndarray, right: np.ndarray, out: np.ndarray
) -> Callable[[], None]:
    """What sets ``out`` to ``left`` and ``right``, combined, whenever it is called.

    Parameters
    ----------
    operation : {"sum", "max", "min"}
        The last two have the same bits in whatever order ranks are combined, see ``combining_kernels.py``.
    left, right, out : shape (n,), of one dtype
        ``out`` may be the memory of one of the two, but not a part of it.
    """
    if operation == "sum" or left.dtype.kind != "f":
        ufunc = _UFUNCS[operation]
        return lambda: ufunc(left, right, out=out)
    kernel = kernels.take_greater if operation == "max" else kernels.take_less
    kind = f"f{left.itemsize}[::1]"
    kernel.compile(f"void({kind}, {kind})")
    if np.may_share_memory(out, right):
        left, right = right, left
    if np.may_share_memory(out, left):
        return partial(kernel, out, right)

    def copy_and_combine() -> None:
        out[:] = left
        kernel(out, right)

    return copy_and_combine


def by_order(buffer: np.ndarray, operation: str) -> tuple[np.ndarray, Callable, Callable]:
    """Whole numbers whose maximum stands for the maximum or minimum of the floats in ``buffer``, in its memory.

    Returns
    -------
    words : int32 or int64, shape of ``buffer``
    begin, end : callable
        Turn floats into these whole numbers, and the maximum back; take and return nothing.
    """
    words = buffer.view(f"i{buffer.itemsize}")
    facts = kernels.facts_of_order(buffer.dtype, operation)
    kind = f"i{buffer.itemsize}[::1]"
    for kernel in (kernels.to_order, kernels.from_order):
        kernel.compile(f"void({kind}, {kind})")
    return words, partial(kernels.to_order, words, facts), partial(kernels.from_order, words, facts)
