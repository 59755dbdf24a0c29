"""Numba kernels of the losses of regression. Explicit signatures: importing this module compiles, or loads, them.

The loss of a row is the mean over its targets, so that the mean over rows is the mean over all elements, as
the losses of torch and Keras give it.
"""

import numpy as np
from numba import njit

_options = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit([f"f8({t}[:,::1], {t}[:,::1])" for t in ("f4", "f8")], **_options)
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


@njit([f"f8({t}[:,::1], {t}[:,::1], f8)" for t in ("f4", "f8")], **_options)
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
