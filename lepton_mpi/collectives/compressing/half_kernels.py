"""Vectors as 16-bit floats, with the same bits on any processor.

    fp16    sign, 5 bits of exponent, 10 of fraction (IEEE 754 binary16)      bf16    sign, 8 bits of exponent, 7 of fraction

Both round to nearest, ties to even. A finite number beyond the largest one becomes the largest one, and the residual keeps
what is missing; infinity and NaN stay what they are. Processors convert to fp16 by an instruction, x86 with F16C and any
64-bit Arm, and else by whole numbers; bf16 is a shift.
"""

import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lepton_mpi.collectives.compressing.bit_kernels import (
    as_like,
    bits_of,
    float_of,
    infinity_bits,
    magnitude_bits,
)
from lepton_mpi.kernels.compiling import inlined, kernel
from lepton_mpi.kernels.vector_code import compiles_for

_INFINITY = np.int32(0x7F800000)
# The largest finite numbers, and as float32 the smallest that is not subnormal in fp16.
FP16_MAX, BF16_MAX = 65504.0, float(np.array([0x7F7F0000], np.uint32).view(np.float32)[0])
_FP16_NORMAL = np.int32((127 - 14) << 23)
# A number of fp16 has this power of two between neighbours where it is subnormal; so has float32 from 0.5 to 1.
_HALF = np.int32(126 << 23)
# Else LLVM would call a function that may be missing.
CONVERTS_FP16 = compiles_for("f16c") or platform.machine() == "aarch64"


@intrinsic
def _rounded_to_fp16(typing_context, value):
    """The bits of a float32 as the processor rounds it, uint16; those of a NaN are any NaN's."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@intrinsic
def _widened_from_fp16(typing_context, code):
    """The float32 that has these bits in fp16."""

    def generate(context, builder, signature, arguments):
        half = builder.bitcast(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.uint16), generate


@inlined
def _as_float32(value, limit):
    """Rounded, and a finite number held between -limit and limit, which is of the type of ``value``."""
    bits = magnitude_bits(value)
    held = min(max(value, -limit), limit)
    return np.float32(held if bits < infinity_bits(value) else value)


@inlined
def to_fp16_by_words(value):
    """The bits of a float32 within the range, as uint16, without an instruction for it."""
    magnitude = magnitude_bits(value)
    sign = np.int32(np.int32(bits_of(value) >> 16) & 0x8000)
    normal = np.int32(np.int32(magnitude + 0xFFF + np.int32(np.int32(magnitude >> 13) & 1)) >> 13)
    normal = np.int32(normal - ((127 - 15) << 10))
    number = float_of(value, magnitude)
    small = np.int32(bits_of(np.float32(number + float_of(value, _HALF))) - _HALF)
    special = np.int32(0x7C00 if magnitude == _INFINITY else 0x7E00)
    code = small if magnitude < _FP16_NORMAL else normal
    code = special if magnitude >= _INFINITY else code
    return np.uint16(code | sign)


@inlined
def from_fp16_by_words(code):
    """The float32 that has these bits, without an instruction for it."""
    word = np.int32(code)
    shifted = np.int32(np.int32(word & 0x7FFF) << 13)
    like = np.float32(0)
    normal = np.int32(shifted + ((127 - 15) << 23))
    # 2**-14 more, and then less: a subnormal number of fp16 is none of float32.
    offset = float_of(like, _FP16_NORMAL)
    small = np.float32(float_of(like, np.int32(shifted + _FP16_NORMAL)) - offset)
    special = np.int32(shifted | _INFINITY)
    exponent = np.int32(word & 0x7C00)
    bits = bits_of(small) if exponent == 0 else normal
    bits = special if exponent == 0x7C00 else bits
    return float_of(like, np.int32(bits | np.int32(np.int32(word & 0x8000) << 16)))


@inlined
def _to_fp16_at_once(value):
    magnitude = magnitude_bits(value)
    sign = np.int32(np.int32(bits_of(value) >> 16) & 0x8000)
    nan = np.int32(sign | 0x7E00)
    return np.uint16(nan if magnitude > _INFINITY else np.int32(_rounded_to_fp16(value)))


to_fp16 = _to_fp16_at_once if CONVERTS_FP16 else to_fp16_by_words
from_fp16 = _widened_from_fp16 if CONVERTS_FP16 else from_fp16_by_words


@inlined
def _to_bf16(value):
    bits, magnitude = bits_of(value), magnitude_bits(value)
    odd = np.int32(np.int32(bits >> 16) & 1)
    rounded = np.int32(np.int32(bits + 0x7FFF + odd) >> 16)
    quiet = np.int32(np.int32(bits >> 16) | 0x40)
    return np.uint16(quiet if magnitude > _INFINITY else rounded)


@inlined
def _from_bf16(code):
    return float_of(np.float32(0), np.int32(np.int32(code) << 16))


@kernel("void(V, V, u2[::1])")
def encode_fp16(x, residual, codes):
    """Add ``x`` to ``residual``, round the sum to ``codes``, and leave the error in ``residual``; all of shape (n,)."""
    if residual.size == 0:
        return
    limit = as_like(residual[0], 65504)
    for i in range(residual.size):
        y = x[i] + residual[i]
        code = to_fp16(_as_float32(y, limit))
        codes[i] = code
        residual[i] = y - from_fp16(code)


@kernel("void(V, V, F, u2[::1])")
def encode_bf16(x, residual, limit, codes):
    """The same for bf16; ``limit`` is BF16_MAX."""
    for i in range(residual.size):
        y = x[i] + residual[i]
        code = _to_bf16(_as_float32(y, limit))
        codes[i] = code
        residual[i] = y - _from_bf16(code)


@kernel("void(u2[::1], V, b1)")
def decode_fp16(codes, out, adds):
    """``out = codes``, or ``out +=`` it; of shape (n,)."""
    if adds:
        for i in range(out.size):
            out[i] += from_fp16(codes[i])
    else:
        for i in range(out.size):
            out[i] = from_fp16(codes[i])


@kernel("void(u2[::1], V, b1)")
def decode_bf16(codes, out, adds):
    """The same for bf16."""
    if adds:
        for i in range(out.size):
            out[i] += _from_bf16(codes[i])
    else:
        for i in range(out.size):
            out[i] = _from_bf16(codes[i])
