"""One call of an allreduce inside a host, as one Numba kernel: arrive, reduce, leave.

All vectors of a host are rows of one shared table, so "receive and add" is reading a peer's row. The
vector is cut into pieces. The last rank to arrive opens the pieces, and whoever has a core takes the next
one of that core's, then of the others', so that a rank that is not running delays nobody. Each element is summed by a fixed list of additions,
whoever does it, so all calls give the same bits.

    rank 0   arrive --- wait ---------- take piece 1 ----- wait -- leave
    rank 1   ------ arrive (last) open  take piece 0, 2 -- done -- leave

A vector of one piece is reduced by the last to arrive at once, and the others wait once.
Ranks arrive with a fingerprint of what they call, and of the step: it stands above the 16 bits that count them in the word ARRIVED, so
that one addition does both, and the last to arrive compares the sum with what it would be if all were the same. If it is another one,
nothing is reduced, and all wait until the watchdog has found DIFFERS (``told.py``).
Memory traffic: (n + 1) N bytes with a shared result, 2 n N with private ones, the least there can be.
"""

from numba import int64

from lepton_mpi.collectives.combining_kernels import SUM
from lepton_mpi.collectives.within_host.atomics import (
    FIRST_FREE_WORD,
    LINE_WORDS,
    current_core,
    fetch_add,
    load_acquire,
    longest_yield,
    monotonic_nanoseconds,
    publish,
    reached_by_polls,
    sleep_until,
    store_release,
)
from lepton_mpi.collectives.within_host.fold_kernels import fold
from lepton_mpi.kernels.compiling import forced, kernel
from lepton_mpi.kernels.intrinsics import (
    LINE_BYTES,
    base_address,
    numbers_at,
    stream_fence,
    words_at,
)

# Words of the control block. OPEN and DONE are waited for: the line after each counts its sleepers. From
# TICKETS on there is a line for the ticket of every range of pieces.
ARRIVED, FINISHED, OPEN, DONE, TICKETS = (
    FIRST_FREE_WORD + LINE_WORDS * line for line in (0, 1, 2, 4, 6)
)
# In the line of ARRIVED; NEVER stays 0. Behind the tickets each rank has a line, which nobody else reads while all is well: the step and the
# number of its last call, the fingerprint of its plan, then what it calls, for people.
DIFFERS, NEVER = ARRIVED + 1, ARRIVED + 2
TOLD_STEP, TOLD_CALL, TOLD_PLAN, TOLD_TEXT = range(4)
_COUNT_BITS = 16
# Odd numbers, by which steps are spread over the bits of a fingerprint, and those over each other (as in the end of SplitMix64).
_SPREAD, _MIX = 0x9E3779B97F4B, 0x3F58476D1CE4E5B9

# Words of a plan, which belongs to one rank. Groups follow, one for each sum that is wanted: the number of
# its folds, then for each its arity, its number of targets, its operands and its targets, as numbers of
# vectors. From word WORK on there are the addresses of all vectors, of which those from FIRST_SLOT on
# are scratch slots, and behind them room for the addresses of one fold. CONTROL is the address of the control block.
# WAITED adds up nanoseconds; CLOCK is two words for reading the time. TURNS counts waits in which
# other processes had the core for a millisecond, RESTING down waits without yields. BLOCK is the elements of a slot. Four are for
# arrays: this rank's number, the addresses of the table and of the array, and the bytes of a row of the table. WAITS is for barriers.
# TOLD is the fingerprint of the plan, TOLD_AT the place of this rank's line in the control block, STEP_AT the address of the step, float64, or of
# NO_STEP, which is 0; EXPECTED is what ARRIVED comes to.
# Addresses, since Numba takes 35 ns to hand an array to a kernel, and a short allreduce takes 400.
EPOCH, RANKS, START, STOP, PIECE, PIECES, OPERATION, POLLS, YIELDS, STREAM = range(10)
GROUPS, FIRST_SLOT, VECTORS, WORK, WORKERS, CONTROL, WAITED, CLOCK = range(10, 18)
TURNS, BLOCK, OWN, TABLE, ARRAY, ROW_BYTES, WAITS, RESTING = range(18, 26)
TOLD, TOLD_AT, STEP_AT, EXPECTED, NO_STEP = range(26, 31)
PLAN_HEADER = 31

