"""Numba kernels between a run's float type and bfloat16, the upper 16 bits of a float32: sign, 8 bits of exponent, 7 of mantissa.

Numbers are rounded to nearest, ties to even, so that an error is at most 2**-8 of a number; NaN stays NaN, infinity infinity, and what is
larger than the largest bfloat16 becomes infinity. float64 is rounded to float32 before. Two bytes of bfloat16 are an uint16, since NumPy
has no such type. One loop without a branch, at the speed of memory. NumPy twins: ``tests/reference_layers.py``.
Source: Kalamkar et al., "A study of bfloat16 for deep learning training", 2019, arXiv:1905.12322.
"""

import numpy as np

from lepton_mpi.kernels.compiling import kernel

# As uint32, so that vectors of them are worked on.
_HALF, _ONE, _UPPER = np.uint32(0x7FFF), np.uint32(1), np.uint32(16)
_SIZE, _INFINITY, _QUIET = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), np.uint32(0x00400000)


@kernel("void(V, u2[::1])")
def pack(x, packed):
    """``packed = bfloat16(x)``. Shapes (count,)."""
    for j in range(packed.size):
        bits = np.float32(x[j]).view(np.uint32)
        # Half of the last place, or just less than that where the upper part is even.
        rounded = np.uint32(bits + np.uint32(_HALF + np.uint32(np.uint32(bits >> _UPPER) & _ONE)))
        quiet = np.uint32(bits | _QUIET)
        is_nan = np.uint32(bits & _SIZE) > _INFINITY
        packed[j] = np.uint16(np.uint32(quiet if is_nan else rounded) >> _UPPER)


@kernel("void(u2[::1], V)")
def unpack(packed, out):
    """``out = packed``, exactly. Shapes (count,)."""
    for j in range(out.size):
        out[j] = np.uint32(np.uint32(packed[j]) << _UPPER).view(np.float32)
