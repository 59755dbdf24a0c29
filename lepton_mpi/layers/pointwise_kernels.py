"""Numba kernels of layers that work element by element. Conventions as in dense_kernels.py; outputs may be inputs."""

import numpy as np

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.counter_random_kernels import chain, number
from lepton_mpi.layers.activation_kernels import DROPOUT_LEVELS, activate


@kernel("void(V, V)")
def relu(x, out):
    """``out = max(x, 0)``; NaN stays NaN. Shapes (count,)."""
    zero = out.dtype.type(0)
    for j in range(out.size):
        out[j] = zero if x[j] < zero else x[j]


@kernel("void(i8, V, V, V, V)")
def activation(kind, zeros, x, out, slope):
    """``out = f(x)``, ``slope = f'(x)``, ``kind`` one of ``activation_kernels.KINDS``. Shapes (count,).

    ``zeros`` are so many elements as are worked on at a time, all 0.
    """
    for first in range(0, x.size, zeros.size):
        stop = min(first + zeros.size, x.size)
        part = out[first:stop]
        part[:] = x[first:stop]
        activate(kind, zeros[: stop - first], part, slope[first:stop])


@kernel("void(V, V, V)")
def multiply(a, b, out):
    """``out = a * b``. Shapes (count,)."""
    for j in range(out.size):
        out[j] = a[j] * b[j]


@kernel("void(i8, i8, i8[::1], i8, u8[::1], M, M)")
def dropout(draw, layer, rows, dropped, numbers, x, out):
    """``out = x`` with elements of each row set to 0 and the others enlarged, as ``activation_kernels.drop`` does.

    Row i goes by a key of ``draw``, ``layer`` and ``rows[i]``. Shapes (rows,), (k / UNITS_PER_NUMBER rounded up,) scratch,
    (rows, k), (rows, k).
    """
    layer_key = chain(np.uint64(draw), np.uint64(layer))
    kept = out.dtype.type(DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped))
    zero = out.dtype.type(0)
    parts = numbers.view(np.uint16)
    for i in range(out.shape[0]):
        key = chain(layer_key, np.uint64(rows[i]))
        for g in range(numbers.size):
            numbers[g] = number(key, np.uint64(g))
        source, row = x[i], out[i]
        for j in range(row.size):
            row[j] = source[j] * (kept if parts[j] >= dropped else zero)
