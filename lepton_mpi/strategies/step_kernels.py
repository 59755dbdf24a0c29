"""Sum and update in one pass, as one Numba kernel: what a training step does to the parameters of a host.

    arrive   gradients of all ranks are complete, and nobody reads the parameters any more
    piece    whoever has a core: sum of the ranks' gradients, block by block in the nearest cache,
             and the update of parameters and state with it
    leave    all pieces are done, and everybody sees the new parameters

The averaged gradient is never stored and never sent. Memory traffic: (n + 2 + 2 s) N bytes for n gradients
and s vectors of state. Which rank takes which piece decides no bit, nor does how long blocks are, or whether new
parameters are stored in place or made in the nearest cache and stored past all caches (``shared_parameters.py``).
"""

from functools import cache

from lepton_mpi.collectives.within_host.meeting_kernels import (
    PLAN_HEADER,
    WORK,
    arrive,
    control_words,
    finish_piece,
    leave,
    piece_bounds,
    reduce_piece,
    take_piece,
)
from lepton_mpi.kernels.compiling import Kernel, inlined, kernel
from lepton_mpi.kernels.intrinsics import (
    LINE_BYTES,
    base_address,
    stream_fence,
    stream_line,
    vector_at,
)
from lepton_mpi.optimizers.rule_kernels import update_regions_by


@kernel("void(V, V)")
def _stream(source, target):
    """Fill ``target`` past the caches, in whole cache lines."""
    first, to = base_address(source), base_address(target)
    whole = target.size * target.itemsize // LINE_BYTES * LINE_BYTES if to % LINE_BYTES == 0 else 0
    for byte in range(0, whole, LINE_BYTES):
        stream_line(source, first + byte, to + byte)
    for i in range(whole // target.itemsize, target.size):
        target[i] = source[i]


@inlined
def _copy(source, target):
    """As ``target[: source.size] = source``, which takes 1.9 s to compile: Numba puts lengths into its error message."""
    for i in range(source.size):
        target[i] = source[i]


@cache
def sum_and_update_by(rule: Kernel) -> Kernel:
    """A kernel that updates by one of the rules of ``rule_kernels.py``."""
    update_regions = update_regions_by(rule)

    @kernel("void(i8[::1], M, i8, V, M, i8[::1], V, V, i8, b1)")
    def sum_and_update(
        plan,
        scratch,
        row,
        parameters,
        state,
        bounds,
        decays,
        numbers,
        block,
        past_caches,
    ):
        """Update the parameters of a host from the sum of vectors of a plan. Collective over the host.

        plan : int64, this rank's, see ``meeting_kernels.py``, with the first scratch slot as the target of its only group; if
            that has no folds, vector ``row`` is the sum
        scratch : (slots, elements), this rank's, of the vectors' type; the last slot is for new parameters
        Those from ``parameters`` to ``numbers`` are those of ``update_regions``. A slot has room for ``block`` elements, as many as
        are summed and then updated.
        """
        words = control_words(plan)
        is_last = arrive(words, plan)
        fresh = scratch[scratch.shape[0] - 1]
        piece = take_piece(words, plan, is_last)
        while piece >= 0:
            piece_start, piece_stop = piece_bounds(plan, piece)
            for start in range(piece_start, piece_stop, block):
                stop = min(start + block, piece_stop)
                if plan[PLAN_HEADER] > 0:
                    reduce_piece(plan, scratch, start, stop)
                    gradient = scratch[0][: stop - start]
                else:
                    at = plan[plan[WORK] + row] + start * scratch.itemsize
                    gradient = vector_at(scratch, at, stop - start)
                rest = state, bounds, decays, numbers, start, stop
                if past_caches:
                    _copy(parameters[start:stop], fresh)
                    update_regions(fresh, gradient, *rest, start)
                    _stream(fresh, parameters[start:stop])
                else:
                    update_regions(parameters, gradient, *rest, 0)
            if past_caches:
                stream_fence()
            if finish_piece(words, plan):
                return
            piece = take_piece(words, plan, False)
        leave(words, plan)

    return sum_and_update
