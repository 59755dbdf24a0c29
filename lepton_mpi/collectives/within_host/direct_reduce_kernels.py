"""Reductions of a host's ranks that read arrays where they are: few meetings, whatever the length. Numba kernels.

    meet    fold the own slice: pieces of the other ranks' arrays are read into scratch, the sum goes to its place
    meet    read the other slices from the arrays of their ranks      allreduce alone
    meet    return: nobody reads the arrays any more

The staged forms meet in each part of half a MiB. On a machine that other programs keep busy a meeting takes a turn of all of
them, 5 to 20 ms, so that a long array takes seconds; here it takes three turns. Beside 4 other programs on 2 cores, 2 ranks,
16 MiB: 35 ms in place of 238. Where ranks have the cores, reading costs 1.3 times the staged form (2 ranks), so this form is for
times in which turns are lost (``lost_turns.py``).

Scratch are this rank's own slots of the staging area: once all ranks have begun a call, nobody reads those of the last one.
The order of additions is that of the staged forms. A rank that dies is found by the watchdog, which ends the job.
"""

from lepton_mpi.collectives.within_host.atomics import publish
from lepton_mpi.collectives.within_host.call_kernels import copied, wait_for_all
from lepton_mpi.collectives.within_host.cross_memory_kernels import read_memory
from lepton_mpi.collectives.within_host.meeting_kernels import (
    EPOCH,
    OWN,
    RANKS,
    TABLE,
    control_words,
)
from lepton_mpi.collectives.within_host.staged_kernels import (
    ADDRESSES,
    BYTES,
    ENTRIES,
    INCOMING,
    ITEM,
    MEETINGS,
    PROCESSES,
    RESULT_ITEM,
    SCRATCH,
    SLOT,
    SOURCE,
    TARGET,
    begin_call,
    fold_rows,
)
from lepton_mpi.kernels.compiling import forced, kernel
from lepton_mpi.kernels.intrinsics import LINE_BYTES, base_address, words_at

# Of a row of scratch: those of all ranks stay in the second-level cache.
PIECE_BYTES = 128 << 10


@forced
def _read(plan, rank, slice_number, at, target, byte_count):
    """From byte ``at`` of a slice of the array of a rank; returns how many bytes are missing."""
    ranks = plan[RANKS]
    processes = words_at(plan[PROCESSES], ranks)
    table = plan[ADDRESSES] + 8 * ranks * ranks * ((plan[MEETINGS] - 1) % 2)
    address = words_at(table, ranks * ranks)[ranks * rank + slice_number] + at
    scratch = base_address(plan) + 8 * SCRATCH
    return read_memory(processes[rank], address, target, byte_count, scratch)


@forced
def _fold_own(plan):
    """This rank's slice, BYTES from SOURCE on, piece by piece to TARGET; returns how many bytes are missing."""
    ranks, own, missing = plan[RANKS], plan[OWN], 0
    piece = min(PIECE_BYTES, plan[SLOT] // ranks // LINE_BYTES * LINE_BYTES)
    scratch, rows = plan[TABLE] + own * plan[SLOT], ENTRIES + 6 * ranks
    for at in range(0, plan[BYTES], piece):
        length = min(piece, plan[BYTES] - at)
        for turn in range(1, ranks):
            # Not all from the same rank first.
            rank = (own + turn) % ranks
            plan[rows + rank] = scratch + rank * piece
            missing += _read(plan, rank, own, at, plan[rows + rank], length)
        plan[rows + own] = plan[SOURCE] + at
        fold_rows(plan, plan[TARGET] + at // plan[ITEM] * plan[RESULT_ITEM], length)
    return missing


@forced
def _read_others(plan):
    """The slices that other ranks have folded, as entries of rank, address, bytes; returns how many bytes are missing."""
    begin, missing = ENTRIES + 3 * plan[RANKS], 0
    for entry in range(begin, begin + 3 * plan[INCOMING], 3):
        rank = plan[entry]
        missing += _read(plan, rank, rank, 0, plan[entry + 1], plan[entry + 2])
    return missing


@forced
def _meet(plan, words, number):
    publish(words, copied(plan[OWN]), plan[EPOCH] + number)
    wait_for_all(words, copied, plan[EPOCH] + number, plan)


@kernel("i8(i8[::1])")
def direct_reduce(plan):
    """Fold what all ranks have for this one, then read the slices of others, if any. Collective over the host.

    Returns as ``staged_move``.
    """
    words = control_words(plan)
    different = begin_call(plan, words)
    if different:
        return different
    missing = _fold_own(plan)
    _meet(plan, words, 2)
    meetings = 2
    if plan[INCOMING]:
        missing += _read_others(plan)
        _meet(plan, words, 3)
        meetings = 3
    plan[EPOCH] += meetings
    return plan[RANKS] if missing else 0
