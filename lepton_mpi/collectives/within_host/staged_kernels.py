"""The collectives of a host on arrays that peers cannot read, through a staging area, as Numba kernels.

The area has ROUNDS rounds of ``ranks + 1`` slots. Part k of a call, counted over all calls, goes through round k % ROUNDS::

    step k        copy in part k | tell | wait for all | read part k - 1     moves, reduce-scatter: one meeting a part
                  copy in part k | fold own slice of part k - 1 | copy out part k - 2      allreduce, reduce: two

    slot r < ranks    what rank r copied in: its block, or a piece for each rank      slot ranks    the sums of an allreduce

Each rank has two counters, which it alone writes: parts that it has copied in, and parts whose slice it has folded.
Whoever copies in part k has seen all ranks copy in part k - 2, that is, begin step k - 2 and end step k - 3, which reads part
k - 4. So 4 rounds do, and nobody waits for a part twice.

Beside the counter of parts lies the fingerprint of the rank's call: verb, dtype, operation, root, bytes. All ranks wait for all
in the first part of every call, compare, and return the first rank that differs from rank 0: the same on all of them. Fingerprints
of two calls in a row lie side by side, since a rank may begin a call while others still compare those of the last.
Blocks of different lengths are told in a table, row r: bytes that rank r sends to each rank, bytes that it expects from each.

Memory traffic of N bytes, n ranks: allreduce 2 n N, as the caches hold the area; all-gather and all-to-all 2 n N of results.
A rank that dies is found by the watchdog, which ends the job.
"""

from lepton_mpi.collectives.within_host.atomics import FIRST_FREE_WORD, LINE_WORDS, publish
from lepton_mpi.collectives.within_host.meeting_kernels import (
    EPOCH,
    OWN,
    PLAN_HEADER,
    RANKS,
    TABLE,
    control_words,
    wait,
)
from lepton_mpi.collectives.within_host.row_fold_kernels import call_fold
from lepton_mpi.kernels.compiling import inlined, kernel
from lepton_mpi.kernels.intrinsics import LINE_BYTES, base_address, copy_bytes, words_at

ROUNDS = 4

# Words of a plan behind the header of ``meeting_kernels``, of which the waits are a part. SLOT: bytes of a slot. CALL: calls so far.
# LENGTHS: address of the table of lengths. Then those of a call: the fingerprint, bytes of a piece in a part, parts or 0 if they
# follow from the table of lengths; of a reduction the addresses of its array or blocks, bytes, of an element, up to how many in one
# meeting; the fold, its operation and divisor, and who wants the result, all if it is negative. Blocks that go out and
# come in are entries of offset in a round, address, bytes; then this rank's own block: from, to, bytes.
FINGERPRINT_WORDS = 5
SLOT, CALL, LENGTHS, FINGERPRINT = PLAN_HEADER, PLAN_HEADER + 1, PLAN_HEADER + 2, PLAN_HEADER + 3
UNIT, PARTS, SOURCE, TARGET, BYTES, ITEM, SMALL = range(
    FINGERPRINT + FINGERPRINT_WORDS, FINGERPRINT + FINGERPRINT_WORDS + 7
)
FOLD, OPERATION, DIVISOR, ROOT, OUTGOING, INCOMING, OWN_FROM, OWN_TO, OWN_BYTES = range(
    SMALL + 1, SMALL + 10
)
ENTRIES = SMALL + 10


def plan_words(ranks: int) -> int:
    """Length of a plan: two lists of entries, and the addresses of the rows of a fold."""
    return ENTRIES + 7 * ranks


@inlined
def copied(rank):
    """Word that counts the parts that a rank has copied in; fingerprints of even and odd calls behind it and on the next line."""
    return FIRST_FREE_WORD + LINE_WORDS * 4 * rank


@inlined
def folded(rank):
    """Word that counts the parts whose slice a rank has folded."""
    return FIRST_FREE_WORD + LINE_WORDS * (4 * rank + 2)


