"""The collectives of a host on arrays that peers cannot read, through a staging area, as Numba kernels.

The area has ROUNDS rounds of ``ranks + 1`` slots. Part k of a call, counted over all calls, goes through round k % ROUNDS::

    step k        copy in part k | tell | wait for all | read part k - 1     moves, reduce-scatter: one meeting a part
                  copy in part k | fold own slice of part k - 1 | copy out part k - 2      allreduce, reduce: two

    slot r < ranks    what rank r copied in: its block, or a piece for each rank      slot ranks    the sums of an allreduce

Each rank has two counters here, which it alone writes: parts that it has copied in, and parts whose slice it has folded.
Whoever copies in part k has seen all ranks copy in part k - 2, that is, begin step k - 2 and end step k - 3, which reads part
k - 4. So 4 rounds do, and nobody waits for a part twice.

A call begins with the meeting of ``call_kernels.py``, which compares what the ranks were told and stands for "all have copied in
part 0". Short calls end with it (``short_kernels.py``). Where all blocks have one length, ``even_move_kernels.py`` fills the words of a call.
Blocks of different lengths are told in a table, row r: bytes that rank r sends to each rank, bytes that it expects from each.

Blocks of some parts are not staged where the system lets ranks read each other's memory: each rank tells where its blocks are,
reads what it wants after the first meeting, and a second one ends the call (``cross_memory_kernels.py``).

Memory traffic of N bytes, n ranks: allreduce 2 n N, as the caches hold the area; all-gather and all-to-all 2 n N of results.
A rank that dies is found by the watchdog, which ends the job.
"""

from lepton_mpi.collectives.within_host.atomics import publish
from lepton_mpi.collectives.within_host.call_kernels import (
    CALL,
    CALL_WORDS_END,
    copied,
    folded,
    full_meeting,
    prepare,
    tell,
    wait_for_all,
)
from lepton_mpi.collectives.within_host.cross_memory_kernels import read_memory
from lepton_mpi.collectives.within_host.meeting_kernels import (
    EPOCH,
    OWN,
    RANKS,
    TABLE,
    control_words,
)
from lepton_mpi.collectives.within_host.row_fold_kernels import call_fold
from lepton_mpi.kernels.compiling import forced, kernel
from lepton_mpi.kernels.intrinsics import LINE_BYTES, base_address, copy_bytes, words_at

ROUNDS = 4

# Words of a plan behind those of ``call_kernels.py``. SLOT: bytes of a slot. LENGTHS: address of the table of lengths. MEETINGS: how
# many calls of this module had no difference; of two in a row the tables of lengths and addresses lie side by side, since a rank
# may begin a call while others still read those of the last. Then words of a call: bytes of a piece in a part,
# parts or 0 if they follow from the table of lengths; of a reduction the addresses of its array or blocks, bytes, of an element;
# the fold, its operation and divisor, and who wants the result, all if it is negative. Blocks that go out and
# come in are entries of offset in a round, address, bytes; then this rank's own block: from, to, bytes.
SLOT, LENGTHS, MEETINGS, UNIT, PARTS, SOURCE, TARGET, BYTES, ITEM = range(
    CALL_WORDS_END, CALL_WORDS_END + 9
)
FOLD, OPERATION, DIVISOR, ROOT, OUTGOING, INCOMING, OWN_FROM, OWN_TO, OWN_BYTES = range(
    ITEM + 1, ITEM + 10
)
# Of a partial result, an element may be longer than those it is made of. Blocks of so many bytes or more are read where they are,
# with the addresses of the table of processes, of that of addresses, and four words of scratch.
RESULT_ITEM, DIRECT, PROCESSES, ADDRESSES, SCRATCH = range(ITEM + 10, ITEM + 15)
ENTRIES = SCRATCH + 4


def plan_words(ranks: int) -> int:
    """Length of a plan: two lists of entries, and the addresses of the rows of a fold."""
    return ENTRIES + 7 * ranks


@forced
def begin_call(plan, words):
    """Part 0 is copied in: meet; returns 0, or who is told other things than rank 0."""
    different = prepare(plan, words)
    if different == 0:
        tell(plan, words)
        different = full_meeting(plan, words)
        plan[CALL] += 1
        plan[MEETINGS] += different == 0
    return different


@forced
def _round(plan, part):
    """Address of the round of a part of this call."""
    return plan[TABLE] + (plan[EPOCH] + part) % ROUNDS * (plan[RANKS] + 1) * plan[SLOT]