# Where a sum takes several folds, they go over it block by block: what they leave to each other stays in
# the first-level cache.
BLOCK_BYTES = 2 << 10

# About half a microsecond on Zen 5, in which most waits for a rank that has a core are over.
_UNTIMED_POLLS = 32

# A yield that takes longer was a turn of other processes: a time slice of Linux is 1.4 ms or more on 2 cores.
_TURN_NANOSECONDS = 1_000_000

# Waits after that in which a rank sleeps without a yield. Linux from 6.18 on takes a time slice from whoever yields to others, so
# that it is not run when it is woken the next time either.
# Polling costs no slice, and is as fast as yields if the machine has come to rest.
_RESTING_WAITS, _RESTING_POLLS = 64, 2_000


@forced
def control_words(plan):
    """The control block, whose length is not known here."""
    return words_at(plan[CONTROL], 1)


@forced
def words_of_plan(typed_plan):
    """The words of a plan that is handed over as an array of the vectors' type, which no other argument then tells."""
    return words_at(base_address(typed_plan), typed_plan.size * typed_plan.itemsize // 8)


@forced
def _fold_block(plan, at, is_last, like, start, stop):
    """The fold that is described from word ``at`` on, of elements [start, stop)."""
    arity, targets = plan[at], plan[at + 1]
    vectors = plan[plan[WORK] :]
    addresses = vectors[plan[VECTORS] :]
    start_byte, byte_count = start * like.itemsize, (stop - start) * like.itemsize
    for k in range(arity + targets):
        number = plan[at + 2 + k]
        addresses[k] = vectors[number] + (start_byte if number < plan[FIRST_SLOT] else 0)
    if is_last and plan[STREAM] and addresses[arity] % LINE_BYTES == 0:
        whole = byte_count // LINE_BYTES * LINE_BYTES
        fold(like, addresses, arity, SUM, True, targets, whole)  # nothing else is streamed
        for k in range(arity + targets):
            addresses[k] += whole
        byte_count -= whole
    fold(like, addresses, arity, plan[OPERATION], False, targets, byte_count)


@forced
def reduce_piece(plan, like, start, stop):
    """All groups of one piece, elements [start, stop) of every vector, which are of the type of the array ``like``."""
    if start >= stop:
        return
    group = PLAN_HEADER
    for _ in range(plan[GROUPS]):
        folds, end = plan[group], group + 1
        block = stop - start if folds == 1 else plan[BLOCK]
        for block_start in range(start, stop, block):
            block_stop, at = min(block_start + block, stop), group + 1
            for number in range(folds):
                _fold_block(plan, at, number == folds - 1, like, block_start, block_stop)
                at += 2 + plan[at] + plan[at + 1]
            end = at
        group = end


@forced
def wait(words, index, target, plan):
    """Poll, yield, then sleep until ``words[index] >= target``, on the plan's account but for the first polls.

    Reading the time would lengthen short waits.
    """
    if reached_by_polls(words, index, target, min(plan[POLLS], _UNTIMED_POLLS)):
        return
    began, clock = monotonic_nanoseconds(plan, CLOCK), base_address(plan) + 8 * CLOCK
    if not reached_by_polls(words, index, target, plan[POLLS]):
        if plan[RESTING] > 0:
            plan[RESTING] -= 1
            reached_by_polls(words, index, target, _RESTING_POLLS if plan[POLLS] else 0)
        elif longest_yield(words, index, target, plan[YIELDS], clock) > _TURN_NANOSECONDS:
            plan[RESTING] = _RESTING_WAITS
        sleep_until(words, index, target)
        waited = monotonic_nanoseconds(plan, CLOCK) - began
        plan[TURNS] += plan[RESTING] > 0 and waited > _TURN_NANOSECONDS
        plan[WAITED] += waited
    else:
        plan[WAITED] += monotonic_nanoseconds(plan, CLOCK) - began


@forced
def mixed(told, step):
    """What a rank tells of a call: 48 low bits that depend on all bits of the fingerprint and of the step.

    Not linear in the step: the sum of what ranks tell in steps 3, 5 and 4 would be that of three ranks in step 4.
    """
    x = told ^ (step * _SPREAD)
    x = (x ^ (x >> 31)) * _MIX
    x = (x ^ (x >> 29)) * _MIX
    return x ^ (x >> 32)


@forced
def arrive(words, plan):
    """Begin a call. Returns, once pieces may be taken, whether this is the last rank to arrive."""
    plan[EPOCH] += 1
    step, line = int64(numbers_at(plan[STEP_AT], 1)[0]), plan[TOLD_AT]
    words[line + TOLD_STEP], words[line + TOLD_CALL] = step, plan[EPOCH]
    added = 1 + (mixed(plan[TOLD], step) << _COUNT_BITS)
    plan[EXPECTED] += plan[RANKS] * added
    arrived = fetch_add(words, ARRIVED, added) + added
    is_last = (arrived - plan[EXPECTED]) & ((1 << _COUNT_BITS) - 1) == 0
    if is_last and arrived != plan[EXPECTED]:
        store_release(words, DIFFERS, 1)
        sleep_until(words, NEVER, 1)
    if plan[PIECES] > 1:
        if is_last:
            # All ranks have arrived, so none is still taking pieces of the call before.
            for worker in range(plan[WORKERS]):
                store_release(words, TICKETS + LINE_WORDS * worker, 0)
            publish(words, OPEN, plan[EPOCH])
        else:
            wait(words, OPEN, plan[EPOCH], plan)
    return is_last


@forced
def take_piece(words, plan, is_last):
    """The next piece, or -1 if there is none. A piece that is the only one is the last rank's.

    Pieces are cut into as many ranges as there are cores at work. A core takes those of its own range first, so
    that what it wrote to them the time before may still be in its cache, and helps with the others then.
    """
    pieces, workers = plan[PIECES], plan[WORKERS]
    if pieces == 1:
        return 0 if is_last else -1
    core = current_core() % workers
    for shift in range(workers):
        worker = (core + shift) % workers
        first, ticket = worker * pieces // workers, TICKETS + LINE_WORDS * worker
        count = (worker + 1) * pieces // workers - first
        if load_acquire(words, ticket) < count:
            number = fetch_add(words, ticket, 1)
            if number < count:
                return first + number
    return -1


@forced
def finish_piece(words, plan):
    """Whether that was the last piece to be finished; then all ranks may leave."""
    if fetch_add(words, FINISHED, 1) != plan[PIECES] - 1:
        return False
    store_release(words, FINISHED, 0)
    publish(words, DONE, plan[EPOCH])
    return True


@forced
def leave(words, plan):
    """Wait until all pieces are finished."""
    wait(words, DONE, plan[EPOCH], plan)


@forced
def piece_bounds(plan, piece):
    """Elements [start, stop) of a piece."""
    start = plan[START] + piece * plan[PIECE]
    return start, min(start + plan[PIECE], plan[STOP])


@kernel("void(V)", "void(i4[::1])", "void(i8[::1])")
def host_allreduce(typed_plan):
    """Reduce the vectors of a plan; every rank of the host calls it.

    typed_plan : this rank's, see the constants above and ``words_of_plan``.
    """
    plan = words_of_plan(typed_plan)
    words = control_words(plan)
    piece = take_piece(words, plan, arrive(words, plan))
    while piece >= 0:
        start, stop = piece_bounds(plan, piece)
        reduce_piece(plan, typed_plan, start, stop)
        if plan[STREAM]:
            stream_fence()
        if finish_piece(words, plan):
            return
        piece = take_piece(words, plan, False)
    leave(words, plan)


@kernel("void(V)", "void(i4[::1])", "void(i8[::1])")
def reduce_alone(typed_plan):
    """Reduce elements [START, STOP) of the vectors, without the other ranks. The argument is that of ``host_allreduce``."""
    plan = words_of_plan(typed_plan)
    reduce_piece(plan, typed_plan, plan[START], plan[STOP])


@kernel("void(i8[::1])")
def host_barrier(plan):
    """Tell that this rank is there, and, if the plan WAITS, return once all ranks of the host are. For ``plan`` see above.

    Between two calls of a rank that does not wait there is another meeting of all.
    """
    words = control_words(plan)
    plan[EPOCH] += 1
    there = fetch_add(words, ARRIVED, 1) + 1
    if there % plan[RANKS] == 0:
        publish(words, DONE, there // plan[RANKS])
    elif plan[WAITS]:
        wait(words, DONE, plan[EPOCH], plan)
