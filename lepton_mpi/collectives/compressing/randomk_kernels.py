"""k elements of a vector at places that follow from a key: one at random of each of k runs of nearly equal length."""

import numpy as np

from lepton_mpi.collectives.compressing.bit_kernels import (
    add_and_find_largest,
    infinity_bits,
)
from lepton_mpi.kernels.compiling import inlined, kernel
from lepton_mpi.kernels.counter_random_kernels import number


@inlined
def _place(key, j, k, n):
    """Index number j of k in n elements, all of them int64."""
    start, stop = j * n // k, (j + 1) * n // k
    return start + np.int64(number(key, np.uint64(j)) % np.uint64(stop - start))


@kernel("void(V, V, u8, V)")
def encode(x, residual, key, values):
    """Add ``x`` to ``residual``, and move the chosen elements to ``values``; shapes (n,), (n,), (k,), with 1 <= k <= n.

    If any element is NaN or infinite, all of ``values`` are NaN: what was not chosen would be lost from sight.
    """
    largest = add_and_find_largest(x, residual)
    is_finite = largest < infinity_bits(residual[0])
    for j in range(values.size):
        index = _place(key, j, values.size, residual.size)
        values[j] = residual[index] if is_finite else np.nan
        residual[index] = 0


@kernel("void(V, u8, V)")
def scatter_add(values, key, out):
    """Add ``values``, (k,), to the chosen elements of ``out``, (n,)."""
    for j in range(values.size):
        out[_place(key, j, values.size, out.size)] += values[j]