@forced
def _copy_in(plan, part):
    """The pieces of a part of all blocks that go out."""
    base, done = _round(plan, part), part * plan[UNIT]
    for entry in range(ENTRIES, ENTRIES + 3 * plan[OUTGOING], 3):
        length = min(plan[UNIT], plan[entry + 2] - done)
        if length > 0:
            copy_bytes(base + plan[entry], plan[entry + 1] + done, length)


@forced
def _copy_out(plan, part):
    """The pieces of a part of all blocks that come in."""
    base, done = _round(plan, part), part * plan[UNIT]
    begin = ENTRIES + 3 * plan[RANKS]
    for entry in range(begin, begin + 3 * plan[INCOMING], 3):
        length = min(plan[UNIT], plan[entry + 2] - done)
        if length > 0:
            copy_bytes(plan[entry + 1] + done, base + plan[entry], length)


@forced
def fold_rows(plan, out, byte_count):
    """Combine the rows whose addresses are in the plan."""
    at = ENTRIES + 6 * plan[RANKS]
    divisor, elements = float(plan[DIVISOR]), byte_count // plan[ITEM]
    table = base_address(plan) + 8 * at
    call_fold(plan[FOLD], table, plan[RANKS], out, elements, plan[OPERATION], divisor)


@forced
def _place_rows(plan, base, start, own):
    """The rows of a fold: what the ranks have copied in at ``start`` of their slots, and this rank's at address ``own``."""
    at = ENTRIES + 6 * plan[RANKS]
    for rank in range(plan[RANKS]):
        plan[at + rank] = base + rank * plan[SLOT] + start
    plan[at + plan[OWN]] = own


