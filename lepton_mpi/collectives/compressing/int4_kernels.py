"""Vectors as whole numbers of 4 bits, two in a byte, with a scale for each block and stochastic rounding.

byte b of a block of n elements     element b in the low bits, element n/2 + b in the high ones
a code of 4 bits                    8 more than the whole number, from 1 to 15
"""

import numpy as np

from lepton_mpi.collectives.compressing.bit_kernels import (
    BLOCK,
    DITHER_BITS,
    add_and_find_largest,
    as_like,
    draw,
    float_of,
    infinity_bits,
    smallest_normal,
)
from lepton_mpi.kernels.compiling import kernel

# The largest code, and what is added to it.
LEVELS, OFFSET = 7, 8


@kernel("void(V, V, u8, u8[::1], V, u1[::1])")
def encode(x, residual, key, numbers, scales, codes):
    """As ``int8_kernels.encode``; codes (n / 2, rounded up)."""
    dither = numbers.view(np.uint16)
    for block in range(scales.size):
        start = block * BLOCK
        y = residual[start : start + BLOCK]
        code = codes[start // 2 : (start + BLOCK) // 2]
        largest = add_and_find_largest(x[start : start + BLOCK], y)
        like = y[0]
        levels = as_like(like, LEVELS)
        scale = float_of(like, largest) / levels
        inverse = levels / float_of(like, largest)
        for b in range(code.size):
            code[b] = 0
        if largest < infinity_bits(like) and scale >= smallest_normal(like):
            draw(key, block, numbers)
        unit = as_like(like, 1) / as_like(like, 1 << DITHER_BITS)
        for half in range(2):
            first = half * code.size
            part, random = y[first : first + code.size], dither[first : first + code.size]
            if largest >= infinity_bits(like):
                for b in range(part.size):
                    code[b] |= np.uint8((OFFSET + 1) << (4 * half))
                    part[b] -= scale
            elif scale < smallest_normal(like):
                for b in range(part.size):
                    code[b] |= np.uint8(OFFSET << (4 * half))
            else:
                for b in range(part.size):
                    level = np.floor(part[b] * inverse + as_like(like, random[b]) * unit)
                    level = min(max(level, -levels), levels)
                    code[b] |= np.uint8((np.int32(level) + OFFSET) << (4 * half))
                    part[b] -= level * scale
        scales[block] = scale if scale >= smallest_normal(like) or scale != scale else 0


@kernel("void(V, u1[::1], V, b1)")
def decode(scales, codes, out, adds):
    """``out = scales * codes``, or ``out +=`` it. Shapes as for ``encode``."""
    for block in range(scales.size):
        start, scale = block * BLOCK, scales[block]
        target, code = out[start : start + BLOCK], codes[start // 2 : (start + BLOCK) // 2]
        for half in range(2):
            part = target[half * code.size : (half + 1) * code.size]
            if adds:
                for b in range(part.size):
                    level = np.int32(np.int32(code[b] >> (4 * half)) & 15) - OFFSET
                    part[b] += as_like(scale, level) * scale
            else:
                for b in range(part.size):
                    level = np.int32(np.int32(code[b] >> (4 * half)) & 15) - OFFSET
                    part[b] = as_like(scale, level) * scale
