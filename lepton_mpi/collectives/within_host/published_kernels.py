"""Versions of ``published.py``: a word for each rank, on a line of its own. Numba kernels."""

from lepton_mpi.collectives.within_host.atomics import (
    LINE_WORDS,
    full_fence,
    load_acquire,
    store_release,
)
from lepton_mpi.kernels.compiling import kernel


@kernel("void(i8[::1], i8, i8)")
def raise_version(words, number, version):
    """``version`` of rank ``number`` is whole: after all that was stored before, and before all that will be."""
    store_release(words, number * LINE_WORDS, version)
    full_fence()


@kernel("i8(i8[::1], i8)")
def read_version(words, number):
    """The newest whole version of rank ``number``, after all that was read before, and before all that will be."""
    full_fence()
    return load_acquire(words, number * LINE_WORDS)
