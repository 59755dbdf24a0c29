"""Sum and update in one pass, as one Numba kernel: what a training step does to the parameters of a host.

    arrive   gradients of all ranks are complete, and nobody reads the parameters any more
    piece    whoever has a core: sum of the ranks' gradients, block by block in the nearest cache,
             and the update of parameters and state with it
    leave    all pieces are done, and everybody sees the new parameters

The averaged gradient is never stored and never sent. Memory traffic: (n + 2 + 2 s) N bytes for n gradients
and s vectors of state. Which rank takes which piece decides no bit.
"""

from numba import njit

from lepton_mpi.collectives.host_kernels import (
    PLAN_HEADER,
    arrive,
    finish_piece,
    leave,
    piece_bounds,
    place_rows,
    place_scratch,
    reduce_piece,
    take_piece,
)
from lepton_mpi.optimizer_kernels import update_regions

_SIGNATURES = [
    f"i8(i8[::1], {t}[:,::1], {t}[:,::1], i8[::1], i8, i8, {t}[::1], {t}[:,::1], i8[::1], {t}[::1], {t}[::1])"
    for t in ("f4", "f8")
]


@njit(_SIGNATURES, cache=True, nogil=True, error_model="numpy")
def sum_and_update(
    words, table, scratch, plan, row, kind, parameters, state, bounds, decays, numbers
):
    """Update the parameters of a host from the sum of rows of ``table``. Collective over the host.

    The first four arguments are those of ``host_allreduce``, with the first scratch slot as the target of the
    plan's only group; if the group has no folds, row ``row`` of the table is the sum. The others are those
    of ``update_regions``. Returns 1 if a wait was aborted.
    """
    is_last = arrive(words, plan)
    if is_last < 0:
        return 1
    place_rows(plan, table)
    place_scratch(plan, scratch)
    block = scratch.shape[1]
    piece = take_piece(words, plan, is_last)
    while piece >= 0:
        piece_start, piece_stop = piece_bounds(plan, piece)
        for start in range(piece_start, piece_stop, block):
            stop = min(start + block, piece_stop)
            if plan[PLAN_HEADER] > 0:
                reduce_piece(plan, table, scratch, start, stop)
                gradient = scratch[0][: stop - start]
            else:
                gradient = table[row][start:stop]
            update_regions(kind, parameters, gradient, state, bounds, decays, numbers, start, stop)
        if finish_piece(words, plan):
            return 0
        piece = take_piece(words, plan, 0)
    return leave(words, plan)
