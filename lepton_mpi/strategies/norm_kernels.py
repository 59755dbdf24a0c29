"""The sum of squares, in one fixed order."""

import numpy as np

from lepton_mpi.kernels.compiling import kernel


@kernel("f8(V)")
def sum_of_squares(vector):
    """Sum over i of ``vector[i]**2`` in float64; shape (n,).

    Eight partial sums, of the elements i with the same i modulo 8: a fixed order that fills a vector register.
    """
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = vector.size // 8 * 8
    for i in range(0, whole, 8):
        eight = vector[i : i + 8]
        a, b, c, d = (
            np.float64(eight[0]),
            np.float64(eight[1]),
            np.float64(eight[2]),
            np.float64(eight[3]),
        )
        e, f, g, h = (
            np.float64(eight[4]),
            np.float64(eight[5]),
            np.float64(eight[6]),
            np.float64(eight[7]),
        )
        s0 += a * a
        s1 += b * b
        s2 += c * c
        s3 += d * d
        s4 += e * e
        s5 += f * f
        s6 += g * g
        s7 += h * h
    rest = 0.0
    for i in range(whole, vector.size):
        rest += np.float64(vector[i]) * np.float64(vector[i])
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)) + rest
