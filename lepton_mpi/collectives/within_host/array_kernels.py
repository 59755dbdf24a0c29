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

What goes into the table overwrites lines that other cores have read: that is left to the C library (``copy_bytes``), also
what was summed, which comes from the array then, where it lies in the nearest cache.

Memory traffic: 2 n N bytes; in the caches, where the table stays, 3 (n - 1) N more.
"""

from lepton_mpi.collectives.within_host.atomics import FIRST_FREE_WORD, LINE_WORDS, publish
from lepton_mpi.collectives.within_host.meeting_kernels import (
    ARRAY,
    EPOCH,
    OWN,
    PIECE,
    RANKS,
    ROW_BYTES,
    STOP,
    TABLE,
    WORK,
    control_words,
    reduce_piece,
    wait,
    words_of_plan,
)
from lepton_mpi.kernels.compiling import forced, kernel
from lepton_mpi.kernels.intrinsics import LINE_BYTES, base_address, copy_bytes, vector_at

ROUNDS = 3

# From this length on the C library copies into the table, below it a loop is faster. To try another value, change it and run
# mpirun -n 2 python -m benchmarks.allreduce --modes array --sizes 4K 8K 16K
_BY_LIBRARY_BYTES = 8 << 10


@forced
def copied(rank):
    """Word that counts the parts that a rank has copied in."""
    return FIRST_FREE_WORD + LINE_WORDS * 4 * rank


@forced
def summed(rank):
    """Word that counts the parts whose slice a rank has summed."""
    return FIRST_FREE_WORD + LINE_WORDS * (4 * rank + 2)


@forced
def _wait_for_all(words, own, word_of, target, plan):
    for rank in range(plan[RANKS]):
        if rank != own:
            wait(words, word_of(rank), target, plan)


@forced
def _copy(source, target):
    for i in range(source.size):
        target[i] = source[i]


@forced
def _hand_over(source, target):
    """Copy into the table."""
    byte_count = source.size * source.itemsize
    if byte_count < _BY_LIBRARY_BYTES:
        _copy(source, target)
    else:
        copy_bytes(base_address(target), base_address(source), byte_count)


@forced
def _row(plan, like, number, count):
    """The first ``count`` elements of a row of the table."""
    return vector_at(like, plan[TABLE] + number * plan[ROW_BYTES], count)


@forced
def _place_contributions(plan, round_):
    """Note where the ranks' rows of a round are."""
    first = plan[TABLE] + round_ * plan[RANKS] * plan[ROW_BYTES]
    for rank in range(plan[RANKS]):
        plan[plan[WORK] + rank] = first + rank * plan[ROW_BYTES]


@kernel("void(V)", "void(i4[::1])", "void(i8[::1])")
def host_array_allreduce(typed_plan):
    """Reduce an array in place. Collective over the host.

    typed_plan : this rank's (``words_of_plan``), with the array at ARRAY, of STOP elements, and at TABLE ROUNDS (ranks + 1)
    rows that are shared, and the control block of ``copied(ranks)`` words. Vector r of the plan is rank r's
    contribution, vector ``ranks`` the array, where the sum goes.
    """
    plan = words_of_plan(typed_plan)
    ranks, width, own = plan[RANKS], plan[PIECE], plan[OWN]
    if ranks == 1:
        return
    words, array = control_words(plan), vector_at(typed_plan, plan[ARRAY], plan[STOP])
    parts = max(1, (array.size + width - 1) // width)
    first = plan[EPOCH]
    plan[EPOCH] += parts
    for step in range(parts + 2):
        if step < parts:
            part = array[step * width : (step + 1) * width]
            row = _row(plan, typed_plan, (first + step) % ROUNDS * ranks + own, part.size)
            start, stop = _slice(own, ranks, part)
            _hand_over(part[:start], row[:start])
            _hand_over(part[stop:], row[stop:])
            publish(words, copied(own), first + step + 1)
        number = step - 1
        if 0 <= number < parts:
            part = array[number * width : (number + 1) * width]
            round_ = (first + number) % ROUNDS
            _wait_for_all(words, own, copied, first + number + 1, plan)
            _place_contributions(plan, round_)
            plan[plan[WORK] + ranks] = plan[plan[WORK] + own] = base_address(part)
            start, stop = _slice(own, ranks, part)
            reduce_piece(plan, typed_plan, start, stop)
            sums = _row(plan, typed_plan, ranks * ROUNDS + round_, part.size)
            _hand_over(part[start:stop], sums[start:stop])
            publish(words, summed(own), first + number + 1)
        number = step - 2
        if number >= 0:
            part = array[number * width : (number + 1) * width]
            _wait_for_all(words, own, summed, first + number + 1, plan)
            row = _row(plan, typed_plan, ranks * ROUNDS + (first + number) % ROUNDS, part.size)
            start, stop = _slice(own, ranks, part)
            _copy(row[:start], part[:start])
            _copy(row[stop:], part[stop:])


@kernel("void(V)", "void(i4[::1])", "void(i8[::1])")
def host_small_array_allreduce(typed_plan):
    """The same for an array so small that every rank sums all of it: one meeting in place of two."""
    plan = words_of_plan(typed_plan)
    ranks, own, number = plan[RANKS], plan[OWN], plan[EPOCH]
    words, array = control_words(plan), vector_at(typed_plan, plan[ARRAY], plan[STOP])
    plan[EPOCH] += 1
    _hand_over(array, _row(plan, typed_plan, number % ROUNDS * ranks + own, array.size))
    publish(words, copied(own), number + 1)
    _wait_for_all(words, own, copied, number + 1, plan)
    _place_contributions(plan, number % ROUNDS)
    plan[plan[WORK] + ranks] = plan[ARRAY]
    reduce_piece(plan, typed_plan, 0, array.size)


@forced
def _slice(rank, ranks, part):
    """Rank's slice of a part, whole lines as far as there are any."""
    line = LINE_BYTES // part.itemsize
    length = (part.size + ranks * line - 1) // (ranks * line) * line
    return min(rank * length, part.size), min((rank + 1) * length, part.size)
