"""Numba kernels of a linear layer of categories and crosses. Conventions as in dense_kernels.py."""

import numpy as np

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.counter_random_kernels import mix


@kernel("void(i4[:,::1], i8[::1], i8[:,::1], i8[::1], b1[::1], i8[:,::1])")
def weight_rows(codes, values, members, starts, is_hashed, rows):
    """Which row of the weight each feature of each row of ``codes``, shape (n, c), reads: ``rows``, shape (n, features).

    Feature f is made of the columns ``members[f]``, -1 behind the last, and has the rows from ``starts[f]`` to ``starts[f + 1]``:
    the number whose digits its codes are, of as many values each as ``values`` says, or its hash.
    """
    for i in range(codes.shape[0]):
        for f in range(members.shape[0]):
            number = np.uint64(0)
            for column in members[f]:
                if column < 0:
                    break
                number = number * np.uint64(values[column]) + np.uint64(codes[i, column])
            if is_hashed[f]:
                number = mix(number) % np.uint64(starts[f + 1] - starts[f])
            rows[i, f] = starts[f] + np.int64(number)


@kernel("void(i8[:,::1], M, M)")
def sum_weight_rows(rows, weight, out):
    """``out[i] = sum of weight[rows[i, f]]`` over the features. Shapes (n, features), (weight rows, k), (n, k)."""
    out[:] = 0
    for i in range(rows.shape[0]):
        total = out[i]
        for f in range(rows.shape[1]):
            source = weight[rows[i, f]]
            for k in range(total.size):
                total[k] += source[k]


@kernel("i8(i8[:,::1], M, b1[::1], M)")
def weight_rows_gradient(rows, grad_out, is_met, grad_weight):
    """For each row of the weight the sum of ``grad_out`` where it is read, in the order of the batch. Shapes as above.

    Returns how many rows of ``grad_weight`` are met; ``is_met``, shape (weight rows,), says which. The others are set to 0
    and not looked at again.
    """
    grad_weight[:] = 0
    is_met[:] = False
    met = 0
    for i in range(rows.shape[0]):
        row = grad_out[i]
        for f in range(rows.shape[1]):
            number = rows[i, f]
            met += not is_met[number]
            is_met[number] = True
            total = grad_weight[number]
            for k in range(row.size):
                total[k] += row[k]
    return met
