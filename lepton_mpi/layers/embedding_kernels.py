"""Numba kernels of tables that are read by codes, and of one that is added to all rows. Conventions as in dense_kernels.py."""

from lepton_mpi.kernels.compiling import kernel


@kernel("void(i4[:,::1], i8[::1], M, M)")
def look_up(codes, offsets, weight, out):
    """``out[i * c + j] = weight[codes[i, j] + offsets[j]]``. Shapes (n, c), (c,), (values, width), (n * c, width)."""
    count, columns = codes.shape
    for i in range(count):
        for j in range(columns):
            source, row = weight[codes[i, j] + offsets[j]], out[i * columns + j]
            for k in range(row.size):
                row[k] = source[k]


@kernel("i8(i4[:,::1], i8[::1], M, b1[::1], M)")
def look_up_gradient(codes, offsets, grad_out, is_met, grad_weight):
    """The sum of ``grad_out``'s rows for each code, in their order, 0 for codes that are not there. Shapes as in ``look_up``.

    Returns how many rows of ``grad_weight`` are met; ``is_met``, shape (values,), says which.
    """
    grad_weight[:] = 0
    is_met[:] = False
    count, columns = codes.shape
    met = 0
    for i in range(count):
        for j in range(columns):
            code = codes[i, j] + offsets[j]
            met += not is_met[code]
            is_met[code] = True
            row, total = grad_out[i * columns + j], grad_weight[code]
            for k in range(row.size):
                total[k] += row[k]
    return met


@kernel("void(M, V, M)")
def add_to_rows(x, table, out):
    """``out = x + table`` for each row. Shapes (rows, k), (k or more,), (rows, k)."""
    for i in range(x.shape[0]):
        source, row = x[i], out[i]
        for j in range(row.size):
            row[j] = source[j] + table[j]


@kernel("void(M, V)")
def sum_of_rows(x, out):
    """The sum of the rows, in their order, and 0 behind it. Shapes (rows, k), (k or more,)."""
    out[:] = 0
    for i in range(x.shape[0]):
        row = x[i]
        for j in range(row.size):
            out[j] += row[j]