@inlined
def fingerprint(rank, call):
    """First word of the fingerprint of a call."""
    return copied(rank) + 1 + (LINE_WORDS // 2 - 1) * (call % 2)


@inlined
def _wait_for_all(words, word_of, target, plan):
    for rank in range(plan[RANKS]):
        if rank != plan[OWN]:
            wait(words, word_of(rank), target, plan)


@inlined
def _tell(plan, words):
    """Leave the fingerprint where others find it, once they see that part 0 is copied in."""
    first = fingerprint(plan[OWN], plan[CALL])
    for number in range(FINGERPRINT_WORDS):
        words[first + number] = plan[FINGERPRINT + number]


@inlined
def _first_meeting(plan, words):
    """Wait for all ranks, and compare; returns 0, or the first rank whose fingerprint is not that of rank 0."""
    publish(words, copied(plan[OWN]), plan[EPOCH] + 1)
    _wait_for_all(words, copied, plan[EPOCH] + 1, plan)
    first, different = fingerprint(0, plan[CALL]), 0
    plan[CALL] += 1
    for rank in range(plan[RANKS] - 1, 0, -1):
        shift = copied(rank) - copied(0)
        for number in range(first, first + FINGERPRINT_WORDS):
            if words[number] != words[number + shift]:
                different = rank
    if different:
        plan[EPOCH] += 1
    return different


@inlined
def _round(plan, part):
    """Address of the round of a part of this call."""
    return plan[TABLE] + (plan[EPOCH] + part) % ROUNDS * (plan[RANKS] + 1) * plan[SLOT]


@inlined
def _copy_in(plan, part):
    """The pieces of a part of all blocks that go out."""
    base, done = _round(plan, part), part * plan[UNIT]
    for entry in range(ENTRIES, ENTRIES + 3 * plan[OUTGOING], 3):
        length = min(plan[UNIT], plan[entry + 2] - done)
        if length > 0:
            copy_bytes(base + plan[entry], plan[entry + 1] + done, length)


@inlined
def _copy_out(plan, part):
    """The pieces of a part of all blocks that come in."""
    base, done = _round(plan, part), part * plan[UNIT]
    begin = ENTRIES + 3 * plan[RANKS]
    for entry in range(begin, begin + 3 * plan[INCOMING], 3):
        length = min(plan[UNIT], plan[entry + 2] - done)
        if length > 0:
            copy_bytes(plan[entry + 1] + done, base + plan[entry], length)


@inlined
def _fold(plan, out, byte_count):
    """Combine the rows whose addresses are in the plan."""
    at = ENTRIES + 6 * plan[RANKS]
    divisor, elements = float(plan[DIVISOR]), byte_count // plan[ITEM]
    table = base_address(plan) + 8 * at
    call_fold(plan[FOLD], table, plan[RANKS], out, elements, plan[OPERATION], divisor)


@inlined
def _place_rows(plan, base, start, own):
    """The rows of a fold: what the ranks have copied in at ``start`` of their slots, and this rank's at address ``own``."""
    at = ENTRIES + 6 * plan[RANKS]
    for rank in range(plan[RANKS]):
        plan[at + rank] = base + rank * plan[SLOT] + start
    plan[at + plan[OWN]] = own


@inlined
def _fold_block(plan, part):
    """The pieces of a part that all ranks have for this one, to the same place of the target."""
    done = part * plan[UNIT]
    length = min(plan[UNIT], plan[BYTES] - done)
    if length > 0:
        _place_rows(plan, _round(plan, part), plan[OWN] * plan[UNIT], plan[SOURCE] + done)
        _fold(plan, plan[TARGET] + done, length)


@inlined
def _compare_lengths(plan):
    """Parts of the longest block, or -1 - (ranks sender + receiver) of the first one that the two see differently."""
    ranks, longest = plan[RANKS], 0
    lengths = words_at(
        plan[LENGTHS] + 16 * ranks * ranks * ((plan[CALL] - 1) % 2), 2 * ranks * ranks
    )
    for sender in range(ranks):
        for receiver in range(ranks):
            sent = lengths[2 * ranks * sender + receiver]
            if sent != lengths[2 * ranks * receiver + ranks + sender]:
                return -1 - (ranks * sender + receiver)
            longest = max(longest, sent)
    return max(1, (longest + plan[UNIT] - 1) // plan[UNIT])


@kernel("i8(i8[::1])")
def staged_move(plan):
    """Blocks out and in, or out and folded. Collective over the host.

    Returns 0; or else the first rank whose call differs from that of rank 0; or -1 - (ranks * sender + receiver) of a block
    whose length the two see differently. Then nothing was written, and the next call may follow.
    """
    words = control_words(plan)
    _tell(plan, words)
    _copy_in(plan, 0)
    different = _first_meeting(plan, words)
    if different:
        return different
    parts = plan[PARTS]
    if parts == 0:
        parts = _compare_lengths(plan)
        if parts < 0:
            plan[EPOCH] += 1
            return parts
    if plan[OWN_BYTES] and plan[OWN_FROM] != plan[OWN_TO]:
        copy_bytes(plan[OWN_TO], plan[OWN_FROM], plan[OWN_BYTES])
    for step in range(1, parts + 1):
        if step < parts:
            _copy_in(plan, step)
            publish(words, copied(plan[OWN]), plan[EPOCH] + step + 1)
        if step > 1:
            _wait_for_all(words, copied, plan[EPOCH] + step, plan)
        if plan[FOLD]:
            _fold_block(plan, step - 1)
        else:
            _copy_out(plan, step - 1)
    plan[EPOCH] += parts
    return 0


@inlined
def _slice(rank, ranks, byte_count):
    """Bytes [start, stop) of a part that a rank folds: whole lines as far as there are any."""
    length = (byte_count + ranks * LINE_BYTES - 1) // (ranks * LINE_BYTES) * LINE_BYTES
    return min(rank * length, byte_count), min((rank + 1) * length, byte_count)


@inlined
def _copy_others(target, source, start, stop, byte_count):
    """All but bytes [start, stop)."""
    if start > 0:
        copy_bytes(target, source, start)
    if stop < byte_count:
        copy_bytes(target + stop, source + stop, byte_count - stop)


@inlined
def _copy_in_others(plan, part):
    """What other ranks fold of a part of the array."""
    byte_count = min(plan[UNIT], plan[BYTES] - part * plan[UNIT])
    start, stop = _slice(plan[OWN], plan[RANKS], byte_count)
    row = _round(plan, part) + plan[OWN] * plan[SLOT]
    _copy_others(row, plan[TARGET] + part * plan[UNIT], start, stop, byte_count)


@inlined
def _fold_slice(plan, part):
    """This rank's slice of a part, to the array and to the row of sums; the latter alone if the result is for another rank."""
    done = part * plan[UNIT]
    byte_count = min(plan[UNIT], plan[BYTES] - done)
    start, stop = _slice(plan[OWN], plan[RANKS], byte_count)
    if start >= stop:
        return
    base, own = _round(plan, part), plan[TARGET] + done + start
    _place_rows(plan, base, start, own)
    sums = base + plan[RANKS] * plan[SLOT] + start
    is_mine = plan[ROOT] < 0 or plan[ROOT] == plan[OWN]
    _fold(plan, own if is_mine else sums, stop - start)
    if plan[ROOT] < 0:
        copy_bytes(sums, own, stop - start)


@inlined
def _copy_out_others(plan, part):
    """What other ranks have folded of a part."""
    byte_count = min(plan[UNIT], plan[BYTES] - part * plan[UNIT])
    start, stop = _slice(plan[OWN], plan[RANKS], byte_count)
    sums = _round(plan, part) + plan[RANKS] * plan[SLOT]
    _copy_others(plan[TARGET] + part * plan[UNIT], sums, start, stop, byte_count)


@inlined
def _reduce_small(plan, words):
    """Every rank that wants the result folds all of it: one meeting."""
    row = _round(plan, 0) + plan[OWN] * plan[SLOT]
    copy_bytes(row, plan[TARGET], plan[BYTES])
    different = _first_meeting(plan, words)
    if different:
        return different
    if plan[ROOT] < 0 or plan[ROOT] == plan[OWN]:
        _place_rows(plan, _round(plan, 0), 0, plan[TARGET])
        _fold(plan, plan[TARGET], plan[BYTES])
    plan[EPOCH] += 1
    return 0


@kernel("i8(i8[::1])")
def staged_reduce(plan):
    """Fold the arrays of all ranks, in place of each, or of that of ROOT. Collective over the host; returns as ``staged_move``."""
    words = control_words(plan)
    _tell(plan, words)
    if plan[BYTES] <= plan[SMALL]:
        return _reduce_small(plan, words)
    _copy_in_others(plan, 0)
    different = _first_meeting(plan, words)
    if different:
        return different
    parts = (plan[BYTES] + plan[UNIT] - 1) // plan[UNIT]
    for step in range(1, parts + 2):
        if step < parts:
            _copy_in_others(plan, step)
            publish(words, copied(plan[OWN]), plan[EPOCH] + step + 1)
        if step <= parts:
            if step > 1:
                _wait_for_all(words, copied, plan[EPOCH] + step, plan)
            _fold_slice(plan, step - 1)
            publish(words, folded(plan[OWN]), plan[EPOCH] + step)
        if step > 1:
            _wait_for_all(words, folded, plan[EPOCH] + step - 1, plan)
            if plan[ROOT] < 0 or plan[ROOT] == plan[OWN]:
                _copy_out_others(plan, step - 2)
    plan[EPOCH] += parts
    return 0
