"""Numba kernels of the losses, over the rows of a batch. Conventions as in dense_kernels.py."""

import math

import numpy as np

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.elementary_kernels import exp

# Numbers that are worked on in turn, while they are in the nearest cache.
_TOGETHER = 2048
_ZERO = np.float32(0)


@kernel("UniTuple(f8, 2)(M, i4[::1])")
def softmax_cross_entropy(logits, labels):
    """Replace ``logits`` by the gradient of the summed loss; return (loss sum, correct count).

    ``loss = sum over rows of log(sum_j exp(z_j)) - z_label``, with the row's maximum taken out first, so
    that no exponential overflows and no logarithm sees 0. Gradient: softmax(z) minus one at the label.
    Shapes (rows, classes), (rows,).
    """
    loss, correct = 0.0, 0.0
    count, classes = logits.shape
    together = max(1, _TOGETHER // classes)
    for first in range(0, count, together):
        part = logits[first : first + together]
        for i in range(part.shape[0]):
            row, label = part[i], labels[first + i]
            top, highest = 0, row[0]
            for j in range(1, classes):
                is_higher = row[j] > highest
                top = j if is_higher else top
                highest = row[j] if is_higher else highest
            for j in range(classes):
                row[j] -= highest
            loss -= row[label]
            correct += top == label
        numbers = part.reshape(part.size)
        for k in range(numbers.size):
            numbers[k] = exp(numbers[k], _ZERO)
        for i in range(part.shape[0]):
            row = part[i]
            total = row.dtype.type(0)
            for j in range(classes):
                total += row[j]
            loss += math.log(total)
            share = row.dtype.type(1) / total
            for j in range(classes):
                row[j] *= share
            row[labels[first + i]] -= row.dtype.type(1)
    return loss, correct


@kernel("f8(M, i4[::1], i4[::1])")
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


@kernel("UniTuple(f8, 2)(M, i4[::1], V)")
def weighted_softmax_cross_entropy(logits, labels, weights):
    """``softmax_cross_entropy`` with loss and gradient of a row times the weight of its class; the correct count is that of rows.

    Shapes (rows, classes), (rows,), (classes,).
    """
    loss, correct = 0.0, 0.0
    for i in range(logits.shape[0]):
        row_loss, is_correct = softmax_cross_entropy(logits[i : i + 1], labels[i : i + 1])
        weight = weights[labels[i]]
        loss += weight * row_loss
        correct += is_correct
        for j in range(logits.shape[1]):
            logits[i, j] *= weight
    return loss, correct


@kernel("f8(M, i4[::1], V, i4[::1])")
def weighted_softmax_predict(logits, labels, weights, predicted):
    """``softmax_predict`` with the loss of a row times the weight of its class. Shapes (rows, classes), (rows,), (classes,), (rows,)."""
    loss = 0.0
    for i in range(logits.shape[0]):
        row_loss = softmax_predict(logits[i : i + 1], labels[i : i + 1], predicted[i : i + 1])
        loss += weights[labels[i]] * row_loss
    return loss


WEIGHTED = (weighted_softmax_cross_entropy, weighted_softmax_predict)


@kernel("void(M, M)")
def softmax(logits, out):
    """``out = exp(z_j) / sum_j exp(z_j)`` for each row, the row's maximum taken out first; may be in place.

    Shapes (rows, classes).
    """
    for i in range(logits.shape[0]):
        row, target = logits[i], out[i]
        highest = row[0]
        for j in range(1, row.size):
            highest = max(highest, row[j])
        total = 0.0
        for j in range(row.size):
            target[j] = math.exp(row[j] - highest)
            total += target[j]
        for j in range(row.size):
            target[j] /= total


@kernel("f8(M, M)")
def squared_error(outputs, targets):
    """Replace ``outputs`` by the gradient of the summed loss; return the loss: mean of ``(output - target)**2``.

    Shapes (rows, targets).
    """
    loss = 0.0
    count = targets.shape[1]
    slope = outputs.dtype.type(2.0 / count)
    for i in range(outputs.shape[0]):
        row, wanted = outputs[i], targets[i]
        for j in range(row.size):
            error = row[j] - wanted[j]
            loss += np.float64(error) * np.float64(error)
            row[j] = slope * error
    return loss / count


@kernel("f8(M, M, f8)")
def huber(outputs, targets, delta):
    """The same for ``e**2 / 2`` where the error's size e is at most ``delta``, and ``delta (e - delta / 2)`` elsewhere.

    Source: Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.
    """
    loss = 0.0
    count = targets.shape[1]
    slope, limit = outputs.dtype.type(1.0 / count), outputs.dtype.type(delta)
    for i in range(outputs.shape[0]):
        row, wanted = outputs[i], targets[i]
        for j in range(row.size):
            error = row[j] - wanted[j]
            size = abs(np.float64(error))
            loss += 0.5 * size * size if size <= delta else delta * (size - 0.5 * delta)
            clipped = limit if error > limit else error
            clipped = -limit if error < -limit else clipped
            row[j] = slope * clipped
    return loss / count
