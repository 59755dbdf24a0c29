"""A random order of many numbers, fast: the order of an epoch would otherwise take a good part of reading it.

The numbers 0 … count-1 are sorted by their hash. Hashes are evenly spread, so their first bits say about where each
belongs, and no comparison sort is needed, whose branches nobody can foresee::

    hash                a number's hash, its last bits replaced by the number itself
    coarse buckets      by the first bits, so large that one stays in the second-level cache
    fine buckets        by the next bits, twice as many as there are numbers
    insertion           few still have a larger neighbour before them

Every stage can be shared by several ranks: each counts, and puts into coarse buckets, a part of the numbers, and then sorts
a part of the buckets.
"""

import numpy as np

from lepton_mpi.kernels.compiling import inlined, kernel
from lepton_mpi.kernels.counter_random_kernels import number

# Of a coarse bucket, with its copy and its table of fine ones less than 1 MiB. 1e6 numbers: 7 ns each; in place of 12 with
# half as many, which are more coarse buckets than there are lines in the first-level cache to write to at once.
_COARSE_ROWS = 32 << 10
# Most coarse buckets of as many numbers are a little longer, and none is much longer.
_FINE_BITS_MAX = 17
# Hashes that are made by one loop, which is vectorised.
_BLOCK_ROWS = 1024


@kernel("void(u8, i8, u8[::1])")
def _hashes(key, first, out):
    """Hashes of the numbers from ``first`` on."""
    for i in range(out.size):
        out[i] = number(key, np.uint64(first + i))


@inlined
def _bits(count):
    """Bits of the number ``count``."""
    bits = 0
    while count >> bits > 0:
        bits += 1
    return bits


@inlined
def _fine_bits(count):
    """At least one, so that no shift is by all 64."""
    return min(_bits(count) + 1, _FINE_BITS_MAX)


@inlined
def _first_bits(value, bits):
    """The number that the first ``bits`` bits are; 0 for none."""
    return np.int64(value >> np.uint64(1) >> np.uint64(63 - bits))


def coarse_bits(count: int, ranks: int) -> int:
    """First bits of a hash that tell coarse buckets apart, if ``ranks`` share the work for ``count`` numbers."""
    bits = (4 * ranks - 1).bit_length() if ranks > 1 else 0
    while count >> bits > _COARSE_ROWS:
        bits += 1
    return bits


def table_size(count: int) -> int:
    """Elements of a table of fine buckets, whatever coarse buckets ``count`` numbers have."""
    return (1 << min(count.bit_length() + 1, _FINE_BITS_MAX)) + 1


@kernel("void(u8, i8, i8, i8, i8[::1])")
def count_numbers(key, start, stop, bits, counts):
    """How many of the numbers [start, stop) belong into each coarse bucket: ``counts``, shape (1 << bits,)."""
    counts[:] = 0
    hashes = np.empty(_BLOCK_ROWS, np.uint64)
    for first in range(start, stop, _BLOCK_ROWS):
        block = hashes[: min(_BLOCK_ROWS, stop - first)]
        _hashes(key, first, block)
        for i in range(block.size):
            counts[_first_bits(block[i], bits)] += 1


@kernel("void(u8, i8, i8, i8, i8[::1], u8[::1])")
def place_numbers(key, start, stop, bits, places, coarse):
    """Put the numbers [start, stop), behind the first bits of their hashes, into coarse buckets.

    places : shape (1 << bits,)
        In ``coarse``, shape (count,), of the first of them that belongs into each bucket; they are moved on.
    """
    row_bits, hashes = np.uint64(_bits(coarse.size)), np.empty(_BLOCK_ROWS, np.uint64)
    for first in range(start, stop, _BLOCK_ROWS):
        block = hashes[: min(_BLOCK_ROWS, stop - first)]
        _hashes(key, first, block)
        for i in range(block.size):
            bucket = _first_bits(block[i], bits)
            coarse[places[bucket]] = block[i] >> row_bits << row_bits | np.uint64(first + i)
            places[bucket] += 1


@inlined
def _is_after(key, row_bits, left, right):
    """Whether the number in ``left`` comes after that in ``right``; of two equal hashes the larger one does."""
    if (left ^ right) >> row_bits:
        return left > right
    # The bits of the hash that the number stands in place of decide. Almost never.
    mask = (np.uint64(1) << row_bits) - np.uint64(1)
    left_hash, right_hash = number(key, left & mask), number(key, right & mask)
    return left > right if left_hash == right_hash else left_hash > right_hash


@kernel("void(u8, u8, u8, u8[::1], i4[::1], u8[::1])")
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


@kernel("void(u8, i8, i8, i8, i8[::1], u8[::1], i4[::1], i8[::1], i4[::1], i8[::1], i4[::1])")
def sort_buckets(key, bits, first, stop, starts, coarse, table, names, labels, out, out_labels):
    """Fill ``out`` from where coarse bucket ``first`` begins to where ``stop`` does: the numbers in the order of their hashes.

    starts : shape (at least stop + 1,), where buckets begin; coarse, out : shape (count,)
    table : scratch, of ``table_size`` elements
    names : shape (count,) or (0,); with the first, ``names[number]`` is put in place of each number
    labels, out_labels : int32, shapes (any,) and (count,); or (0,)
        With the first, ``out_labels = labels[out]``.
    """
    values, row_bits = out.view(np.uint64), np.uint64(_bits(coarse.size))
    mask = (np.uint64(1) << row_bits) - np.uint64(1)
    for bucket in range(first, stop):
        begin, end = starts[bucket], starts[bucket + 1]
        _sort(key, row_bits, np.uint64(bits), coarse[begin:end], table, values[begin:end])
        for i in range(begin, end):
            place = np.int64(values[i] & mask)
            out[i] = names[place] if names.size > 0 else place
            if labels.size > 0:
                out_labels[i] = labels[out[i]]


def shuffled(key: np.uint64, count: int) -> np.ndarray:
    """As ``counter_random.shuffled``: the integers 0 … count-1 sorted by their hash, int64, shape (count,). O(count)."""
    bits, out = coarse_bits(count, 1), np.empty(count, np.int64)
    coarse, starts = np.empty(count, np.uint64), np.zeros((1 << bits) + 1, np.int64)
    count_numbers(key, 0, count, bits, starts[1:])
    np.cumsum(starts, out=starts)
    place_numbers(key, 0, count, bits, starts[:-1].copy(), coarse)
    table, none = np.empty(table_size(count), np.int32), np.empty(0, np.int32)
    names = np.empty(0, np.int64)
    sort_buckets(key, bits, 0, 1 << bits, starts, coarse, table, names, none, out, none)
    return out
