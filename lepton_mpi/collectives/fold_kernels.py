"""Combines 1, 2, 4 or 8 vectors in one pass, by explicit vector instructions: what host_kernels adds with.

    for every 64 bytes:  load a line of every operand -> ((a b)(c d))((e f)(g h)) -> store it to every target

LLVM does not vectorise a loop over so many arrays, since it cannot exclude that two of them overlap; and in
passes of two operands each the processor sees too few streams at a time. Measured: sum of 8 vectors of
64 MiB in 4 KiB pages on 2 cores: passes over blocks of 4 KiB 20 ms, of 1 KiB 15 ms, this 11.7 ms, with
streaming stores 10.4 ms. The combination is element by element, so the bits are those of the passes.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LINE_BYTES = 64
# Greatest number of operands of one pass; the others are its halves.
ARITY_MAX = 8

SUM, MAX, MIN = 0, 1, 2
OPERATIONS = {"sum": SUM, "max": MAX, "min": MIN}

_word = ir.IntType(64)


@intrinsic
def base_address(typing_context, array):
    """Address of the first element, as int64."""

    def generate(context, builder, signature, arguments):
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(made.data, _word)

    return types.int64(array), generate


def _combined(builder, operation: int, is_float: bool, left, right):
    """``left`` and ``right`` combined, as IR; of two equal or unordered values the right one is taken."""
    if operation == SUM:
        return builder.fadd(left, right) if is_float else builder.add(left, right)
    sign = ">" if operation == MAX else "<"
    first = (
        builder.fcmp_ordered(sign, left, right)
        if is_float
        else builder.icmp_signed(sign, left, right)
    )
    return builder.select(first, left, right)


def _make_fold(arity: int, operation: int, streaming: bool = False):
    """Fold of ``arity`` vectors of ``byte_count`` bytes.

    addresses : int64, first those of the operands, then those of ``target_count`` >= 1 targets
    table : any array of the element type
    streaming : store past the caches; targets must be 64-byte aligned, and ``byte_count`` a multiple of 64
    """

    @intrinsic
    def fold(typing_context, table, addresses, target_count, byte_count):
        def generate(context, builder, signature, arguments):
            scalar = context.get_data_type(signature.args[0].dtype)
            is_float = isinstance(signature.args[0].dtype, types.Float)
            width = signature.args[0].dtype.bitwidth // 8
            words = context.make_array(signature.args[1])(context, builder, arguments[1])
            _, _, target_count, byte_count = arguments

            def address(number):
                return builder.load(builder.gep(words.data, [number]))

            operands = [address(_word(number)) for number in range(arity)]
            first_target = address(_word(arity))
            non_temporal = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])

            def one(kind, offset):
                def at(base):
                    return builder.inttoptr(builder.add(base, offset), kind.as_pointer())

                values = [builder.load(at(base), align=width) for base in operands]
                while len(values) > 1:
                    pairs = zip(values[::2], values[1::2], strict=True)
                    values = [_combined(builder, operation, is_float, *pair) for pair in pairs]
                stored = builder.store(values[0], at(first_target), align=width)
                if streaming:
                    stored.align = LINE_BYTES
                    stored.set_metadata("nontemporal", non_temporal)
                else:
                    with cgutils.for_range(builder, target_count, start=_word(1)) as others:
                        target = address(builder.add(_word(arity), others.index))
                        builder.store(values[0], at(target), align=width)

            def loop(kind, start, stop, step):
                with cgutils.for_range_slice(builder, start, stop, _word(step), _word) as (
                    offset,
                    _,
                ):
                    one(kind, offset)

            whole = builder.and_(byte_count, _word(-LINE_BYTES))
            loop(ir.VectorType(scalar, LINE_BYTES // width), _word(0), whole, LINE_BYTES)
            if not streaming:
                loop(scalar, whole, byte_count, width)
            return context.get_dummy_value()

        return types.none(table, addresses, types.int64, types.int64), generate

    return fold


_copy = _make_fold(1, SUM)
_sum_2, _sum_4, _sum_8 = (_make_fold(arity, SUM) for arity in (2, 4, 8))
_stream_2, _stream_4, _stream_8 = (_make_fold(arity, SUM, streaming=True) for arity in (2, 4, 8))
_max_2, _max_4, _max_8 = (_make_fold(arity, MAX) for arity in (2, 4, 8))
_min_2, _min_4, _min_8 = (_make_fold(arity, MIN) for arity in (2, 4, 8))


@njit(inline="always")
def fold(table, addresses, arity, operation, streaming, target_count, byte_count):
    """Combine ``arity`` vectors; for addresses, target and byte counts see ``_make_fold``."""
    if arity == 1:
        _copy(table, addresses, target_count, byte_count)
    elif operation == SUM and streaming:
        if arity == 2:
            _stream_2(table, addresses, target_count, byte_count)
        elif arity == 4:
            _stream_4(table, addresses, target_count, byte_count)
        else:
            _stream_8(table, addresses, target_count, byte_count)
    elif operation == SUM:
        if arity == 2:
            _sum_2(table, addresses, target_count, byte_count)
        elif arity == 4:
            _sum_4(table, addresses, target_count, byte_count)
        else:
            _sum_8(table, addresses, target_count, byte_count)
    elif operation == MAX:
        if arity == 2:
            _max_2(table, addresses, target_count, byte_count)
        elif arity == 4:
            _max_4(table, addresses, target_count, byte_count)
        else:
            _max_8(table, addresses, target_count, byte_count)
    elif arity == 2:
        _min_2(table, addresses, target_count, byte_count)
    elif arity == 4:
        _min_4(table, addresses, target_count, byte_count)
    else:
        _min_8(table, addresses, target_count, byte_count)