@forced
def _fold_block(plan, part):
    """The pieces of a part that all ranks have for this one, to the same place of the target."""
    done = part * plan[UNIT]
    length = min(plan[UNIT], plan[BYTES] - done)
    if length > 0:
        _place_rows(plan, _round(plan, part), plan[OWN] * plan[UNIT], plan[SOURCE] + done)
        fold_rows(plan, plan[TARGET] + done // plan[ITEM] * plan[RESULT_ITEM], length)


@forced
def _compare_lengths(plan):
    """Parts of the longest block, or -1 - (ranks sender + receiver) of the first one that the two see differently."""
    ranks, longest = plan[RANKS], 0
    lengths = words_at(
        plan[LENGTHS] + 16 * ranks * ranks * ((plan[MEETINGS] - 1) % 2), 2 * ranks * ranks
    )
    for sender in range(ranks):
        for receiver in range(ranks):
            sent = lengths[2 * ranks * sender + receiver]
            if sent != lengths[2 * ranks * receiver + ranks + sender]:
                return -1 - (ranks * sender + receiver)
            longest = max(longest, sent)
    return max(1, (longest + plan[UNIT] - 1) // plan[UNIT])


@forced
def _read_blocks(plan):
    """All blocks that come in, from the memory of their senders; returns the bytes that could not be read."""
    ranks, own, missing = plan[RANKS], plan[OWN], 0
    processes = words_at(plan[PROCESSES], ranks)
    addresses = words_at(
        plan[ADDRESSES] + 8 * ranks * ranks * ((plan[MEETINGS] - 1) % 2), ranks * ranks
    )
    begin, count = ENTRIES + 3 * ranks, plan[INCOMING]
    for turn in range(count):
        # Not all from the same rank first.
        entry = begin + 3 * ((turn + own) % count)
        sender = plan[entry] // plan[SLOT]
        missing += read_memory(
            processes[sender],
            addresses[ranks * sender + own],
            plan[entry + 1],
            plan[entry + 2],
            base_address(plan) + 8 * SCRATCH,
        )
    return missing


@forced
def _move_directly(plan, words):
    """Read, and let nobody go before all have read; returns as ``staged_move``."""
    missing = _read_blocks(plan)
    publish(words, copied(plan[OWN]), plan[EPOCH] + 2)
    wait_for_all(words, copied, plan[EPOCH] + 2, plan)
    plan[EPOCH] += 2
    return plan[RANKS] if missing else 0


@kernel("i8(i8[::1])")
def staged_move(plan):
    """Blocks out and in, or out and folded. Collective over the host.

    Returns 0; or else the first rank whose call differs from that of rank 0; or -1 - (ranks * sender + receiver) of a block
    whose length the two see differently. Then nothing was written, and the next call may follow. The number of ranks: memory of
    another rank could not be read.
    """
    words = control_words(plan)
    _copy_in(plan, 0)
    different = begin_call(plan, words)
    if different:
        return different
    parts = plan[PARTS]
    if parts == 0:
        parts = _compare_lengths(plan)
        if parts < 0:
            return parts
    if plan[OWN_BYTES] and plan[OWN_FROM] != plan[OWN_TO]:
        copy_bytes(plan[OWN_TO], plan[OWN_FROM], plan[OWN_BYTES])
    if plan[FOLD] == 0 and plan[DIRECT] and (parts - 1) * plan[UNIT] >= plan[DIRECT]:
        return _move_directly(plan, words)
    for step in range(1, parts + 1):
        if step < parts:
            _copy_in(plan, step)
            publish(words, copied(plan[OWN]), plan[EPOCH] + step + 1)
        if step > 1:
            wait_for_all(words, copied, plan[EPOCH] + step, plan)
        if plan[FOLD]:
            _fold_block(plan, step - 1)
        else:
            _copy_out(plan, step - 1)
    plan[EPOCH] += parts
    return 0


@forced
def slice_bounds(rank, ranks, byte_count):
    """Bytes [start, stop) of a part that a rank folds: whole lines as far as there are any."""
    length = (byte_count + ranks * LINE_BYTES - 1) // (ranks * LINE_BYTES) * LINE_BYTES
    return min(rank * length, byte_count), min((rank + 1) * length, byte_count)


@forced
def _copy_others(target, source, start, stop, byte_count):
    """All but bytes [start, stop)."""
    if start > 0:
        copy_bytes(target, source, start)
    if stop < byte_count:
        copy_bytes(target + stop, source + stop, byte_count - stop)


@forced
def _copy_in_others(plan, part):
    """What other ranks fold of a part of the array."""
    byte_count = min(plan[UNIT], plan[BYTES] - part * plan[UNIT])
    start, stop = slice_bounds(plan[OWN], plan[RANKS], byte_count)
    row = _round(plan, part) + plan[OWN] * plan[SLOT]
    _copy_others(row, plan[TARGET] + part * plan[UNIT], start, stop, byte_count)


@forced
def _fold_slice(plan, part):
    """This rank's slice of a part, to the array and to the row of sums; the latter alone if the result is for another rank."""
    done = part * plan[UNIT]
    byte_count = min(plan[UNIT], plan[BYTES] - done)
    start, stop = slice_bounds(plan[OWN], plan[RANKS], byte_count)
    if start >= stop:
        return
    base, own = _round(plan, part), plan[TARGET] + done + start
    _place_rows(plan, base, start, own)
    sums = base + plan[RANKS] * plan[SLOT] + start
    is_mine = plan[ROOT] < 0 or plan[ROOT] == plan[OWN]
    fold_rows(plan, own if is_mine else sums, stop - start)
    if plan[ROOT] < 0:
        copy_bytes(sums, own, stop - start)


@forced
def _copy_out_others(plan, part):
    """What other ranks have folded of a part."""
    byte_count = min(plan[UNIT], plan[BYTES] - part * plan[UNIT])
    start, stop = slice_bounds(plan[OWN], plan[RANKS], byte_count)
    sums = _round(plan, part) + plan[RANKS] * plan[SLOT]
    _copy_others(plan[TARGET] + part * plan[UNIT], sums, start, stop, byte_count)


@kernel("i8(i8[::1])")
def staged_reduce(plan):
    """Fold the arrays of all ranks, in place of each, or of that of ROOT. Collective over the host; returns as ``staged_move``."""
    words = control_words(plan)
    _copy_in_others(plan, 0)
    different = begin_call(plan, words)
    if different:
        return different
    parts = (plan[BYTES] + plan[UNIT] - 1) // plan[UNIT]
    for step in range(1, parts + 2):
        if step < parts:
            _copy_in_others(plan, step)
            publish(words, copied(plan[OWN]), plan[EPOCH] + step + 1)
        if step <= parts:
            if step > 1:
                wait_for_all(words, copied, plan[EPOCH] + step, plan)
            _fold_slice(plan, step - 1)
            publish(words, folded(plan[OWN]), plan[EPOCH] + step)
        if step > 1:
            wait_for_all(words, folded, plan[EPOCH] + step - 1, plan)
            if plan[ROOT] < 0 or plan[ROOT] == plan[OWN]:
                _copy_out_others(plan, step - 2)
    plan[EPOCH] += parts
    return 0
