"""Numba kernel for exact quantiles."""

from lepton_mpi.kernels.compiling import kernel


@kernel("void(u8[:,::1], u8[:,::1], i8, i8, i8[:,:,::1])")
def count_digits(keys, prefixes, shift, bits, counts):
    """Count how often each digit follows a prefix: ``counts[j, t, d] += 1`` for every key of column j that begins by
    ``prefixes[j, t]`` and whose next ``bits`` bits, those from ``shift`` up, are d.

    Shapes: keys (rows, columns), prefixes (columns, targets), counts (columns, targets, 2**bits).
    """
    mask = (1 << bits) - 1
    for i in range(keys.shape[0]):
        for j in range(keys.shape[1]):
            rest = keys[i, j] >> shift
            before = (rest >> 1) >> (bits - 1)
            for t in range(prefixes.shape[1]):
                if before == prefixes[j, t]:
                    counts[j, t, rest & mask] += 1
