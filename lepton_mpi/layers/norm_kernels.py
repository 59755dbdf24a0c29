"""Numba kernels of normalisation over the last dimension. Sums of a row are those of ``row_kernels.py``: vectors of lanes."""

import math

from lepton_mpi.kernels.compiling import inner, kernel
from lepton_mpi.kernels.intrinsics import base_address
from lepton_mpi.kernels.row_kernels import dot_rows


@inner
def _dot(a, b, place, total):
    """``total[0] = a @ b``; ``place`` holds a 0. Shapes (k,), (k,), (1,), (1,)."""
    row_bytes = a.size * a.itemsize
    at_a, at_place = base_address(a), base_address(place)
    dot_rows(a, 1, at_a, at_place, row_bytes, base_address(b), a.size, base_address(total))
    return total[0]


@kernel("void(M, V, V, f8, b1, i8[::1], V, V, M, M)")
def normalise(x, weight, bias, epsilon, centred, place, one, total, stats, out):
    """``out = (x - mean) / sqrt(mean of (x - mean)**2 + epsilon) * weight + bias``; the mean is 0 unless ``centred``.

    ``stats`` keep mean and 1 / sqrt of each row. Shapes: x, out (rows, k), weight (k,), bias (k,) or (0,), stats (rows, 2); scratch
    place int64 (1,), one (k,), total (1,).
    """
    place[0] = 0
    one[:] = 1
    size = weight.size
    for i in range(x.shape[0]):
        source, row = x[i], out[i]
        mean = row.dtype.type(0)
        if centred:
            mean = row.dtype.type(_dot(source, one, place, total) / size)
        for j in range(size):
            row[j] = source[j] - mean
        square = _dot(row, row, place, total) / size
        factor = row.dtype.type(1 / math.sqrt(square + epsilon))
        if centred:
            for j in range(size):
                row[j] = row[j] * factor * weight[j] + bias[j]
        else:
            for j in range(size):
                row[j] = row[j] * factor * weight[j]
        stats[i, 0], stats[i, 1] = mean, factor


@kernel("void(M, M, V, b1, M, i8[::1], V, M, V, V, M)")
def normalise_gradient(
    x, grad_out, weight, centred, stats, place, total, work, grad_weight, grad_bias, grad_x
):
    """The gradients, with ``h = (x - mean) * factor`` and ``g = grad_out * weight``::

        grad_x = factor (g - mean of g - h * mean of g h)    grad_weight = sum of grad_out * h    grad_bias = sum of grad_out

    without the mean of g unless ``centred``. Shapes as in ``normalise``; work (3, k), scratch; grad_x (rows, k), or (0, k) if
    nobody wants it.
    """
    place[0] = 0
    h, g, one = work[0], work[1], work[2]
    one[:] = 1
    grad_weight[:] = 0
    grad_bias[:] = 0
    size = weight.size
    for i in range(x.shape[0]):
        source, slope, mean, factor = x[i], grad_out[i], stats[i, 0], stats[i, 1]
        for j in range(size):
            h[j] = (source[j] - mean) * factor
            g[j] = slope[j] * weight[j]
            grad_weight[j] += slope[j] * h[j]
        if centred:
            for j in range(size):
                grad_bias[j] += slope[j]
        if grad_x.shape[0] == 0:
            continue
        along = g.dtype.type(_dot(g, h, place, total) / size)
        shift = g.dtype.type(0)
        if centred:
            shift = g.dtype.type(_dot(g, one, place, total) / size)
        row = grad_x[i]
        for j in range(size):
            row[j] = factor * ((g[j] - shift) - h[j] * along)
