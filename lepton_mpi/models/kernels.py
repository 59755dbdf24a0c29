"""Numba kernels of the models. Those of the loss have explicit signatures: importing this module compiles, or loads, them.
Layers are compiled where they are used, in mlp_kernels.py.

Matrices are C-contiguous, ``rows`` counts the batch, and ``out`` or what is filled comes last. Matrix products are
those of ``product_kernels.py``, or with ``threaded`` those of BLAS, which has threads, and whose bits depend on the
processor. The rows of a batch are rows ``places``, int64 (rows,), of ``inputs``, which BLAS cannot do: ``threaded``,
they must be all of them. A literal 0 beside a float32 would turn a loop to float64, hence ``dtype.type(0)``. Each
kernel has a NumPy twin in ``tests/reference.py``.
"""

import math

import numpy as np
from numba import njit

from lepton_mpi.models.product_kernels import product, product_left, product_right

_options = {"cache": True, "nogil": True, "error_model": "numpy"}


def signatures(pattern: str) -> list[str]:
    """``pattern`` for float32 and for float64: F is the scalar, V the vector, M the matrix."""
    return [
        pattern.replace("M", f"{kind}[:,::1]").replace("V", f"{kind}[::1]").replace("F", kind)
        for kind in ("f4", "f8")
    ]


@njit(inline="always")
def multiply(inputs, places, weight, threaded, out):
    """``out = inputs[places] @ weight``."""
    if threaded:
        np.dot(inputs, weight, out)
    else:
        product(inputs, places, weight, out)


@njit(inline="always")
def multiply_right(grad_output, weight, threaded, numbers, scratch, grad_input):
    """``grad_input = grad_output @ weight.T``; numbers and scratch as in ``product_right``."""
    if threaded:
        np.dot(grad_output, weight.T, grad_input)
    else:
        product_right(grad_output, numbers, weight, scratch, grad_input)


@njit(**_options)
def dense(inputs, places, weight, bias, threaded, out):
    """``out = inputs[places] @ weight + bias``. Shapes (any, m), (rows,), (m, k), (k,), bool, (rows, k)."""
    multiply(inputs, places, weight, threaded, out)
    for i in range(out.shape[0]):
        row = out[i]
        for j in range(row.size):
            row[j] += bias[j]


@njit(**_options)
def dense_relu(inputs, places, weight, bias, threaded, out):
    """``out = max(inputs[places] @ weight + bias, 0)``. Shapes as in ``dense``."""
    multiply(inputs, places, weight, threaded, out)
    zero = out.dtype.type(0)
    for i in range(out.shape[0]):
        row = out[i]
        for j in range(row.size):
            row[j] = max(row[j] + bias[j], zero)


@njit(**_options)
def dense_gradient(inputs, places, grad_output, threaded, grad_weight, grad_bias):
    """``grad_weight = inputs[places].T @ grad_output``, ``grad_bias = sum of grad_output's rows``.

    Shapes (any, m), (rows,), (rows, k), bool, (m, k), (k,).
    """
    if threaded:
        np.dot(inputs.T, grad_output, grad_weight)
    else:
        product_left(inputs, places, grad_output, grad_weight)
    grad_bias[:] = 0
    for i in range(grad_output.shape[0]):
        row = grad_output[i]
        for j in range(row.size):
            grad_bias[j] += row[j]


@njit(**_options)
def dense_relu_backward(grad_output, weight, activations, threaded, numbers, scratch, grad_input):
    """``grad_input = (grad_output @ weight.T)`` where ``activations > 0``, else 0.

    Shapes (rows, k), (m, k), (rows, m), bool, and as in ``product_right``, (rows, m); ``activations`` are the outputs
    of the ReLU.
    """
    multiply_right(grad_output, weight, threaded, numbers, scratch, grad_input)
    zero = grad_input.dtype.type(0)
    for i in range(grad_input.shape[0]):
        row, active = grad_input[i], activations[i]
        for j in range(row.size):
            row[j] = row[j] if active[j] > zero else zero


@njit(signatures("UniTuple(f8, 2)(M, i4[::1])"), **_options)
def softmax_cross_entropy(logits, labels):
    """Replace ``logits`` by the gradient of the summed loss; return (loss sum, correct count).

    ``loss = sum over rows of log(sum_j exp(z_j)) - z_label``, with the row's maximum taken out first, so
    that no exponential overflows and no logarithm sees 0. Gradient: softmax(z) minus one at the label.
    Shapes (rows, classes), (rows,).
    """
    loss, correct = 0.0, 0.0
    for i in range(logits.shape[0]):
        row = logits[i]
        top = 0
        for j in range(1, row.size):
            if row[j] > row[top]:
                top = j
        highest, at_label = row[top], row[labels[i]]
        total = row.dtype.type(0)
        for j in range(row.size):
            row[j] = math.exp(row[j] - highest)
            total += row[j]
        loss += math.log(total) + (highest - at_label)
        for j in range(row.size):
            row[j] /= total
        row[labels[i]] -= 1
        correct += top == labels[i]
    return loss, correct


@njit(signatures("f8(M, i4[::1], i4[::1])"), **_options)
def softmax_predict(logits, labels, predicted):
    """Fill ``predicted`` with the class of the highest logit; return the summed cross-entropy.

    Shapes (rows, classes), (rows,), (rows,).
    """
    loss = 0.0
    for i in range(logits.shape[0]):
        row = logits[i]
        top = 0
        for j in range(1, row.size):
            if row[j] > row[top]:
                top = j
        total = 0.0
        for j in range(row.size):
            total += math.exp(row[j] - row[top])
        loss += math.log(total) + (row[top] - row[labels[i]])
        predicted[i] = top
    return loss
