"""Flags by which the ranks of a host tell each other how far they are, without waiting. Numba kernels."""

from lepton_mpi.collectives.within_host.atomics import LINE_WORDS, load_acquire, store_release
from lepton_mpi.kernels.compiling import kernel


@kernel("void(i8[::1], i8, i8)")
def raise_flag(flags, number, value):
    """Set flag ``number``, after all that this rank has stored before. Each flag has a line of LINE_WORDS of ``flags``."""
    store_release(flags, number * LINE_WORDS, value)


@kernel("b1(i8[::1], i8, i8, i8)")
def flags_reached(flags, start, stop, value):
    """Whether all flags [start, stop) are at least ``value``; then what was stored before is visible."""
    for number in range(start, stop):  # noqa: SIM110  Numba has no all()
        if load_acquire(flags, number * LINE_WORDS) < value:
            return False
    return True
