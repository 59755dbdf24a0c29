"""Numba kernels of the models. Those of the loss have explicit signatures: importing this module compiles, or loads, them.
Layers are compiled where they are used, in dense_stack_kernels.py.

Matrices are C-contiguous, ``rows`` counts the batch, and ``out`` or what is filled comes last. Matrix products are
those of ``product_kernels.py``, or with ``threaded`` those of BLAS, which has threads, and whose bits depend on the
processor. The rows of a batch are rows ``places``, int64 (rows,), of ``inputs``, which BLAS cannot do: ``threaded``,
they must be all of them. A literal 0 beside a float32 would turn a loop to float64, hence ``dtype.type(0)``. Each
kernel, or what layers make of several, has a NumPy twin in ``tests/reference.py``.
"""

import numpy as np

from lepton_mpi.kernels.compiling import inlined, inner
from lepton_mpi.kernels.product_kernels import product, product_left, product_right

# Numbers that are worked on in turn, while they are in the nearest cache.
_TOGETHER = 2048
_ZERO = np.float32(0)


@inlined
def multiply(inputs, places, weight, threaded, out):
    """``out = inputs[places] @ weight``. Shapes (any, m), (rows,), (m, k), bool, (rows, k)."""
    if threaded:
        np.dot(inputs, weight, out)
    else:
        product(inputs, places, weight, out)


@inlined
def multiply_left(inputs, places, grad_output, threaded, grad_weight, first, stop):
    """Rows [first, stop), or ``threaded`` all, of ``grad_weight = inputs[places].T @ grad_output``.

    Shapes (any, m), (rows,), (rows, k), bool, (m, k).
    """
    if threaded:
        np.dot(inputs.T, grad_output, grad_weight)
    else:
        product_left(inputs, places, grad_output, grad_weight, first, stop)


@inlined
def multiply_right(grad_output, weight, threaded, numbers, scratch, grad_input):
    """``grad_input = grad_output @ weight.T``. Shapes (rows, k), (m, k), bool, and as in ``product_right``, (rows, m)."""
    if threaded:
        np.dot(grad_output, weight.T, grad_input)
    else:
        product_right(grad_output, numbers, weight, scratch, grad_input)


@inner
def add_bias(bias, out):
    """``out += bias`` for every row. Shapes (k,), (rows, k)."""
    for i in range(out.shape[0]):
        row = out[i]
        for j in range(row.size):
            row[j] += bias[j]


@inner
def add_bias_relu(bias, out):
    """``out = max(out + bias, 0)``. Shapes as in ``add_bias``."""
    zero = out.dtype.type(0)
    for i in range(out.shape[0]):
        row = out[i]
        for j in range(row.size):
            row[j] = max(row[j] + bias[j], zero)


@inner
def sum_rows(grad_output, grad_bias):
    """``grad_bias`` is the sum of the rows. Shapes (rows, k), (k,)."""
    grad_bias[:] = 0
    for i in range(grad_output.shape[0]):
        row = grad_output[i]
        for j in range(row.size):
            grad_bias[j] += row[j]


@inner
def relu_backward(activations, grad):
    """``grad = grad where activations > 0, else 0``; they are what a ReLU gave. Shapes (rows, k)."""
    zero = grad.dtype.type(0)
    for i in range(grad.shape[0]):
        row, active = grad[i], activations[i]
        for j in range(row.size):
            row[j] = row[j] if active[j] > zero else zero
