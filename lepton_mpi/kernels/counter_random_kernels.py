"""The hash of ``counter_random.py``, one number at a time, for kernels. The same bits as there.

All numbers are uint64: beside a signed one, Numba would turn them to float64. Hence the signatures.
"""

import numpy as np

from lepton_mpi.kernels.compiling import kernel

_WEYL = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@kernel("u8(u8)")
def mix(value):
    """As ``counter_random.mix``."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@kernel("u8(u8, u8)")
def chain(key, word):
    """As ``counter_random.chain``: the key that follows from ``key`` and one more word."""
    return mix((key + word) * _WEYL + _WEYL)


@kernel("u8(u8, u8)")
def number(key, counter):
    """Number ``counter`` of ``key``, as ``counter_random.numbers`` has it in this place."""
    return mix(key + (counter + np.uint64(1)) * _WEYL)
