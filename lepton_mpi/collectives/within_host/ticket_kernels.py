"""Numba kernels of ``tickets.py``. Lock k has two words, each on a line of its own: the next ticket, and the one that is served."""

from lepton_mpi.collectives.within_host.atomics import (
    LINE_WORDS,
    fetch_add,
    load_acquire,
    store_release,
)
from lepton_mpi.kernels.compiling import kernel


@kernel("i8(i8[::1], i8)")
def take_ticket(words, number):
    """A ticket for lock ``number``, higher than all before."""
    return fetch_add(words, 2 * number * LINE_WORDS, 1)


@kernel("b1(i8[::1], i8, i8)")
def is_served(words, number, ticket):
    """Whether the lock is this ticket's; then what its last holder stored is visible."""
    return load_acquire(words, (2 * number + 1) * LINE_WORDS) == ticket


@kernel("void(i8[::1], i8, i8)")
def serve_next(words, number, ticket):
    """Give the lock to the next ticket, after all that this rank has stored before."""
    store_release(words, (2 * number + 1) * LINE_WORDS, ticket + 1)
