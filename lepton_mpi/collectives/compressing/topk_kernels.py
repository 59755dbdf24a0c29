"""The k elements of largest magnitude of a vector, by a threshold: counted by magnitude first, then picked in one pass.

    1. every element is added and counted, by the upper 11 bits of its magnitude
    2. the threshold is a bin: above it lie less than k elements, with it at least k
    3. elements above are taken, those of the bin collected as candidates; groups with neither are skipped by their maximum
    4. the rest is chosen of the candidates, by the next bits, again and again; of equal ones the first

Bits of a magnitude are in the order of the numbers, and NaN is above all (``bit_kernels.py``), so it is always taken.
"""

from lepton_mpi.collectives.compressing.bit_kernels import as_like, magnitude_bits
from lepton_mpi.kernels.compiling import kernel

# Bins of a count: 11 bits. Four counts in turn, since neighbours often fall into the same bin.
BIN_BITS, BINS, WAYS = 11, 2048, 4
# Elements that are in the nearest cache for all that is done to them in one pass.
PASS = 4096
# Elements whose maximum is looked at before each of them is.
GROUP = 64


@kernel("void(V, V, i8[:,::1])")
def add_and_count(x, residual, counts):
    """``residual += x``, shape (n,), and its magnitudes in ``counts``, int64 (WAYS, BINS), summed up in the first row."""
    shift = 8 * residual.itemsize - 1 - BIN_BITS
    counts[:] = 0
    one, two, three, four = counts[0], counts[1], counts[2], counts[3]
    for start in range(0, residual.size, PASS):
        part, added = residual[start : start + PASS], x[start : start + PASS]
        for i in range(part.size):
            part[i] += added[i]
        whole = part.size // WAYS * WAYS
        for i in range(0, whole, WAYS):
            y = part[i : i + WAYS]
            one[magnitude_bits(y[0]) >> shift] += 1
            two[magnitude_bits(y[1]) >> shift] += 1
            three[magnitude_bits(y[2]) >> shift] += 1
            four[magnitude_bits(y[3]) >> shift] += 1
        for i in range(whole, part.size):
            one[magnitude_bits(part[i]) >> shift] += 1
    for b in range(BINS):
        one[b] += two[b] + three[b] + four[b]


@kernel("i8(i8[::1], i8)")
def threshold_bin(counts, k):
    """The bin in which the k-th largest falls; k is from 1 to their sum."""
    b, above = BINS - 1, counts[BINS - 1]
    while above < k and b > 0:
        b -= 1
        above += counts[b]
    return b


@kernel("void(V, b1, V, i8, i8, u4[::1], u4[::1], V, i8[::1])")
def pick(x, adds, residual, lower, last, candidates, indices, values, found):
    """Take the elements with magnitude bits above ``last``, and collect those from ``lower`` to ``last``.

    x, adds : whether ``residual += x`` comes first
    residual : (n,), with 0 where an element was taken
    candidates : uint32 (n,), filled with the indices of those collected, ascending
    indices, values : (k,)
        Of those taken, of which there must be no more.
    found : int64 (2,), filled with how many were taken and collected
    """
    taken = collected = 0
    for begin in range(0, residual.size, PASS):
        part, added = residual[begin : begin + PASS], x[begin : begin + PASS]
        if adds:
            for i in range(part.size):
                part[i] += added[i]
        for start in range(0, part.size, GROUP):
            group, first = part[start : start + GROUP], begin + start
            largest = magnitude_bits(as_like(group[0], 0))
            for i in range(group.size):
                bits = magnitude_bits(group[i])
                largest = bits if bits > largest else largest
            if largest < lower:
                continue
            for i in range(group.size):
                bits = magnitude_bits(group[i])
                if bits > last:
                    indices[taken] = first + i
                    values[taken] = group[i]
                    group[i] = 0
                    taken += 1
                elif bits >= lower:
                    candidates[collected] = first + i
                    collected += 1
    found[0], found[1] = taken, collected


@kernel("void(V, u4[::1], i8, i8, i8, i8[::1], u4[::1], V)")
def choose(residual, candidates, count, taken, bits_left, bins, indices, values):
    """Take the largest of ``count`` candidates until ``indices`` is full; of equal ones the first.

    Parameters
    ----------
    residual, candidates, indices, values
        As for ``pick``; candidates are used up.
    taken : int
        Elements in ``indices`` already.
    bits_left : int
        Bits of the magnitudes, from the lowest, in which candidates may differ.
    bins : int64, (BINS,)
        Scratch.
    """
    wanted = indices.size - taken
    while wanted > 0 and bits_left > 0 and count > wanted:
        shift = max(bits_left - BIN_BITS, 0)
        mask = (1 << (bits_left - shift)) - 1
        bins[:] = 0
        for c in range(count):
            bins[magnitude_bits(residual[candidates[c]]) >> shift & mask] += 1
        b, above = mask, bins[mask]
        while above < wanted:
            b -= 1
            above += bins[b]
        kept = 0
        for c in range(count):
            index = candidates[c]
            digit = magnitude_bits(residual[index]) >> shift & mask
            if digit > b:
                indices[taken] = index
                values[taken] = residual[index]
                residual[index] = 0
                taken += 1
            elif digit == b:
                candidates[kept] = index
                kept += 1
        count, bits_left, wanted = kept, shift, indices.size - taken
    for c in range(min(count, wanted)):
        index = candidates[c]
        indices[taken] = index
        values[taken] = residual[index]
        residual[index] = 0
        taken += 1
    for rest in range(taken, indices.size):
        indices[rest] = 0
        values[rest] = 0


@kernel("void(V, V, i8, i8, V)")
def sample(x, residual, first, stride, out):
    """Element ``first + stride i`` of ``x + residual``, for every i of ``out``."""
    for i in range(out.size):
        out[i] = x[first + stride * i] + residual[first + stride * i]


@kernel("i8(V, i8, i8[::1])")
def kth_bits(vector, k, bins):
    """Lowest magnitude bits from which on at least k elements lie, exact to BIN_BITS bits: those of a bin's lower edge."""
    shift = 8 * vector.itemsize - 1 - BIN_BITS
    bins[:] = 0
    for i in range(vector.size):
        bins[magnitude_bits(vector[i]) >> shift] += 1
    return threshold_bin(bins, k) << shift


@kernel("void(u4[::1], V, V)")
def scatter_add(indices, values, out):
    """``out[indices] += values``, one after the other; shapes (k,), (k,), (n,)."""
    for j in range(indices.size):
        out[indices[j]] += values[j]
