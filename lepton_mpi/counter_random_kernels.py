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


# Rows of a bucket on average: few enough to be sorted by insertion, enough that the table of buckets stays small.
_BUCKET_ROWS = 8


@njit("i8[::1](u8, i8)", cache=True, nogil=True)
def shuffled(key, count):
    """As ``counter_random.shuffled``: the integers 0 … count-1 sorted by their hash, int64, shape (count,).

    Hashes are evenly spread, so their first bits say about where each belongs: all are thrown into buckets, in order,
    and the few of a bucket are sorted. In O(count); the order of an epoch would otherwise take a good part of reading it.
    """
    out = np.empty(count, np.int64)
    bits = 0
    while count >> bits > _BUCKET_ROWS:
        bits += 1
    ends = np.zeros((1 << bits) + 1, np.int64)
    shift = np.uint64(64 - bits)
    for i in range(count):
        # Shifting by 64 bits is not defined.
        bucket = np.int64(number(key, np.uint64(i)) >> shift) if bits else 0
        ends[bucket + 1] += 1
    for bucket in range(1 << bits):
        ends[bucket + 1] += ends[bucket]
    for i in range(count):
        bucket = np.int64(number(key, np.uint64(i)) >> shift) if bits else 0
        out[ends[bucket]] = i
        ends[bucket] += 1
    hashes = np.empty(64, np.uint64)
    start = 0
    for bucket in range(1 << bits):
        stop = ends[bucket]
        if stop - start > hashes.size:
            hashes = np.empty(stop - start, np.uint64)
        for place in range(start, stop):
            row = out[place]
            hash_ = number(key, np.uint64(row))
            before = place - start
            # Equal hashes keep their order.
            while before > 0 and hashes[before - 1] > hash_:
                hashes[before], out[start + before] = hashes[before - 1], out[start + before - 1]
                before -= 1
            hashes[before], out[start + before] = hash_, row
        start = stop
    return out
