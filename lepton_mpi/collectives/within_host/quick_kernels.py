"""A short call of a communicator from the first look at its arguments to the last copy, as one kernel that Python calls.

    quick_call(verb, output, input, root, op, kind)      objects of Python, see ``kernels/python_functions.py``

It does what ``Communicator`` and ``StagedCollectives`` do in Python for ``short_move``, ``even_move`` and ``short_combine``: so some ranks
may take this way and others that one. Whatever is not plain (a long array to combine, a dtype or an operation for the first time, arguments that are
wrong, a phase of the run in which the watchdog has another limit) is declined, and nothing has happened.
"""

from numba import types

from lepton_mpi.collectives.calls import NUMBER_OF
from lepton_mpi.collectives.within_host.call_kernels import BROKEN, SHORT, SMALL
from lepton_mpi.collectives.within_host.even_move_kernels import even_move
from lepton_mpi.collectives.within_host.meeting_kernels import (
    CLOCK,
    OWN,
    RANKS,
    monotonic_nanoseconds,
)
from lepton_mpi.collectives.within_host.short_kernels import short_combine, short_move
from lepton_mpi.kernels.compiling import forced, inner, kernel
from lepton_mpi.kernels.intrinsics import numbers_at, words_at
from lepton_mpi.kernels.python_functions import (
    ALIGNED,
    ARRAY_DATA,
    ARRAY_DIMENSIONS,
    ARRAY_DTYPE,
    ARRAY_FLAGS,
    ARRAY_SHAPE,
    ARRAY_TYPE,
    ARRAY_WORDS,
    CONTIGUOUS,
    WRITEABLE,
    release_lock,
    retake_lock,
)

DECLINED = -1

# Words of a function. PLAN, PLAN_WORDS: address and length of the plan of the calls. ROW: address of this rank's row of heartbeats;
# COMPUTE, COMMUNICATION: numbers of its phases. CALLS: those of the communicator. NANOSECONDS: spent here. Then types of Python,
# and what was learned: addresses of dtype, op and kind, bytes of an element, numbers of dtype and operation for
# the fingerprint, address of the fold and its operation.
KERNEL, PLAN, PLAN_WORDS, ROW, COMPUTE, COMMUNICATION, CALLS, NANOSECONDS = range(8)
OF_ARRAY, OF_INTEGER, LEARNED, FIRST = range(8, 12)
DTYPE, OP, KIND, ITEM, DTYPE_CODE, OPERATION_CODE, FOLD, FOLD_OPERATION = range(8)
LEARNED_WORDS, LEARNED_MAX = 8, 24
FUNCTION_WORDS = FIRST + LEARNED_WORDS * LEARNED_MAX

_ARGUMENTS = 6
_BARRIER, _BROADCAST = NUMBER_OF["barrier"], NUMBER_OF["broadcast"]
_ALLREDUCE, _REDUCE = NUMBER_OF["allreduce"], NUMBER_OF["reduce"]
_ALLGATHER, _ALLTOALL = NUMBER_OF["allgather"], NUMBER_OF["alltoall"]
_REDUCE_SCATTER = NUMBER_OF["reduce_scatter"]
_INTEGER_TYPE = 1
_LOWER_HALF = (1 << 32) - 1

# Of the C interface of Python: a number, and in the second argument whether it is none of 64 bits.
_whole_number = types.ExternalFunction(
    "PyLong_AsLongLongAndOverflow", types.int64(types.int64, types.int64)
)


@forced
def _learned(words, dtype, op, kind):
    """Word at which an entry begins; 0 if there is none."""
    at = FIRST
    for _ in range(words[LEARNED]):
        if words[at + DTYPE] == dtype and words[at + OP] == op and words[at + KIND] == kind:
            return at
        at += LEARNED_WORDS
    return 0


@forced
def _length(array):
    """Elements of an array object."""
    dimensions = array[ARRAY_DIMENSIONS] & _LOWER_HALF
    shape, count = words_at(array[ARRAY_SHAPE], dimensions), 1
    for axis in range(dimensions):
        count *= shape[axis]
    return count


@forced
def _is_array(words, address, is_filled):
    """Whether the object is a plain array that may be read, or filled."""
    array = words_at(address, ARRAY_WORDS)
    if array[ARRAY_TYPE] != words[OF_ARRAY]:
        return False
    wanted = CONTIGUOUS | ALIGNED | (WRITEABLE if is_filled else 0)
    return array[ARRAY_FLAGS] & wanted == wanted


@inner
def _rank(words, address, scratch):
    """A rank of the host; or DECLINED."""
    if words_at(address, 2)[_INTEGER_TYPE] != words[OF_INTEGER]:
        return DECLINED
    rank = _whole_number(address, scratch)
    ranks = words_at(words[PLAN], words[PLAN_WORDS])[RANKS]
    return rank if 0 <= rank < ranks else DECLINED


