"""Fletcher32 as HDF5 computes it, at the speed of memory. Numba kernels.

HDF5 takes the bytes as 16-bit words, the first byte the high one, and keeps two sums modulo 65535: of the words, and of
the first sum after each word (J. G. Fletcher, "An arithmetic checksum for serial transmissions", IEEE Transactions on
Communications, 1982; H5checksum.c). Word by word that is a chain of dependent additions.
Here the second sum is what it is equal to, words weighted by how many follow, so that both are sums of independent terms.
Modulo 65535 swapping the bytes of a word is multiplying it by 256, so words are taken as they lie in memory and the
sums multiplied at the end.
"""

import numpy as np

from lepton_mpi.kernels.compiling import kernel

_MODULUS = 65535
# The most words whose weighted sum fits in 32 bits: 360 · 361 / 2 · 65535 < 2**32.
_BLOCK_WORDS = 360


@kernel("u4(u2[::1], i8)")
def fletcher32(words, last_byte):
    """Checksum of ``words`` and one more byte, -1 for none; a sum of 0 and one of 65535 count as the same, 0.

    Words are in the byte order of the machine, taken for little-endian.
    """
    sum_1, sum_2 = np.uint64(0), np.uint64(0)
    modulus = np.uint64(_MODULUS)
    for start in range(0, words.size, _BLOCK_WORDS):
        block = words[start : start + _BLOCK_WORDS]
        plain, weighted = np.uint32(0), np.uint32(0)
        weight = np.uint32(block.size)
        for i in range(block.size):
            word = np.uint32(block[i])
            plain += word
            weighted += word * (weight - np.uint32(i))
        sum_2 = (sum_2 + np.uint64(block.size) * sum_1 + np.uint64(weighted)) % modulus
        sum_1 = (sum_1 + np.uint64(plain)) % modulus
    swap = np.uint64(256)
    sum_1, sum_2 = sum_1 * swap % modulus, sum_2 * swap % modulus
    if last_byte >= 0:
        sum_1 = (sum_1 + np.uint64(last_byte) * swap) % modulus
        sum_2 = (sum_2 + sum_1) % modulus
    return np.uint32(sum_2 << np.uint64(16) | sum_1)
