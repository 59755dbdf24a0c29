"""Numba kernels of tables of which each belongs to a column of categories. Conventions as in dense_kernels.py."""

from lepton_mpi.kernels.compiling import kernel


@kernel("void(i4[:,::1], i8, M, i8, M)")
def embed_column(codes, column, weight, first, out):
    """``out[i, first : first + width] = weight[codes[i, column]]``. Shapes (n, c), (values, width), (n, any)."""
    stop = first + weight.shape[1]
    for i in range(codes.shape[0]):
        source, row = weight[codes[i, column]], out[i, first:stop]
        for k in range(source.size):
            row[k] = source[k]


@kernel("i8(i4[:,::1], i8, M, i8, b1[::1], M)")
def embed_column_gradient(codes, column, grad_out, first, is_met, grad_weight):
    """For each code the sum of its rows' part of ``grad_out``, in their order. Shapes as in ``embed_column``.

    Returns how many rows of ``grad_weight`` are met; ``is_met``, shape (values,), says which. The others are set to 0 and not
    looked at again.
    """
    grad_weight[:] = 0
    is_met[:] = False
    met, stop = 0, first + grad_weight.shape[1]
    for i in range(codes.shape[0]):
        code = codes[i, column]
        met += not is_met[code]
        is_met[code] = True
        row, total = grad_out[i, first:stop], grad_weight[code]
        for k in range(total.size):
            total[k] += row[k]
    return met
