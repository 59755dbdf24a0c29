"""One call of an allreduce inside a host, as one Numba kernel: arrive, reduce, leave.

All vectors of a host are rows of one shared table, so "receive and add" is reading a peer's row. The
vector is cut into pieces. The last rank to arrive opens the pieces, and whoever has a core takes the next
one, so that a rank that is not running delays nobody. Each element is summed by a fixed list of additions,
whoever does it, so all calls give the same bits.

    rank 0   arrive --- wait ---------- take piece 1 ----- wait -- leave
    rank 1   ------ arrive (last) open  take piece 0, 2 -- done -- leave

A vector of one piece is reduced by the last to arrive at once, and the others wait once.
Memory traffic: (n + 1) N bytes with a shared result, 2 n N with private ones, the least there can be.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from lepton_mpi.collectives.atomics import (
    FIRST_FREE_WORD,
    LINE_WORDS,
    call_on_x86,
    fetch_add,
    publish,
    store_release,
    wait_until,
)

# Words of the control block. OPEN and DONE are waited for: the line after each counts its sleepers.
ARRIVED, TICKET, FINISHED, OPEN, DONE = (
    FIRST_FREE_WORD + LINE_WORDS * line for line in (0, 1, 2, 3, 5)
)
CONTROL_WORDS = FIRST_FREE_WORD + LINE_WORDS * 7

# Words of a plan, which belongs to one rank. Groups follow, one for each row of sums: number of additions,
# number of targets, the additions as (to, left, right), the target rows. Operands below the number of rows
# are rows of the table, the others scratch slots. The last addition goes to the first target, whatever it
# says; a group without additions has its only input as first target.
EPOCH, RANKS, START, STOP, PIECE, PIECES, OPERATION, POLLS, YIELDS, STREAM, GROUPS = range(11)
PLAN_HEADER = 11

SUM, MAX, MIN = 0, 1, 2
OPERATIONS = {"sum": SUM, "max": MAX, "min": MIN}

# A block of each operand stays in the first-level cache while the additions go over it.
BLOCK_BYTES = 8 << 10


@njit(inline="always")
def _combine(operation, a, b, out):
    if operation == SUM:
        for i in range(out.size):
            out[i] = a[i] + b[i]
    elif operation == MAX:
        for i in range(out.size):
            out[i] = a[i] if a[i] > b[i] else b[i]
    else:
        for i in range(out.size):
            out[i] = a[i] if a[i] < b[i] else b[i]


@intrinsic
def _stream_sum(typing_context, a, b, out, start):
    """``out[start:start+w] = a[…] + b[…]`` for 64 bytes, past the caches; ``out`` must be 64-byte aligned."""

    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        scalar = context.get_data_type(array_type.dtype)
        width = 64 * 8 // array_type.dtype.bitwidth
        vector = ir.VectorType(scalar, width)

        def at(array):
            made = context.make_array(array_type)(context, builder, array)
            pointer = cgutils.get_item_pointer(context, builder, array_type, made, [arguments[3]])
            return builder.bitcast(pointer, vector.as_pointer())

        left = builder.load(at(arguments[0]), align=array_type.dtype.bitwidth // 8)
        right = builder.load(at(arguments[1]), align=array_type.dtype.bitwidth // 8)
        is_float = isinstance(array_type.dtype, types.Float)
        total = builder.fadd(left, right) if is_float else builder.add(left, right)
        stored = builder.store(total, at(arguments[2]), align=64)
        stored.set_metadata(
            "nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        )
        return context.get_dummy_value()

    return types.none(a, b, out, types.intp), generate


@intrinsic
def _stream_fence(typing_context):
    """Make streaming stores visible before anything stored later."""

    def generate(context, builder, signature, arguments):
        call_on_x86(builder, "llvm.x86.sse.sfence")
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


@njit(inline="always")
def _operand(table, scratch, number, start, stop):
    rows = table.shape[0]
    return table[number][start:stop] if number < rows else scratch[number - rows][: stop - start]


@njit(inline="always")
def _stream(a, b, out):
    width = 64 // out.itemsize
    whole = out.size // width * width
    for i in range(0, whole, width):
        _stream_sum(a, b, out, i)
    _combine(SUM, a[whole:], b[whole:], out[whole:])


@njit(inline="always")
def _reduce_block(plan, table, scratch, start, stop):
    """All groups of one block, [start, stop) of every row."""
    at = PLAN_HEADER
    for _ in range(plan[GROUPS]):
        additions, targets = plan[at], plan[at + 1]
        first, at = at + 2, at + 2 + 3 * additions
        out = table[plan[at]][start:stop]
        for k in range(first, first + 3 * additions, 3):
            a = _operand(table, scratch, plan[k + 1], start, stop)
            b = _operand(table, scratch, plan[k + 2], start, stop)
            if k < first + 3 * (additions - 1):
                _combine(plan[OPERATION], a, b, _operand(table, scratch, plan[k], start, stop))
            elif plan[STREAM]:
                _stream(a, b, out)
            else:
                _combine(plan[OPERATION], a, b, out)
        for k in range(at + 1, at + targets):
            target = table[plan[k]][start:stop]
            for i in range(target.size):
                target[i] = out[i]
        at += targets


def _host_allreduce(words, table, scratch, plan):
    """Reduce rows of ``table``; every rank of the host calls it. Returns 1 if the wait was aborted.

    words : int64 (CONTROL_WORDS,), shared; table : (rows, count), shared; scratch : (slots, block), this
    rank's; plan : int64, this rank's, see the constants above.
    """
    plan[EPOCH] += 1
    epoch, pieces = plan[EPOCH], plan[PIECES]
    last = fetch_add(words, ARRIVED, 1) == epoch * plan[RANKS] - 1
    if pieces > 1:
        if last:
            # All ranks have arrived, so none is still taking pieces of the call before.
            store_release(words, TICKET, 0)
            publish(words, OPEN, epoch)
        elif wait_until(words, OPEN, epoch, plan[POLLS], plan[YIELDS]):
            return 1
    block = scratch.shape[1]
    while last or pieces > 1:
        piece = fetch_add(words, TICKET, 1) if pieces > 1 else 0
        if piece >= pieces:
            break
        piece_start = plan[START] + piece * plan[PIECE]
        piece_stop = min(piece_start + plan[PIECE], plan[STOP])
        for start in range(piece_start, piece_stop, block):
            _reduce_block(plan, table, scratch, start, min(start + block, piece_stop))
        if plan[STREAM]:
            _stream_fence()
        if fetch_add(words, FINISHED, 1) == pieces - 1:
            store_release(words, FINISHED, 0)
            publish(words, DONE, epoch)
            return 0
        if pieces == 1:
            break
    return wait_until(words, DONE, epoch, plan[POLLS], plan[YIELDS])


host_allreduce = njit(cache=True, nogil=True)(_host_allreduce)


def _host_array_allreduce(words, table, scratch, plan, own_row, array):
    """The same for ``array`` (n,), through a table whose rows hold a part of it at a time.

    A part may overwrite the last one's sums: its first to reduce is the last to arrive, and whoever has
    arrived has copied them out.
    """
    result = table[table.shape[0] - 1]
    width = table.shape[1]
    for start in range(0, max(1, array.size), width):
        part = array[start : start + width]
        plan[STOP] = part.size
        plan[PIECES] = max(1, (part.size + plan[PIECE] - 1) // plan[PIECE])
        row = table[own_row]
        for i in range(part.size):
            row[i] = part[i]
        if host_allreduce(words, table, scratch, plan):
            return 1
        for i in range(part.size):
            part[i] = result[i]
    return 0


host_array_allreduce = njit(cache=True, nogil=True)(_host_array_allreduce)


@njit(cache=True, nogil=True)
def host_barrier(words, plan):
    """Return once all ranks of the host have called it; 1 if the wait was aborted. For ``plan`` see above."""
    plan[EPOCH] += 1
    if fetch_add(words, ARRIVED, 1) == plan[EPOCH] * plan[RANKS] - 1:
        publish(words, DONE, plan[EPOCH])
        return 0
    return wait_until(words, DONE, plan[EPOCH], plan[POLLS], plan[YIELDS])
