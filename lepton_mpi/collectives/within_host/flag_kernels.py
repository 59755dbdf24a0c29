"""Flags by which the ranks of a host tell each other how far they are, without waiting. Numba kernels."""

from lepton_mpi.collectives.within_host.atomics import LINE_WORDS, load_acquire, store_release
from lepton_mpi.kernels.compiling import kernel


@kernel("void(i8[::1], i8, i8, i8)")
def raise_flag(flags, number, value, told):
    """Set flag ``number``, after all that this rank has stored before, and with it what it tells.

    Each flag has a line of LINE_WORDS of ``flags``: the value, then what was told with even values, and with odd ones. So it can be read
    until the flag is set for the second time after that.
    """
    flags[number * LINE_WORDS + 1 + (value & 1)] = told
    store_release(flags, number * LINE_WORDS, value)


@kernel("b1(i8[::1], i8, i8, i8)")
def flags_reached(flags, start, stop, value):
    """Whether all flags [start, stop) are at least ``value``; then what was stored before is visible."""
    for number in range(start, stop):  # noqa: SIM110  Numba has no all()
        if load_acquire(flags, number * LINE_WORDS) < value:
            return False
    return True


@kernel("i8(i8[::1], i8, i8, i8)")
def flags_alike(flags, start, stop, value):
    """0 unless all flags [start, stop) are at least ``value``; then 1 if all told the same with it, else 1 more than the place of one that did not.

    None may be above ``value + 1``.
    """
    for number in range(start, stop):
        if load_acquire(flags, number * LINE_WORDS) < value:
            return 0
    place = 1 + (value & 1)
    for number in range(start + 1, stop):
        if flags[number * LINE_WORDS + place] != flags[start * LINE_WORDS + place]:
            return 1 + number - start
    return 1
