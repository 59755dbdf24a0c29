"""A random order of many numbers, fast: the order of an epoch would otherwise take a good part of reading it.

The numbers 0 … count-1 are sorted by their hash. Hashes are evenly spread, so their first bits say about where each
belongs, and no comparison sort is needed, whose branches nobody can foresee::

    hash                a number's hash, its last bits replaced by the number itself
    coarse buckets      by the first bits, so large that one stays in the second-level cache
    fine buckets        by the next bits, twice as many as there are numbers
    insertion           few still have a larger neighbour before them

Explicit signatures: importing this module compiles, or loads, them all.
"""

import numpy as np
from numba import njit

from lepton_mpi.counter_random_kernels import number

# Of a coarse bucket, with its copy and its table of fine ones less than 1 MiB. 1e6 numbers: 7 ns each; in place of 12 with
# half as many, which are more coarse buckets than there are lines in the first-level cache to write to at once.
_COARSE_ROWS = 32 << 10
# Most coarse buckets of as many numbers are a little longer, and none is much longer.
_FINE_BITS_MAX = 17
# Hashes that are made by one loop, which is vectorised.
_BLOCK_ROWS = 1024

_options = {"cache": True, "nogil": True}


@njit("void(u8, i8, u8[::1])", **_options)
def _hashes(key, first, out):
    """Hashes of the numbers from ``first`` on."""
    for i in range(out.size):
        out[i] = number(key, np.uint64(first + i))


@njit(inline="always")
def _bits(count):
    """Bits of the number ``count``."""
    bits = 0
    while count >> bits > 0:
        bits += 1
    return bits


@njit(inline="always")
def _fine_bits(count):
    """At least one, so that no shift is by all 64."""
    return min(_bits(count) + 1, _FINE_BITS_MAX)


@njit("i8(i8)", **_options)
def workspace_size(count):
    """Elements of memory that ``shuffle_into`` needs."""
    return count + (1 << _fine_bits(count) - 1) + 1


@njit(inline="always")
def _first_bits(value, bits):
    """The number that the first ``bits`` bits are; 0 for none."""
    return np.int64(value >> np.uint64(1) >> np.uint64(63 - bits))


@njit("i8[::1](u8, i8, i8)", **_options)
def _coarse_starts(key, count, bits):
    """Where each of ``1 << bits`` buckets begins, and the last one ends."""
    starts, hashes = np.zeros((1 << bits) + 1, np.int64), np.empty(_BLOCK_ROWS, np.uint64)
    for first in range(0, count, _BLOCK_ROWS):
        block = hashes[: min(_BLOCK_ROWS, count - first)]
        _hashes(key, first, block)
        for i in range(block.size):
            starts[_first_bits(block[i], bits) + 1] += 1
    for bucket in range(1 << bits):
        starts[bucket + 1] += starts[bucket]
    return starts


@njit("void(u8, u8, i8, i8[::1], u8[::1])", **_options)
def _to_coarse_buckets(key, row_bits, bits, starts, out):
    """Put every number, behind the first bits of its hash, into its bucket. ``starts`` are used up."""
    hashes = np.empty(_BLOCK_ROWS, np.uint64)
    for first in range(0, out.size, _BLOCK_ROWS):
        block = hashes[: min(_BLOCK_ROWS, out.size - first)]
        _hashes(key, first, block)
        for i in range(block.size):
            bucket = _first_bits(block[i], bits)
            out[starts[bucket]] = block[i] >> row_bits << row_bits | np.uint64(first + i)
            starts[bucket] += 1


@njit("b1(u8, u8, u8, u8)", inline="always", **_options)
def _is_after(key, row_bits, left, right):
    """Whether the number in ``left`` comes after that in ``right``; of two equal hashes the larger one does."""
    if (left ^ right) >> row_bits:
        return left > right
    # The bits of the hash that the number stands in place of decide. Almost never.
    mask = (np.uint64(1) << row_bits) - np.uint64(1)
    left_hash, right_hash = number(key, left & mask), number(key, right & mask)
    return left > right if left_hash == right_hash else left_hash > right_hash


@njit("void(u8, u8, u8, u8[::1], i4[::1], u8[::1])", **_options)
def _sort(key, row_bits, used_bits, values, table, out):
    """Sort a coarse bucket, in which the first ``used_bits`` bits are all the same."""
    bits = _fine_bits(values.size)
    ends = table[: (1 << bits) + 1]
    ends[:] = 0
    for i in range(values.size):
        ends[_first_bits(values[i] << used_bits, bits) + 1] += 1
    for bucket in range(1 << bits):
        ends[bucket + 1] += ends[bucket]
    for i in range(values.size):
        bucket = _first_bits(values[i] << used_bits, bits)
        out[ends[bucket]] = values[i]
        ends[bucket] += 1
    for place in range(1, out.size):
        value, before = out[place], place
        while before > 0 and _is_after(key, row_bits, out[before - 1], value):
            out[before] = out[before - 1]
            before -= 1
        out[before] = value


@njit("void(u8, i8[::1], u8[::1], i8[::1])", **_options)
def shuffle_into(key, rows, workspace, out):
    """``out = rows`` in the order of ``counter_random.shuffled``: element i's place goes by its hash.

    rows, out : int64, shape (count,), not the same memory; workspace : uint64, of ``workspace_size(count)`` elements;
    key : uint64. O(count).
    """
    count, values = rows.size, out.view(np.uint64)
    row_bits = np.uint64(_bits(count))
    bits = 0
    while count >> bits > _COARSE_ROWS:
        bits += 1
    starts = _coarse_starts(key, count, bits)
    coarse, table = workspace[:count], workspace[count:].view(np.int32)
    _to_coarse_buckets(key, row_bits, bits, starts.copy(), coarse)
    for bucket in range(1 << bits):
        start, stop = starts[bucket], starts[bucket + 1]
        _sort(key, row_bits, np.uint64(bits), coarse[start:stop], table, values[start:stop])
    mask = (np.uint64(1) << row_bits) - np.uint64(1)
    for i in range(count):
        out[i] = rows[values[i] & mask]


@njit("i8[::1](u8, i8)", **_options)
def shuffled(key, count):
    """As ``counter_random.shuffled``: the integers 0 … count-1 sorted by their hash, int64, shape (count,)."""
    out = np.empty(count, np.int64)
    shuffle_into(key, np.arange(count), np.empty(workspace_size(count), np.uint64), out)
    return out
