"""A digest of numbers in memory that can be added up from parts, at the speed of memory."""

import numpy as np

from lepton_mpi.kernels.compiling import kernel


@kernel("u8(u4[::1], i8)")
def digest_of_words(words, first):
    """Sum over i of ``words[i]`` times an odd number that depends on ``first + i``, modulo 2**64.

    One word that is another one always changes it: the difference, below 2**32, times an odd number below 2**32 is not 0. Digests of parts add
    up to that of the whole, whatever the parts.
    """
    total = np.uint64(0)
    start = np.uint32(first)
    for i in range(words.size):
        factor = (start + np.uint32(i)) * np.uint32(0x9E3779B1) | np.uint32(1)
        total += np.uint64(words[i]) * np.uint64(np.uint32(factor))
    return total
