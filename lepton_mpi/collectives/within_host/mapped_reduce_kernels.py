"""An allreduce of arrays that every rank of a host has in its own address space: summed in place, without stages. A Numba kernel.

    meet    fold the own slice of all arrays, piece by piece, to its place in the own array and on to the others
    meet    return: all slices are there

Memory traffic of N bytes on n ranks: (n + n) N, where the staged form has 4 n N, half of them in the caches.
The order of additions is that of the staged form. A rank that dies is found by the watchdog, which ends the job.
"""

from lepton_mpi.collectives.within_host.atomics import publish
from lepton_mpi.collectives.within_host.call_kernels import copied, wait_for_all
from lepton_mpi.collectives.within_host.meeting_kernels import EPOCH, OWN, RANKS, control_words
from lepton_mpi.collectives.within_host.staged_kernels import (
    BYTES,
    ENTRIES,
    begin_call,
    fold_rows,
    slice_bounds,
)
from lepton_mpi.kernels.compiling import forced, kernel
from lepton_mpi.kernels.intrinsics import copy_bytes

# Of each array: the pieces of all ranks stay in the second-level cache.
PIECE_BYTES = 64 << 10


@forced
def _fold_piece(plan, at, length):
    ranks, own = plan[RANKS], plan[OWN]
    rows, out = ENTRIES + 6 * ranks, plan[ENTRIES + own] + at
    for rank in range(ranks):
        plan[rows + rank] = plan[ENTRIES + rank] + at
    fold_rows(plan, out, length)
    for rank in range(ranks):
        if rank != own:
            copy_bytes(plan[ENTRIES + rank] + at, out, length)


@kernel("i8(i8[::1])")
def mapped_reduce(plan):
    """Fold the arrays whose addresses are the first words of ENTRIES, by rank, of BYTES each. Collective over the host.

    Returns as ``staged_move``.
    """
    words = control_words(plan)
    different = begin_call(plan, words)
    if different:
        return different
    start, stop = slice_bounds(plan[OWN], plan[RANKS], plan[BYTES])
    for at in range(start, stop, PIECE_BYTES):
        _fold_piece(plan, at, min(PIECE_BYTES, stop - at))
    publish(words, copied(plan[OWN]), plan[EPOCH] + 2)
    wait_for_all(words, copied, plan[EPOCH] + 2, plan)
    plan[EPOCH] += 2
    return 0
