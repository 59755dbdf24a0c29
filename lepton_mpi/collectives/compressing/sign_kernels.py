"""Vectors as their signs, eight in a byte, with the mean magnitude of each block.

byte b of a block of n elements     bit j is the sign of element j n/8 + b, 1 for a negative one
"""

import numpy as np

from lepton_mpi.collectives.compressing.bit_kernels import BLOCK, as_like, bits_of
from lepton_mpi.kernels.compiling import kernel

# Partial sums of magnitudes: element i of a block is added to number i modulo SUMS.
SUMS = 64


@kernel("void(V, V, V, V, u1[::1])")
def encode(x, residual, sums, scales, codes):
    """Add ``x`` to ``residual``, make ``codes`` of the signs, and leave the error of ``scales`` times them in ``residual``.

    sums : scratch, (SUMS,)
    Shapes: x, residual (n,); scales (n / BLOCK, rounded up); codes (n / 8, rounded up).
    The scale of a block with NaN or infinity is not finite either.
    """
    for block in range(scales.size):
        start = block * BLOCK
        y, code = residual[start : start + BLOCK], codes[start // 8 : (start + BLOCK) // 8]
        fresh = x[start : start + BLOCK]
        part_of_one = as_like(y[0], 1) / as_like(y[0], y.size)
        for i in range(SUMS):
            sums[i] = 0
        for first in range(0, y.size, SUMS):
            part, added = y[first : first + SUMS], fresh[first : first + SUMS]
            for i in range(part.size):
                total = part[i] + added[i]
                part[i] = total
                # Divided before they are added: the mean is finite where the magnitudes are.
                sums[i] += abs(total) * part_of_one
        width = SUMS // 2
        while width > 0:
            upper = sums[width : 2 * width]
            for i in range(width):
                sums[i] += upper[i]
            width //= 2
        scale = sums[0]
        for b in range(code.size):
            code[b] = 0
        for j in range(8):
            part = y[j * code.size : (j + 1) * code.size]
            for b in range(part.size):
                is_negative = bits_of(part[b]) < 0
                code[b] |= np.uint8(is_negative) << j
                part[b] -= -scale if is_negative else scale
        scales[block] = scale


@kernel("void(V, u1[::1], V, b1)")
def decode(scales, codes, out, adds):
    """``out = scales`` with the signs of ``codes``, or ``out +=`` it. Shapes as for ``encode``."""
    for block in range(scales.size):
        start, scale = block * BLOCK, scales[block]
        target, code = out[start : start + BLOCK], codes[start // 8 : (start + BLOCK) // 8]
        for j in range(8):
            part, bit = target[j * code.size : (j + 1) * code.size], np.uint8(1 << j)
            if adds:
                for b in range(part.size):
                    part[b] += -scale if code[b] & bit else scale
            else:
                for b in range(part.size):
                    part[b] = -scale if code[b] & bit else scale
