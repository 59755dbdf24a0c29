"""Matrices of low rank: orthonormal columns, and columns of random numbers."""

from math import sqrt

import numpy as np

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.counter_random_kernels import number

# A column of which no more than this part is left, once the others are taken out of it, is one of roundings.
_DEPENDENT = 1e-12


@kernel("void(M, f8[:,::1])")
def orthonormalise(p, columns):
    """Make the columns of ``p``, (m, r), orthonormal, from the left to the right, or 0 if they depend on those before.

    columns : float64, scratch, (r, m)
    By modified Gram-Schmidt in float64, twice: once is not enough where columns are nearly parallel (Giraud et al., "The loss
    of orthogonality in the Gram-Schmidt orthogonalization process", 2005).
    """
    rows, rank = p.shape
    for c in range(rank):
        for i in range(rows):
            columns[c, i] = p[i, c]
    for c in range(rank):
        column = columns[c]
        before = _norm(column)
        for _ in range(2):
            for other in range(c):
                _take_out(columns[other], column)
        norm = _norm(column)
        # Comparisons with NaN are false: it stays.
        factor = 0.0 if norm <= _DEPENDENT * before else 1.0 / norm
        for i in range(rows):
            column[i] *= factor
            p[i, c] = column[i]


@kernel("f8(f8[::1])")
def _norm(vector):
    total = 0.0
    for i in range(vector.size):
        total += vector[i] * vector[i]
    return sqrt(total)


@kernel("void(f8[::1], f8[::1])")
def _take_out(unit, vector):
    """Subtract from ``vector`` its part along ``unit``."""
    along = 0.0
    for i in range(unit.size):
        along += unit[i] * vector[i]
    for i in range(unit.size):
        vector[i] -= along * unit[i]


@kernel("void(u8, b1, M)")
def draw_columns(key, only_zeros, q):
    """Fill ``q``, (n, r), with uniform numbers from -1 to 1, or with ``only_zeros`` its columns that are 0.

    A column of 0 would stay 0: what is multiplied with it is 0.
    """
    rows, rank = q.shape
    for c in range(rank):
        is_zero = True
        for i in range(rows):
            is_zero &= q[i, c] == 0
        if is_zero or not only_zeros:
            for i in range(rows):
                word = number(key, np.uint64(i * rank + c)) >> np.uint64(11)
                q[i, c] = np.float64(word) * 2.0**-52 - 1.0


@kernel("void(V, V)")
def subtract(approximation, residual):
    """``residual -= approximation``; shape (n,)."""
    for i in range(residual.size):
        residual[i] -= approximation[i]
