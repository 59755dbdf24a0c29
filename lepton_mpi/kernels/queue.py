"""The kernels that several processes need before they begin: each is compiled by one of them, the others take it from disk.

    process 0   the longest kernel ---------------- wait - load the others'
    process 1   the next --- a short one - another - wait - load the others'
    process 2   sleep -------------------------------------- load all

At most as many as there are cores compile at once; the others sleep, since a process that polls takes the core of one that
compiles. Nothing here waits for a certain process: only for files, or for a place on a core. What a file system cannot hand
over, everybody compiles, and so does who has waited for long, such as for a job that was suspended.
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
    last = time.monotonic()
    with locks.place_of(cores) as take_place:
        while left:
            is_late = time.monotonic() - last > locks.PATIENCE_SECONDS
            still = [each for each in left if not each.kernel.load(each.signature)]
            if len(still) == len(left) and (take_place() or is_late):
                still = _compile_one(left, locks.POLL_SECONDS if is_late else 0.0)
            if len(still) < len(left):
                left, last = still, time.monotonic()
                progress()
            else:
                time.sleep(locks.POLL_SECONDS)


def _compile_one(left: list[Wanted], patience_seconds: float) -> list[Wanted]:
    """Compile the first that nobody else is compiling, or just the first for who has waited; returns what is left."""
    for each in left:
        if each.kernel.obtain(each.signature, patience_seconds):
            return [other for other in left if other is not each]
    return left


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