@forced
def _fits(plan, verb, bytes_out, bytes_in, elements):
    """Bytes of a block as other ranks are told; or DECLINED, if the arrays do not fit together or are too long to combine."""
    ranks = plan[RANKS]
    if verb in (_ALLREDUCE, _REDUCE):
        return bytes_in if bytes_in <= plan[SMALL] else DECLINED
    if verb == _BROADCAST:
        return bytes_in
    if verb == _ALLGATHER:
        return bytes_in if bytes_out == ranks * bytes_in else DECLINED
    if verb == _REDUCE_SCATTER:
        return bytes_out if bytes_in == ranks * bytes_out and bytes_in <= plan[SMALL] else DECLINED
    is_even = bytes_in == bytes_out and elements % ranks == 0
    return bytes_in // ranks if is_even else DECLINED


@forced
def _is_short(plan, verb, byte_count):
    """Whether what a rank has for others is moved by way of the ring of calls."""
    return byte_count * (plan[RANKS] if verb == _ALLTOALL else 1) <= plan[SHORT]


@forced
def _may_begin(words, plan):
    """Whether the ring of calls is whole, and this rank computes, as far as its watchdog knows."""
    return not plan[BROKEN] and numbers_at(words[ROW], 3)[1] == words[COMPUTE]


@inner
def _begin(words, plan):
    """As the clock of the run does; returns the time."""
    now, row = monotonic_nanoseconds(plan, CLOCK), numbers_at(words[ROW], 3)
    words[CALLS] += 1
    row[2], row[0] = now * 1e-9, words[CALLS]
    row[1] = words[COMMUNICATION]
    return now


@inner
def _end(words, plan, began):
    now, row = monotonic_nanoseconds(plan, CLOCK), numbers_at(words[ROW], 3)
    row[2] = now * 1e-9
    row[1] = words[COMPUTE]
    words[NANOSECONDS] += now - began


@inner
def _carry_out(words, plan, verb, root, byte_count, source, target, at):
    """The call, without the lock of the interpreter; returns as ``short_move``."""
    state = release_lock()
    began = _begin(words, plan)
    if verb in (_ALLREDUCE, _REDUCE, _REDUCE_SCATTER):
        verdict = short_combine(
            *(plan, verb, words[at + DTYPE_CODE], words[at + OPERATION_CODE], root, byte_count),
            *(source, target, words[at + FOLD], words[at + FOLD_OPERATION], words[at + ITEM]),
        )
    elif _is_short(plan, verb, byte_count):
        verdict = short_move(plan, verb, 0, 0, root, byte_count, source, target)
    else:
        verdict = even_move(plan, verb, 0, 0, root, byte_count, source, target)
    _end(words, plan, began)
    retake_lock(state)
    return verdict


@kernel("i8(i8, i8, i8)")
def quick_call(address, arguments, count):
    """A call of a communicator, see above; arrays are None for a barrier, ``root`` is -1 where there is none.

    Returns DECLINED, or as ``short_move``.
    """
    words, given = words_at(address, FUNCTION_WORDS), words_at(arguments, _ARGUMENTS)
    plan = words_at(words[PLAN], words[PLAN_WORDS])
    if count != _ARGUMENTS or not _may_begin(words, plan):
        return DECLINED
    verb = _whole_number(given[0], words[PLAN] + 8 * CLOCK)
    if verb == _BARRIER:
        return _carry_out(words, plan, verb, DECLINED, 0, 0, 0, 0)
    root = DECLINED
    if verb in (_BROADCAST, _REDUCE):
        root = _rank(words, given[3], words[PLAN] + 8 * CLOCK)
        if root == DECLINED:
            return DECLINED
    is_filled = root == DECLINED or (root == plan[OWN]) == (verb == _REDUCE)
    if not _is_array(words, given[1], is_filled) or not _is_array(words, given[2], False):
        return DECLINED
    output, input = words_at(given[1], ARRAY_WORDS), words_at(given[2], ARRAY_WORDS)
    at = _learned(words, input[ARRAY_DTYPE], given[4], given[5])
    other = _learned(words, output[ARRAY_DTYPE], given[4], given[5])
    combines = verb in (_ALLREDUCE, _REDUCE, _REDUCE_SCATTER)
    # A verb that combines has an entry with a fold, which a move with the same objects has not taught.
    if at == 0 or other == 0 or combines != (words[at + FOLD] != 0) or (combines and at != other):
        return DECLINED
    elements = _length(input)
    bytes_in, bytes_out = elements * words[at + ITEM], _length(output) * words[other + ITEM]
    byte_count = _fits(plan, verb, bytes_out, bytes_in, elements)
    if byte_count == DECLINED:
        return DECLINED
    return _carry_out(
        *(words, plan, verb, root, byte_count, input[ARRAY_DATA], output[ARRAY_DATA], at)
    )
