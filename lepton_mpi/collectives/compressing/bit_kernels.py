"""Floating-point numbers by their bits, for the codecs' kernels: magnitudes that keep NaN, random numbers for a block.

Without their sign, the bits of floats are whole numbers in the same order, with NaN above infinity. So a maximum of bits
finds NaN, where a maximum of floats would lose it, and LLVM turns a loop over whole numbers into vector code.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lepton_mpi.kernels.compiling import inlined
from lepton_mpi.kernels.counter_random_kernels import number

# Elements that share a scale.
BLOCK = 1024
# Random bits of an element; a number of 64 bits serves four.
DITHER_BITS = 16


@intrinsic
def bits_of(typing_context, value):
    """The bits of a float, int32 or int64."""
    kind = types.int32 if value.bitwidth == 32 else types.int64

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(signature.return_type.bitwidth))

    return kind(value), generate


@intrinsic
def magnitude_bits(typing_context, value):
    """``bits_of`` without the sign."""
    kind = types.int32 if value.bitwidth == 32 else types.int64

    def generate(context, builder, signature, arguments):
        word = ir.IntType(signature.return_type.bitwidth)
        bits = builder.bitcast(arguments[0], word)
        return builder.and_(bits, word((1 << (word.width - 1)) - 1))

    return kind(value), generate


@intrinsic
def float_of(typing_context, like, bits):
    """The float, of the type of ``like``, that has these bits, which may stand in a longer whole number."""

    def generate(context, builder, signature, arguments):
        kind, bits = signature.return_type, arguments[1]
        if bits.type.width > kind.bitwidth:
            bits = builder.trunc(bits, ir.IntType(kind.bitwidth))
        return builder.bitcast(bits, context.get_value_type(kind))

    return like(like, bits), generate


@intrinsic
def as_like(typing_context, like, value):
    """A whole number as a float of the type of ``like``; Numba itself would take float64."""

    def generate(context, builder, signature, arguments):
        target = context.get_value_type(signature.return_type)
        convert = builder.sitofp if signature.args[1].signed else builder.uitofp
        return convert(arguments[1], target)

    return like(like, value), generate


@intrinsic
def infinity_bits(typing_context, like):
    """The bits of infinity: from these on a magnitude is not finite."""
    kind = types.int32 if like.bitwidth == 32 else types.int64
    bits = 0x7F800000 if like.bitwidth == 32 else 0x7FF << 52

    def generate(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(signature.return_type.bitwidth), bits)

    return kind(like), generate


@intrinsic
def smallest_normal(typing_context, like):
    """The smallest number of full precision."""
    value = float(np.finfo(np.float32 if like.bitwidth == 32 else np.float64).tiny)

    def generate(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(signature.return_type), value)

    return like(like), generate


@inlined
def add_and_find_largest(x, y):
    """``y += x``; the bits of the largest magnitude in ``y`` then, those of NaN if there is one."""
    largest = magnitude_bits(as_like(y[0], 0))
    for i in range(y.size):
        total = x[i] + y[i]
        y[i] = total
        bits = magnitude_bits(total)
        largest = bits if bits > largest else largest
    return largest


@inlined
def draw(key, block, numbers):
    """Fill ``numbers``, uint64, with those of ``key`` for block number ``block``."""
    first = np.uint64(block) * np.uint64(numbers.size)
    for i in range(numbers.size):
        numbers[i] = number(key, first + np.uint64(i))
