"""Numba kernels of the last product of a language model with its loss, in blocks of positions.

The logits of a block lie transposed, values x positions: so the softmax runs down columns in vectors of positions, the weight is multiplied
as it lies, and a gradient of many values needs no transposed copy. Conventions as in dense_kernels.py.
"""

import math

import numpy as np

from lepton_mpi.kernels.compiling import inner, kernel
from lepton_mpi.kernels.elementary_kernels import exp
from lepton_mpi.kernels.intrinsics import base_address
from lepton_mpi.kernels.product_kernels import panel, product, product_left
from lepton_mpi.kernels.tile_kernels import VECTOR_BYTES, VECTORS
from lepton_mpi.kernels.transpose_kernels import transpose

# Logits of a block: 256 KiB in float32, half of a second-level cache; and its positions, of which a product is one chain.
_LOGITS, _POSITIONS_MIN, _POSITIONS_MAX = 1 << 16, 64, 512
# Exponentials that are summed before their sum is added: so roundings do not grow with the number of values.
_TOGETHER = 512
_ZERO = np.float32(0)


def block_positions(count: int, values: int) -> int:
    """Positions of a block, of ``count`` in all."""
    fitting = min(max(_LOGITS // max(values, 1), _POSITIONS_MIN), _POSITIONS_MAX)
    return max(1, min(count, fitting))


@inner
def _logits(x, weight, numbers, turned, logits):
    """``logits = weight @ x.T``. Shapes (n, width), (values, width), …, (width * n or more,), (values, n)."""
    n, width = x.shape
    x_turned = turned[: width * n].reshape(width, n)
    transpose(x, x_turned)
    product(weight, numbers[: weight.shape[0]], x_turned, logits)


@inner
def _count(numbers):
    for i in range(numbers.size):
        numbers[i] = i


@inner
def _softmax(logits, work):
    """Exponentials in place of logits; ``work``, (4, n), gets maximum, sum, and in its third row the value of the maximum."""
    highest, total, top, part = work[0], work[1], work[2], work[3]
    highest[:] = -np.inf
    total[:] = 0
    top[:] = 0
    for j in range(logits.shape[0]):
        row, number = logits[j], logits.dtype.type(j)
        for i in range(row.size):
            top[i] = number if row[i] > highest[i] else top[i]
            highest[i] = highest[i] if row[i] <= highest[i] else row[i]
    for first in range(0, logits.shape[0], _TOGETHER):
        part[:] = 0
        for j in range(first, min(first + _TOGETHER, logits.shape[0])):
            row = logits[j]
            for i in range(row.size):
                row[i] = exp(row[i] - highest[i], _ZERO)
                part[i] += row[i]
        for i in range(part.size):
            total[i] += part[i]


@inner
def _add_product(a, numbers, b, is_first, out):
    """``out = a @ b``, or ``out += …``, of at most _POSITIONS_MAX columns of ``a``."""
    size, width = a.itemsize, VECTORS * VECTOR_BYTES // a.itemsize
    n = b.shape[1]
    for column in range(0, n, width):
        at, at_b = base_address(out) + column * size, base_address(b) + column * size
        panel(
            *(a, a.shape[0], min(width, n - column), at, n * size, base_address(a)),
            *(base_address(numbers), a.shape[1] * size, at_b, n * size, b.shape[0]),
            *(is_first, False),
        )


@kernel("UniTuple(f8, 2)(M, i4[::1], M, i8[::1], V, V, V, M, M)")
def loss_and_gradient(x, targets, weight, numbers, turned, memory, work, grad_weight, grad_x):
    """The summed ``log(sum_j exp(z_j)) - z_target``, ``z = weight @ x``, and how often z is highest at the target.

    A target below 0 does not count: its loss and gradient are 0. Shapes: x, grad_x (n, width), targets (n,), weight, grad_weight
    (values, width); scratch: with b positions of a block numbers (the larger of values and b,), turned (width * b,),
    memory (values * b,), work (5 * b,).
    """
    _count(numbers)
    loss, correct, count, values = 0.0, 0.0, x.shape[0], weight.shape[0]
    together = memory.size // values
    if count == 0:
        grad_weight[:] = 0
    for first in range(0, count, together):
        n = min(together, count - first)
        part, labels = x[first : first + n], targets[first : first + n]
        logits = memory[: values * n].reshape(values, n)
        ends, own = work[: 4 * n].reshape(4, n), work[4 * n : 5 * n]
        _logits(part, weight, numbers, turned, logits)
        for i in range(n):
            own[i] = logits[max(labels[i], 0), i]
        _softmax(logits, ends)
        for i in range(n):
            if labels[i] < 0:
                ends[1, i] = 0
                continue
            loss += math.log(ends[1, i]) + (ends[0, i] - own[i])
            correct += ends[2, i] == labels[i]
            ends[1, i] = logits.dtype.type(1) / ends[1, i]
        for j in range(values):
            row = logits[j]
            for i in range(n):
                row[i] *= ends[1, i]
        for i in range(n):
            if labels[i] >= 0:
                logits[labels[i], i] -= logits.dtype.type(1)
        _add_product(logits, numbers, part, first == 0, grad_weight)
        product_left(logits, numbers[:values], weight, grad_x[first : first + n], 0, n)
    return loss, correct


@kernel("f8(M, i4[::1], M, i8[::1], V, V, V, i4[::1])")
def predict_tokens(x, targets, weight, numbers, turned, memory, work, predicted):
    """The same summed loss; ``predicted``, (n,), gets the likeliest value of each position."""
    _count(numbers)
    loss, count, values = 0.0, x.shape[0], weight.shape[0]
    together = memory.size // values
    for first in range(0, count, together):
        n = min(together, count - first)
        labels, logits = targets[first : first + n], memory[: values * n].reshape(values, n)
        ends, own = work[: 4 * n].reshape(4, n), work[4 * n : 5 * n]
        _logits(x[first : first + n], weight, numbers, turned, logits)
        for i in range(n):
            own[i] = logits[max(labels[i], 0), i]
        _softmax(logits, ends)
        for i in range(n):
            predicted[first + i] = np.int32(ends[2, i])
            if labels[i] >= 0:
                loss += math.log(ends[1, i]) + (ends[0, i] - own[i])
    return loss


@kernel("void(M, M, i8[::1], V, V, V, M)")
def token_probabilities(x, weight, numbers, turned, memory, work, out):
    """``out = softmax(x @ weight.T)``, shape (n, values); the others as in ``loss_and_gradient``."""
    _count(numbers)
    count, values = out.shape
    together = memory.size // values
    for first in range(0, count, together):
        n = min(together, count - first)
        logits, ends = memory[: values * n].reshape(values, n), work[: 4 * n].reshape(4, n)
        _logits(x[first : first + n], weight, numbers, turned, logits)
        _softmax(logits, ends)
        for j in range(values):
            row = logits[j]
            for i in range(n):
                row[i] /= ends[1, i]
        transpose(logits, out[first : first + n])
