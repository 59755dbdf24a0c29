"""Vectors as whole numbers of 8 bits, with a scale for each block and stochastic rounding."""

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

# The largest code.
LEVELS = 127


@kernel("void(V, V, u8, u8[::1], V, i1[::1])")
def encode(x, residual, key, numbers, scales, codes):
    """Add ``x`` to ``residual``, round the sum to ``scales`` times ``codes``, and leave the error in ``residual``.

    numbers : uint64, scratch, (BLOCK / 4,); the element number i of a block goes by the 16 bits number i of it, low bits first
    Shapes: x, residual, codes (n,); scales (n / BLOCK, rounded up).
    A block with NaN or infinity has it as its scale, and codes of 1.
    """
    dither = numbers.view(np.uint16)
    for block in range(scales.size):
        start = block * BLOCK
        y, code = residual[start : start + BLOCK], codes[start : start + BLOCK]
        largest = add_and_find_largest(x[start : start + BLOCK], y)
        like = y[0]
        levels = as_like(like, LEVELS)
        scale = float_of(like, largest) / levels
        if largest >= infinity_bits(like):
            for i in range(y.size):
                code[i] = 1
                y[i] -= scale
        elif scale < smallest_normal(like):
            scale = as_like(like, 0)
            for i in range(y.size):
                code[i] = 0
        else:
            draw(key, block, numbers)
            inverse = levels / float_of(like, largest)
            unit = as_like(like, 1) / as_like(like, 1 << DITHER_BITS)
            for i in range(y.size):
                level = np.floor(y[i] * inverse + as_like(like, dither[i]) * unit)
                level = min(max(level, -levels), levels)
                code[i] = np.int8(level)
                y[i] -= level * scale
        scales[block] = scale


@kernel("void(V, i1[::1], V, b1)")
def decode(scales, codes, out, adds):
    """``out = scales * codes``, or ``out +=`` it. Shapes as for ``encode``."""
    for block in range(scales.size):
        start, scale = block * BLOCK, scales[block]
        target, code = out[start : start + BLOCK], codes[start : start + BLOCK]
        if adds:
            for i in range(target.size):
                target[i] += as_like(scale, code[i]) * scale
        else:
            for i in range(target.size):
                target[i] = as_like(scale, code[i]) * scale
