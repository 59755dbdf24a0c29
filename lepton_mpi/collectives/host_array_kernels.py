"""The sum of arrays that peers cannot read, part by part through a narrow table, as one Numba kernel.

Rank r owns slice r of every part, and does three things with each part, those of different parts in turn::

    step k      copy in part k | sum part k - 1 | copy out part k - 2
                others' slices   own slice        others' slices
                                 all have copied  all have summed
                                 in part k - 1    part k - 2

Row ``ranks * round + r`` of the table holds what rank r copied in, row ``ranks * ROUNDS + round`` the sums.
With 3 rounds nobody overwrites what another still reads: whoever copies in part k + 3 has seen all ranks
sum part k, and whoever sums part k + 3 has seen all ranks copy in part k + 3, thus copy out part k, before.
Parts are counted over all calls. Each rank writes two counters and no one else does.

Memory traffic: 2 n N bytes; in the caches, where the table stays, 3 (n - 1) N more.
"""

from numba import njit

from lepton_mpi.collectives.atomics import FIRST_FREE_WORD, LINE_WORDS, publish
from lepton_mpi.collectives.host_kernels import (
    EPOCH,
    PIECE,
    RANKS,
    WORK,
    place_scratch,
    reduce_piece,
    wait,
)
from lepton_mpi.intrinsics import LINE_BYTES, base_address

ROUNDS = 3


@njit(inline="always")
def copied(rank):
    """Word that counts the parts that a rank has copied in."""
    return FIRST_FREE_WORD + LINE_WORDS * 4 * rank


@njit(inline="always")
def summed(rank):
    """Word that counts the parts whose slice a rank has summed."""
    return FIRST_FREE_WORD + LINE_WORDS * (4 * rank + 2)


@njit(inline="always")
def _wait_for_all(words, own, word_of, target, plan):
    for rank in range(plan[RANKS]):
        if rank != own and wait(words, word_of(rank), target, plan):
            return 1
    return 0


@njit(inline="always")
def _copy(source, target):
    for i in range(source.size):
        target[i] = source[i]


@njit(cache=True, nogil=True)
def host_array_allreduce(words, table, scratch, plan, own, array):
    """Reduce ``array`` (n,) in place. Returns 1 if a wait was aborted. Collective over the host.

    words : int64 (copied(ranks),), shared; table : (ROUNDS (ranks + 1), width), shared; scratch : (slots,
    block), this rank's; plan : int64, this rank's; own : this rank's number. Vector r of the plan is rank
    r's contribution, vector ``ranks`` the sums, the next one ``array``.
    """
    ranks, width = plan[RANKS], plan[PIECE]
    if ranks == 1:
        return 0
    parts = max(1, (array.size + width - 1) // width)
    first = plan[EPOCH]
    plan[EPOCH] += parts
    row_bytes = table.shape[1] * table.itemsize
    place_scratch(plan, scratch)
    for step in range(parts + 2):
        if step < parts:
            part = array[step * width : (step + 1) * width]
            row = table[(first + step) % ROUNDS * ranks + own]
            start, stop = _slice(own, ranks, part)
            _copy(part[:start], row[:start])
            _copy(part[stop:], row[stop : part.size])
            publish(words, copied(own), first + step + 1)
        number = step - 1
        if 0 <= number < parts:
            part = array[number * width : (number + 1) * width]
            round_ = (first + number) % ROUNDS
            if _wait_for_all(words, own, copied, first + number + 1, plan):
                return 1
            for rank in range(ranks):
                row = round_ * ranks + rank
                plan[plan[WORK] + rank] = base_address(table) + row * row_bytes
            plan[plan[WORK] + ranks] = base_address(table) + (ranks * ROUNDS + round_) * row_bytes
            plan[plan[WORK] + ranks + 1] = plan[plan[WORK] + own] = base_address(part)
            start, stop = _slice(own, ranks, part)
            reduce_piece(plan, table, scratch, start, stop)
            publish(words, summed(own), first + number + 1)
        number = step - 2
        if number >= 0:
            part = array[number * width : (number + 1) * width]
            if _wait_for_all(words, own, summed, first + number + 1, plan):
                return 1
            row = table[ranks * ROUNDS + (first + number) % ROUNDS]
            start, stop = _slice(own, ranks, part)
            _copy(row[:start], part[:start])
            _copy(row[stop : part.size], part[stop:])
    return 0


@njit(cache=True, nogil=True)
def host_small_array_allreduce(words, table, scratch, plan, own, array):
    """The same for an array so small that every rank sums all of it: one meeting in place of two."""
    ranks = plan[RANKS]
    number = plan[EPOCH]
    plan[EPOCH] += 1
    row_bytes = table.shape[1] * table.itemsize
    place_scratch(plan, scratch)
    _copy(array, table[number % ROUNDS * ranks + own][: array.size])
    publish(words, copied(own), number + 1)
    if _wait_for_all(words, own, copied, number + 1, plan):
        return 1
    for rank in range(ranks):
        row = number % ROUNDS * ranks + rank
        plan[plan[WORK] + rank] = base_address(table) + row * row_bytes
    plan[plan[WORK] + ranks + 1] = base_address(array)
    reduce_piece(plan, table, scratch, 0, array.size)
    return 0


@njit(inline="always")
def _slice(rank, ranks, part):
    """Rank's slice of a part, whole lines as far as there are any."""
    line = LINE_BYTES // part.itemsize
    length = (part.size + ranks * line - 1) // (ranks * line) * line
    return min(rank * length, part.size), min((rank + 1) * length, part.size)
