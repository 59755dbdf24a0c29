"""The kernels that several processes need before they begin: each is compiled by one of them, the others take it from disk.

    process 0   the longest kernel ---------------- wait - load the others'
    process 1   the next --- a short one - another - wait - load the others'
    process 2   sleep -------------------------------------- load all

At most as many as there are cores compile at once; the others sleep, since a process that polls takes the core of one that
compiles. Nothing here waits for a process: only for files, or for a place on a core. What a file system cannot hand
over, everybody compiles.
"""

import inspect
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.core.typing.templates import Signature

from lepton_mpi.kernels import locks
from lepton_mpi.kernels.compiling import Kernel

# What an intrinsic counts for, in instructions of Python: 48 kernels took 0.2 to 0.7 ms for each.
_INTRINSIC_LENGTH = 300
# Between two looks at what has been compiled meanwhile.
_POLL_SECONDS = 0.03


class Wanted(NamedTuple):
    """A kernel, and one of its signatures."""

    kernel: Kernel
    signature: Signature


def missing(kernels: Iterable[Kernel], dtype: np.dtype) -> list[Wanted]:
    """Load kernels for a run of numbers of ``dtype``; returns those that are not on disk, the longest first."""
    wanted = [
        Wanted(each, signature)
        for each in dict.fromkeys(kernels)
        for signature in each.signatures_for(dtype)
    ]
    left = [each for each in wanted if not each.kernel.load(each.signature)]
    return sorted(left, key=lambda each: -length(each.kernel))


def compile_together(left: list[Wanted], cores: int, progress: Callable[[], None]) -> None:
    """Return once all of ``left`` are compiled and loaded. Each process of the job calls it, at about the same time.

    Parameters
    ----------
    cores : int
        So many processes compile at once.
    progress
        Called after each kernel that is ready, whoever has compiled it.
    """
    while left:
        with locks.place_of(cores) as has_place:
            left = _step(left, has_place, progress)
            while left and has_place:
                left = _step(left, has_place, progress)


def _step(left: list[Wanted], may_compile: bool, progress: Callable[[], None]) -> list[Wanted]:
    """Load what is there by now; else, if it may, compile the first one that nobody else is compiling. Returns what is left."""
    still = [each for each in left if not each.kernel.load(each.signature)]
    if len(still) == len(left) and may_compile:
        for each in left:
            if each.kernel.obtain(each.signature, wait=False):
                still.remove(each)
                break
    if len(still) < len(left):
        progress()
    else:
        time.sleep(_POLL_SECONDS)
    return still


def length(function: Dispatcher) -> int:
    """How long a function takes to compile, about: instructions of Python in it and in all that it calls."""
    total, seen, waiting = 0, {function}, [function]
    while waiting:
        called = waiting.pop().py_func
        names = inspect.getclosurevars(called)
        total += len(called.__code__.co_code) // 2
        for value in [*names.globals.values(), *names.nonlocals.values()]:
            if isinstance(value, _Intrinsic):
                total += _INTRINSIC_LENGTH
            elif isinstance(value, Dispatcher) and value not in seen:
                seen.add(value)
                waiting.append(value)
    return total
