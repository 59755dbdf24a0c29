"""Sum, maximum and minimum of two numbers, as code that the executors share; the last two have the same bits in any order.

    max    NaN, of one bit pattern, if there is one; else the greater; of +0 and -0 it is +0     maximum of IEEE 754-2019
    min    the same with the less, and -0                                                        minimum

Schedules combine ranks in many orders, some in another one on every rank. A bare comparison, NumPy's ``maximum`` and MPI's
``MAX`` take one of two zeros by its position, and so ranks ended with zeros of different signs; MPI's may lose NaN, too.

MPI knows neither rule. Its own allreduce is therefore given whole numbers in the same order as the floats (``to_order``)::

    bits of a float, as a whole number     0x00…  +0      0x7f800000  +inf     0x80…  -0     0xff800000  -inf
    b >= 0 ? b : b ^ 0x7fffffff            -NaN < -inf < … < -0 < +0 < … < +inf < NaN

For a minimum the sign is turned before and after.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lepton_mpi.kernels.compiling import kernel

SUM, MAX, MIN = 0, 1, 2
OPERATIONS = {"sum": SUM, "max": MAX, "min": MIN}


def combined(builder, operation: int, is_float: bool, left, right):
    """Numbers, or vectors of them, combined, as IR."""
    if operation == SUM:
        return builder.fadd(left, right) if is_float else builder.add(left, right)
    sign = ">" if operation == MAX else "<"
    if not is_float:
        return builder.select(builder.icmp_signed(sign, left, right), left, right)
    kind, bits = left.type, _bits_of(left.type)
    # What is equal has equal bits, but for zeros: + if one of them is, or - if one is.
    join = builder.and_ if operation == MAX else builder.or_
    joined = join(builder.bitcast(left, bits), builder.bitcast(right, bits))
    is_equal = builder.fcmp_ordered("==", left, right)
    is_first = builder.fcmp_ordered(sign, left, right)
    chosen = builder.select(
        is_equal, builder.bitcast(joined, kind), builder.select(is_first, left, right)
    )
    return builder.select(builder.fcmp_unordered("uno", left, right), _nan(kind), chosen)


def _bits_of(kind):
    """The type of whole numbers as long as floats of ``kind``, or a vector of them."""
    if isinstance(kind, ir.VectorType):
        return ir.VectorType(_bits_of(kind.element), kind.count)
    return ir.IntType(32 if isinstance(kind, ir.FloatType) else 64)


def _nan(kind):
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, float("nan"))] * kind.count)
    return ir.Constant(kind, float("nan"))


@intrinsic
def _greater(typing_context, left, right):
    """``combined`` by MAX."""

    def generate(context, builder, signature, arguments):
        return combined(builder, MAX, isinstance(left, types.Float), *arguments)

    return left(left, left), generate


@intrinsic
def _less(typing_context, left, right):
    """``combined`` by MIN."""

    def generate(context, builder, signature, arguments):
        return combined(builder, MIN, isinstance(left, types.Float), *arguments)

    return left(left, left), generate


@kernel("void(V, V)")
def take_greater(target, other):
    """``target = max(target, other)``, element by element."""
    for i in range(target.size):
        target[i] = _greater(target[i], other[i])


@kernel("void(V, V)")
def take_less(target, other):
    """``target = min(target, other)``, element by element."""
    for i in range(target.size):
        target[i] = _less(target[i], other[i])


@kernel("void(i4[::1], i4[::1])", "void(i8[::1], i8[::1])")
def to_order(words, facts):
    """Make of the bits of floats whole numbers that are ordered as they are, and NaN above all. facts : ``facts_of_order``."""
    shift, magnitude, infinity, nan, turn = facts[0], facts[1], facts[2], facts[3], facts[4]
    for i in range(words.size):
        word = words[i] ^ turn
        word = nan if word & magnitude > infinity else word
        words[i] = word ^ (word >> shift & magnitude)


@kernel("void(i4[::1], i4[::1])", "void(i8[::1], i8[::1])")
def from_order(words, facts):
    """The bits that ``to_order`` had; NaN is of one pattern."""
    shift, magnitude, infinity, nan, turn = facts[0], facts[1], facts[2], facts[3], facts[4]
    for i in range(words.size):
        word = words[i] ^ (words[i] >> shift & magnitude)
        words[i] = nan if word & magnitude > infinity else word ^ turn


def facts_of_order(dtype: np.dtype, operation: str) -> np.ndarray:
    """Of floats of ``dtype``: bits above the last one, all but the sign, infinity, NaN; and what turns the sign, if it is turned."""
    whole = np.dtype(f"i{dtype.itemsize}")
    infinity, nan = np.array([np.inf, np.nan], dtype).view(whole).tolist()
    least, greatest = np.iinfo(whole).min, np.iinfo(whole).max
    turn = least if operation == "min" else 0
    return np.array([8 * dtype.itemsize - 1, greatest, infinity, nan & greatest, turn], whole)
