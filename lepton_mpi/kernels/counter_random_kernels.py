"""The hash of ``counter_random.py``, one number at a time, for kernels. The same bits as there.

All numbers are uint64: beside a signed one, Numba would turn them to float64. Explicit signatures: importing
this module compiles, or loads, them all.
"""

import numpy as np
from numba import njit

_WEYL = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@njit("u8(u8)", cache=True, nogil=True)
def mix(value):
    """As ``counter_random.mix``."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@njit("u8(u8, u8)", cache=True, nogil=True)
def chain(key, word):
    """As ``counter_random.chain``: the key that follows from ``key`` and one more word."""
    return mix((key + word) * _WEYL + _WEYL)


@njit("u8(u8, u8)", cache=True, nogil=True)
def number(key, counter):
    """Number ``counter`` of ``key``, as ``counter_random.numbers`` has it in this place."""
    return mix(key + (counter + np.uint64(1)) * _WEYL)
