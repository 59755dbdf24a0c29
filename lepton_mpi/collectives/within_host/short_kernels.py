"""Short calls of a communicator on one host: what is moved lies in the ring of ``call_kernels.py``. Numba kernels.

    broadcast               the root fills its entry and goes on; the others wait for it alone
    reduce                  the others fill their entries and go on; the root waits for all, and combines
    allreduce, all-gather,  all fill their entries and wait for all; each combines, or copies out, all that it wants
    all-to-all,
    reduce-scatter, barrier

Cost: one line for the counter of each rank that is waited for, one for its fingerprint, and those of the data.
"""

from lepton_mpi.collectives.calls import MEETING, NUMBER_OF
from lepton_mpi.collectives.within_host.call_kernels import (
    CALL,
    data_of,
    full_meeting,
    meet_root,
    note_call,
    prepare,
    tell,
)
from lepton_mpi.collectives.within_host.meeting_kernels import OWN, RANKS, control_words
from lepton_mpi.collectives.within_host.row_fold_kernels import call_fold
from lepton_mpi.collectives.within_host.staged_kernels import DIVISOR, ENTRIES
from lepton_mpi.kernels.compiling import forced, kernel
from lepton_mpi.kernels.intrinsics import base_address, copy_bytes

_BROADCAST, _REDUCE = NUMBER_OF["broadcast"], NUMBER_OF["reduce"]
_ALLGATHER, _ALLTOALL = NUMBER_OF["allgather"], NUMBER_OF["alltoall"]
_REDUCE_SCATTER = NUMBER_OF["reduce_scatter"]


@forced
def _copy(target, source, byte_count):
    if target != source:
        copy_bytes(target, source, byte_count)


@forced
def _copy_out(plan, verb, root, byte_count, source, target):
    """What this rank wants of the entries of others, and of its own block."""
    own, ranks = plan[OWN], plan[RANKS]
    if verb == _BROADCAST and own != root:
        copy_bytes(target, data_of(plan, root), byte_count)
    if verb == _ALLGATHER:
        for rank in range(ranks):
            found = source if rank == own else data_of(plan, rank)
            _copy(target + rank * byte_count, found, byte_count)
    if verb == _ALLTOALL:
        for rank in range(ranks):
            found = source if rank == own else data_of(plan, rank)
            _copy(target + rank * byte_count, found + own * byte_count, byte_count)


@kernel("i8(i8[::1], i8, i8, i8, i8, i8, i8, i8)")
def short_move(plan, verb, dtype, operation, root, byte_count, source, target):
    """Broadcast, all-gather, all-to-all or barrier of blocks of ``byte_count`` bytes; or a meeting. Collective over the host.

    source, target : addresses of what goes out, and of where the result goes.

    Returns 0; or the first rank that is told other things than rank 0, in call DIFFERENT. Then nothing was written.
    """
    words, own = control_words(plan), plan[OWN]
    different = prepare(plan, words)
    if different:
        return different
    note_call(plan, verb, dtype, operation, root, byte_count)
    if verb < MEETING and (verb != _BROADCAST or own == root):
        length = byte_count * plan[RANKS] if verb == _ALLTOALL else byte_count
        copy_bytes(data_of(plan, own), source, length)
    tell(plan, words)
    if verb != _BROADCAST:
        different = full_meeting(plan, words)
    elif own != root:
        different = meet_root(plan, words, root)
    if different == 0:
        _copy_out(plan, verb, root, byte_count, source, target)
    plan[CALL] += 1
    return different


@kernel("i8(i8[::1], i8, i8, i8, i8, i8, i8, i8, i8, i8, i8)")
def short_combine(
    plan, verb, dtype, operation, root, byte_count, source, target, fold, fold_operation, item
):
    """Allreduce, reduce or reduce-scatter of blocks of ``byte_count`` bytes. Collective over the host.

    source, target : addresses of this rank's array or arrays, and of where the result goes.
    fold, fold_operation, item : the fold's address, what it does, bytes of an element.

    Returns as ``short_move``.
    """
    words, own = control_words(plan), plan[OWN]
    different = prepare(plan, words)
    if different:
        return different
    note_call(plan, verb, dtype, operation, root, byte_count)
    wants_it = verb != _REDUCE or own == root
    length = byte_count * plan[RANKS] if verb == _REDUCE_SCATTER else byte_count
    if not (verb == _REDUCE and wants_it):
        copy_bytes(data_of(plan, own), source, length)
    tell(plan, words)
    if wants_it:
        different = full_meeting(plan, words)
        if different == 0:
            shift = own * byte_count if verb == _REDUCE_SCATTER else 0
            rows = ENTRIES + 6 * plan[RANKS]
            for rank in range(plan[RANKS]):
                plan[rows + rank] = data_of(plan, rank) + shift
            plan[rows + own] = source + shift
            call_fold(
                fold,
                base_address(plan) + 8 * rows,
                plan[RANKS],
                target,
                byte_count // item,
                fold_operation,
                float(plan[DIVISOR]),
            )
    plan[CALL] += 1
    return different
