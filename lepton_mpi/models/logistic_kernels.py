"""Numba kernels of logistic regression, which read rows where they lie. Conventions as in kernels.py."""

import math

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.row_kernels import TOGETHER, dots, weighted_sum

# Every row is read twice, and these bytes of rows after each other: at the second time they are in the second-level
# cache, if a row is not longer.
_BYTES_TOGETHER = 1 << 17


@kernel("UniTuple(f8, 2)(M, i8[::1], V, V, i4[::1], V, V, V, V)")
def logistic_gradient(
    inputs, places, weight, bias, labels, class_weights, difference, grad_weight, grad_bias
):
    """Fill the gradient of the summed binary cross-entropy, each row's times the weight of its class; return (loss sum, correct count).

    With ``z = inputs[places] @ weight + bias`` and ``p = 1 / (1 + exp(-z))``, the loss ``-y log p - (1-y) log(1-p)``
    is ``max(z, 0) - y z + log(1 + exp(-|z|))``, which neither overflows nor takes the logarithm of 0.
    Shapes (any, m), (rows,), (m,), (1,), (rows,), (2,), (rows,) scratch for ``p - y``, (m,), (1,).
    """
    loss, correct = 0.0, 0.0
    grad_bias[0] = 0
    if places.size == 0:
        grad_weight[:] = 0
    row_bytes = max(1, weight.size * weight.itemsize)
    rows = max(TOGETHER, _BYTES_TOGETHER // row_bytes)
    for first in range(0, places.size, rows):
        end = min(first + rows, places.size)
        dots(inputs, places[first:end], weight, difference[first:end])
        for i in range(first, end):
            z = difference[i] + bias[0]
            small = math.exp(-abs(z))
            counts = class_weights[labels[i]]
            loss += (max(z, 0) - labels[i] * z + math.log1p(small)) * counts
            correct += (z > 0) == (labels[i] == 1)
            difference[i] = ((1 if z >= 0 else small) / (1 + small) - labels[i]) * counts
            grad_bias[0] += difference[i]
        weighted_sum(inputs, places[first:end], difference[first:end], first == 0, grad_weight)
    return loss, correct


@kernel("f8(M, i8[::1], V, V, i4[::1], V, V, i4[::1])")
def logistic_predict(inputs, places, weight, bias, labels, class_weights, scratch, predicted):
    """Fill ``predicted`` with ``z > 0``; return the summed loss. Shapes as in ``logistic_gradient``."""
    dots(inputs, places, weight, scratch)
    loss = 0.0
    for i in range(scratch.size):
        z = scratch[i] + bias[0]
        row_loss = max(z, 0) - labels[i] * z + math.log1p(math.exp(-abs(z)))
        loss += row_loss * class_weights[labels[i]]
        predicted[i] = z > 0
    return loss


@kernel("void(M, i8[::1], V, V, V, M)")
def logistic_probabilities(inputs, places, weight, bias, scratch, outputs):
    """Fill ``outputs`` with the probabilities of both classes. Shapes as in ``logistic_gradient``, outputs (rows, 2)."""
    dots(inputs, places, weight, scratch)
    for i in range(scratch.size):
        z = scratch[i] + bias[0]
        small = math.exp(-abs(z))
        likely, unlikely = 1 / (1 + small), small / (1 + small)
        outputs[i, 0] = unlikely if z >= 0 else likely
        outputs[i, 1] = likely if z >= 0 else unlikely
