"""Numba kernel of rotary positions. Conventions as in dense_kernels.py."""

from lepton_mpi.kernels.compiling import kernel


@kernel("void(M, M, M, i8, i8, i8, F, M)")
def rotate(x, cosines, sines, first, length, heads, sign, out):
    """Turn pairs (j, j + half) of the first ``heads`` heads by the angle of their position, times ``sign``; copy what is behind.

    ``out_j = x_j cos - sign x_(j+half) sin``, ``out_(j+half) = x_(j+half) cos + sign x_j sin``; row i has position
    ``first + i % length``. Shapes: x, out (rows * length, k), cosines, sines (positions, half); out may be x.
    """
    half = cosines.shape[1]
    for i in range(x.shape[0]):
        source, row, position = x[i], out[i], first + i % length
        cosine, sine = cosines[position], sines[position]
        for h in range(heads):
            at = 2 * half * h
            a, b = source[at : at + half], source[at + half : at + 2 * half]
            c, d = row[at : at + half], row[at + half : at + 2 * half]
            for j in range(half):
                left, right, turn = a[j], b[j], sign * sine[j]
                c[j] = left * cosine[j] - right * turn
                d[j] = right * cosine[j] + left * turn
        for j in range(2 * half * heads, row.size):
            row[j] = source[j]
