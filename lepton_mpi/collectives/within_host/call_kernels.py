"""How the calls of a communicator begin on one host: what a rank is told is left for others, who compare it. Numba kernels.

A ring has an entry of each rank for the last RING_CALLS calls: the fingerprint (verb, dtype, operation, root, bytes), and behind
it what a short call moves. A rank fills its entry, counts the call, and then

    waits for all         most verbs: all compare all entries, and raise the same error in the same call; then they may go on
    waits for the root    a short broadcast: compares with the root's entry
    goes on               the root of a short broadcast; the others of a short reduce

What a rank has not compared is compared in its next meeting of all, and at the latest _AHEAD calls later::

    before a rank fills the entry of call c   all ranks have begun call c - _AHEAD, and all calls up to that one are compared

So an entry is filled again, RING_CALLS = 2 _AHEAD calls later, when all have read and compared it. A difference in a call in
which not all waited for all cannot be raised everywhere in the same call: the ring is broken then. Each rank that finds it out
lets nobody wait for it any more, by the counter BROKEN_OFF; so all find it out, and raise the error of the same call.
"""

from lepton_mpi.collectives.calls import NUMBER_OF
from lepton_mpi.collectives.within_host.atomics import (
    FIRST_FREE_WORD,
    LINE_WORDS,
    load_acquire,
    publish,
)
from lepton_mpi.collectives.within_host.meeting_kernels import OWN, PLAN_HEADER, RANKS, wait
from lepton_mpi.kernels.compiling import forced
from lepton_mpi.kernels.intrinsics import LINE_BYTES, words_at

RING_CALLS, _AHEAD = 16, 8
FINGERPRINT_WORDS = 5
BROKEN_OFF = 1 << 62

# Words of a plan behind the header of ``meeting_kernels``, of which the waits are a part. CALL: calls so far. VERIFIED: those that
# were compared. DIFFERENT: the first call that differs. BROKEN: whether the ring is. RING, ENTRY: address of the ring, bytes
# of an entry. SHORT, SMALL: bytes of a block that is moved, and of an array that is combined, in a short call. Then
# the fingerprint of the present call.
CALL, VERIFIED, DIFFERENT, BROKEN, RING, ENTRY, SHORT, SMALL, FINGERPRINT = range(
    PLAN_HEADER, PLAN_HEADER + 9
)
CALL_WORDS_END = FINGERPRINT + FINGERPRINT_WORDS

_BROADCAST, _REDUCE = NUMBER_OF["broadcast"], NUMBER_OF["reduce"]


@forced
def note_call(plan, verb, dtype, operation, root, byte_count):
    """The fingerprint of the call that this rank begins."""
    plan[FINGERPRINT], plan[FINGERPRINT + 1], plan[FINGERPRINT + 2] = verb, dtype, operation
    plan[FINGERPRINT + 3], plan[FINGERPRINT + 4] = root, byte_count


@forced
def called(rank):
    """Word that counts the calls that a rank has begun."""
    return FIRST_FREE_WORD + LINE_WORDS * 6 * rank


@forced
def copied(rank):
    """Word that counts the parts that a rank has copied in."""
    return FIRST_FREE_WORD + LINE_WORDS * (6 * rank + 2)


@forced
def folded(rank):
    """Word that counts the parts whose slice a rank has folded."""
    return FIRST_FREE_WORD + LINE_WORDS * (6 * rank + 4)


@forced
def wait_for_all(words, word_of, target, plan):
    """Return once the counters of all ranks have come to ``target``."""
    for rank in range(plan[RANKS]):
        if rank != plan[OWN]:
            wait(words, word_of(rank), target, plan)


@forced
def entry_of(plan, call, rank):
    """Address of the fingerprint of a rank's call."""
    return plan[RING] + (call % RING_CALLS * plan[RANKS] + rank) * plan[ENTRY]


@forced
def data_of(plan, rank):
    """Address of what a rank has for others in the present call, if it is a short one."""
    return entry_of(plan, plan[CALL], rank) + LINE_BYTES


@forced
def _differ(plan, call, rank, other):
    first = words_at(entry_of(plan, call, rank), FINGERPRINT_WORDS)
    second = words_at(entry_of(plan, call, other), FINGERPRINT_WORDS)
    different = False
    for number in range(FINGERPRINT_WORDS):
        different |= first[number] != second[number]
    return different


@forced
def _verify(plan, stop):
    """Compare the calls before ``stop``; returns 0, or the first rank of the first call whose entry is not that of rank 0."""
    for call in range(plan[VERIFIED], stop):
        for rank in range(1, plan[RANKS]):
            if _differ(plan, call, 0, rank):
                plan[DIFFERENT] = call
                return rank
    plan[VERIFIED] = max(plan[VERIFIED], stop)
    return 0


@forced
def _break_off(plan, words):
    plan[BROKEN] = 1
    publish(words, called(plan[OWN]), BROKEN_OFF)


@forced
def prepare(plan, words):
    """Wait until this rank's entry may be filled; returns as ``_verify``."""
    last, different = plan[CALL] - _AHEAD, 0
    if plan[VERIFIED] <= last:
        wait_for_all(words, called, last + 1, plan)
        different = _verify(plan, last + 1)
        if different:
            _break_off(plan, words)
            plan[CALL] += 1
    return different


@forced
def tell(plan, words):
    """Leave the fingerprint where others find it, and count the call: what was stored before it may be read then."""
    entry = words_at(entry_of(plan, plan[CALL], plan[OWN]), FINGERPRINT_WORDS)
    for number in range(FINGERPRINT_WORDS):
        entry[number] = plan[FINGERPRINT + number]
    publish(words, called(plan[OWN]), plan[CALL] + 1)


@forced
def _all_wait_for_all(plan):
    """Whether every rank of this call, whatever it was told, waits for all others."""
    for rank in range(plan[RANKS]):
        entry = words_at(entry_of(plan, plan[CALL], rank), FINGERPRINT_WORDS)
        verb, byte_count = entry[0], entry[FINGERPRINT_WORDS - 1]
        if verb == _BROADCAST and byte_count <= plan[SHORT]:
            return False
        if verb == _REDUCE and byte_count <= plan[SMALL]:
            return False
    return True


@forced
def full_meeting(plan, words):
    """Wait for all ranks, compare all that is not compared yet, end the call; returns as ``_verify``."""
    wait_for_all(words, called, plan[CALL] + 1, plan)
    different = _verify(plan, plan[CALL] + 1)
    if different:
        if plan[DIFFERENT] == plan[CALL] and _all_wait_for_all(plan):
            plan[VERIFIED] = plan[CALL] + 1
        else:
            _break_off(plan, words)
    return different


@forced
def meet_root(plan, words, root):
    """Wait for the root alone, unless that shows a difference; returns as ``_verify``."""
    wait(words, called(root), plan[CALL] + 1, plan)
    is_broken = load_acquire(words, called(root)) == BROKEN_OFF
    if is_broken or _differ(plan, plan[CALL], plan[OWN], root):
        return full_meeting(plan, words)
    return 0
