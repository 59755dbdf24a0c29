"""Long broadcasts, all-gathers and all-to-alls, whose blocks have one length that all ranks are told. A Numba kernel.

It fills the words of ``staged_kernels.py`` from the arguments of the call, so that nothing is left for Python between a call and its copies.

    verb          goes out of this rank         comes in to it
    broadcast     of the root: its block        of the others: the root's block
    all-gather    its block                     the block of each other rank
    all-to-all    a block for each other rank   a block of each other rank
"""

from lepton_mpi.collectives.calls import NUMBER_OF
from lepton_mpi.collectives.within_host.call_kernels import note_call
from lepton_mpi.collectives.within_host.meeting_kernels import OWN, RANKS
from lepton_mpi.collectives.within_host.staged_kernels import (
    ADDRESSES,
    ENTRIES,
    FOLD,
    INCOMING,
    MEETINGS,
    OUTGOING,
    OWN_BYTES,
    OWN_FROM,
    OWN_TO,
    PARTS,
    SLOT,
    UNIT,
    staged_move,
)
from lepton_mpi.kernels.compiling import forced, kernel
from lepton_mpi.kernels.intrinsics import LINE_BYTES, words_at

_BROADCAST, _ALLTOALL = NUMBER_OF["broadcast"], NUMBER_OF["alltoall"]


@forced
def _enter(plan, number, offset, address, byte_count):
    """A block that goes out; those that come in are numbered from the number of ranks on."""
    at = ENTRIES + 3 * number
    plan[at], plan[at + 1], plan[at + 2] = offset, address, byte_count


@forced
def _send(plan, verb, root, byte_count, source):
    """The entries of what goes out, and where this rank has what others may read."""
    ranks, own, slot, unit, count = plan[RANKS], plan[OWN], plan[SLOT], plan[UNIT], 0
    told = words_at(plan[ADDRESSES] + 8 * ranks * (plan[MEETINGS] % 2 * ranks + own), ranks)
    for rank in range(ranks):
        told[rank] = source + rank * byte_count if verb == _ALLTOALL else source
        if verb == _ALLTOALL and rank != own:
            _enter(plan, count, own * slot + rank * unit, told[rank], byte_count)
            count += 1
    if verb != _ALLTOALL and (verb != _BROADCAST or own == root):
        _enter(plan, 0, own * slot, source, byte_count)
        count = 1
    plan[OUTGOING] = count


@forced
def _receive(plan, verb, root, byte_count, target):
    """The entries of what comes in."""
    ranks, own, slot, unit, count = plan[RANKS], plan[OWN], plan[SLOT], plan[UNIT], 0
    for rank in range(ranks):
        if rank != own and (verb != _BROADCAST or rank == root):
            offset = rank * slot + (own * unit if verb == _ALLTOALL else 0)
            shift = 0 if verb == _BROADCAST else rank * byte_count
            _enter(plan, ranks + count, offset, target + shift, byte_count)
            count += 1
    plan[INCOMING] = count


@kernel("i8(i8[::1], i8, i8, i8, i8, i8, i8, i8)")
def even_move(plan, verb, dtype, operation, root, byte_count, source, target):
    """Move blocks of ``byte_count`` bytes. Collective over the host.

    source, target : addresses of what goes out, and of where the result goes.

    Returns as ``staged_move``.
    """
    own = plan[OWN]
    note_call(plan, verb, dtype, operation, root, byte_count)
    plan[UNIT] = plan[SLOT]
    if verb == _ALLTOALL:
        plan[UNIT] = plan[SLOT] // plan[RANKS] // LINE_BYTES * LINE_BYTES
    plan[PARTS] = max(1, (byte_count + plan[UNIT] - 1) // plan[UNIT])
    plan[FOLD] = plan[OWN_BYTES] = 0
    if verb != _BROADCAST:
        plan[OWN_FROM] = source + (own * byte_count if verb == _ALLTOALL else 0)
        plan[OWN_TO], plan[OWN_BYTES] = target + own * byte_count, byte_count
    _send(plan, verb, root, byte_count, source)
    if verb == _BROADCAST and own == root:
        plan[INCOMING] = 0
    else:
        _receive(plan, verb, root, byte_count, target)
    return staged_move(plan)
