"""Rows of a table with a vector: their dot products, and a sum of multiples of them.

Both take ``TOGETHER`` rows at a time, so that the vector is loaded once for all of them. A dot product is 16 sums, in
float64 8, of every 16th element, and then sums of halves of those; a sum of rows is one chain of fused multiply-adds
in the order of the rows. So the bits of a dot product depend on its row alone, and those of a sum on its rows.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.intrinsics import base_address
from lepton_mpi.kernels.vector_code import PLACE_BYTES, VECTOR_BYTES, VectorCode

TOGETHER = 4
_word = ir.IntType(64)


@intrinsic
def dot_rows(typing_context, like, rows, a, places, a_row, vector, count, out):
    """``out = a[places] @ vector`` of ``rows`` rows, TOGETHER or 1; ``count`` columns.

    like : any array of the element type
    a, places, vector, out : addresses; places are int64; a_row : bytes from a row to the next
    """
    return _typed(like, _dot_rows)


@intrinsic
def add_rows(typing_context, like, rows, a, places, a_row, factors, count, out, is_first):
    """``out += factors @ a[places]``, or = if ``is_first``; arguments as in ``dot_rows``."""
    return _typed(like, _add_rows, types.boolean)


def _typed(like, write, *more):
    """What Numba asks of an intrinsic: its types, and who writes its code."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0].dtype
        code = VectorCode(builder, context.get_data_type(kind), kind.bitwidth // 8)
        _, rows, a, places, a_row, *rest = arguments
        for known_rows in (TOGETHER, 1):
            with builder.if_then(builder.icmp_signed("==", rows, _word(known_rows))):
                rows_of_a = [code.row_of(a, places, _word(n), a_row) for n in range(known_rows)]
                write(code, rows_of_a, *rest)
        return context.get_dummy_value()

    return types.none(like, *[types.int64] * 7, *more), generate


def _dot_rows(code, starts: list, vector, count, out) -> None:
    builder = code.builder
    sums = [cgutils.alloca_once_value(builder, code.zero) for _ in starts]
    for at in sums:
        builder.store(code.zero, at)

    def add(offset, mask):
        right = code.load(builder.add(vector, offset), mask)
        for start, at in zip(starts, sums, strict=True):
            left = code.load(builder.add(start, offset), mask)
            builder.store(code.multiply_add(left, right, builder.load(at)), at)

    _each_vector(code, count, add)
    for row, at in enumerate(sums):
        builder.store(code.sum_of_lanes(builder.load(at)), _element(code, out, row))


def _add_rows(code, starts: list, factors, count, out, is_first) -> None:
    builder = code.builder
    splats = [
        code.splat(builder.load(_element(code, factors, row), align=code.width))
        for row in range(len(starts))
    ]

    def add(offset, mask):
        at = builder.add(out, offset)
        total = builder.select(is_first, code.zero, code.load(at, mask))
        for start, factor in zip(starts, splats, strict=True):
            total = code.multiply_add(code.load(builder.add(start, offset), mask), factor, total)
        code.store(total, at, mask)

    _each_vector(code, count, add)


def _element(code, base, number: int):
    at = code.builder.add(base, _word(number * code.width))
    return code.builder.inttoptr(at, code.scalar.as_pointer())


def _each_vector(code, count, body) -> None:
    """Call ``body(offset in bytes, mask)`` for all vectors of ``count`` elements, of which the last may be short."""
    builder = code.builder
    whole, rest = (getattr(builder, name)(count, _word(code.lanes)) for name in ("sdiv", "srem"))
    with cgutils.for_range(builder, whole) as loop:
        body(builder.mul(loop.index, _word(VECTOR_BYTES)), None)
    with builder.if_then(builder.icmp_signed(">", rest, _word(0))):
        body(builder.mul(whole, _word(VECTOR_BYTES)), code.first_lanes(rest))


@kernel("void(M, i8[::1], V, V)")
def dots(a, places, vector, out):
    """``out = a[places] @ vector``. Shapes (any, m), int64 (rows,), (m,), (rows,)."""
    count, a_row = vector.size, vector.size * a.itemsize
    from_a, from_places = base_address(a), base_address(places)
    at_vector, at_out = base_address(vector), base_address(out)
    first = 0
    while first < places.size:
        rows = TOGETHER if first + TOGETHER <= places.size else 1
        at_places, at = from_places + first * PLACE_BYTES, at_out + first * a.itemsize
        dot_rows(a, rows, from_a, at_places, a_row, at_vector, count, at)
        first += rows


@kernel("void(M, i8[::1], V, b1, V)")
def weighted_sum(a, places, factors, is_first, out):
    """``out += factors @ a[places]``, or = if ``is_first``. Shapes (any, m), int64 (rows,), (rows,), bool, (m,)."""
    count, a_row = out.size, out.size * a.itemsize
    from_a, from_places = base_address(a), base_address(places)
    from_factors, at_out = base_address(factors), base_address(out)
    if is_first and places.size == 0:
        out[:] = 0
    first = 0
    while first < places.size:
        rows = TOGETHER if first + TOGETHER <= places.size else 1
        at_places, at = from_places + first * PLACE_BYTES, from_factors + first * a.itemsize
        add_rows(a, rows, from_a, at_places, a_row, at, count, at_out, is_first and first == 0)
        first += rows
