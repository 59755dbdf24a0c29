"""Numba kernels of normalisation by channel: statistics, the normalised numbers, and the gradients, for batches or groups.

Channels are few, and vectors long: numbers lie side by side in strips of several places, C channels each, and what belongs to
a channel is repeated over a strip, in rows of ``wide``. So loops are long whatever C is. A strip's sums are added in the
run's type over 64 strips, and then in float64. NumPy twins: ``tests/reference_layers.py``.

In all of them x, grad_out, out and grad_x are flat, (places * C,), or a row of it for each image; ``with_relu`` says that a
ReLU follows, whose gradient is masked by the output computed again.
"""

import numpy as np

from lepton_mpi.kernels.compiling import inner, kernel

# Rows of ``wide``.
WIDE_ROWS = 5
_STRIPS = 64


@inner
def _repeat(values, wide):
    """One row of ``wide`` from a number of each channel."""
    for start in range(0, wide.size, values.size):
        wide[start : start + values.size] = values


@inner
def _fold(sums, total):
    """Add a strip's sums to float64 totals of the channels, and make them 0."""
    for start in range(0, sums.size, total.size):
        for c in range(total.size):
            total[c] += sums[start + c]
    sums[:] = 0


@inner
def _add_up(x, wide, totals):
    """``totals`` = sums of ``x - wide[0]`` and of its squares, by channel. Rows 1 and 2 of ``wide`` are scratch."""
    center, sums, squares = wide[0], wide[1], wide[2]
    width = center.size
    totals[:], sums[:], squares[:] = 0, 0, 0
    for chunk in range(0, x.size, _STRIPS * width):
        for start in range(chunk, min(chunk + _STRIPS * width, x.size), width):
            strip = x[start : start + width]
            for j in range(strip.size):
                distance = strip[j] - center[j]
                sums[j] += distance
                squares[j] += distance * distance
        _fold(sums, totals[0])
        _fold(squares, totals[1])


@inner
def _normalise(x, wide, with_relu, out):
    """``out = (x - wide[0]) * wide[1] + wide[2]``, or where that is negative 0."""
    center, scale, bias = wide[0], wide[1], wide[2]
    width, zero = center.size, x.dtype.type(0)
    for start in range(0, x.size, width):
        strip, result = x[start : start + width], out[start : start + width]
        if with_relu:
            for j in range(strip.size):
                value = (strip[j] - center[j]) * scale[j] + bias[j]
                result[j] = zero if value < zero else value
        else:
            for j in range(strip.size):
                result[j] = (strip[j] - center[j]) * scale[j] + bias[j]


@inner
def _add_up_gradient(x, grad_out, wide, with_relu, totals):
    """``totals`` = sums of the gradient behind the ReLU, and of it times ``x - wide[0]``; rows 3 and 4 are scratch."""
    center, scale, bias, sums, products = wide[0], wide[1], wide[2], wide[3], wide[4]
    width, zero = center.size, x.dtype.type(0)
    totals[:], sums[:], products[:] = 0, 0, 0
    for chunk in range(0, x.size, _STRIPS * width):
        for start in range(chunk, min(chunk + _STRIPS * width, x.size), width):
            strip, slopes = x[start : start + width], grad_out[start : start + width]
            if with_relu:
                for j in range(strip.size):
                    distance = strip[j] - center[j]
                    slope = slopes[j] if distance * scale[j] + bias[j] > zero else zero
                    sums[j] += slope
                    products[j] += slope * distance
            else:
                for j in range(strip.size):
                    sums[j] += slopes[j]
                    products[j] += slopes[j] * (strip[j] - center[j])
        _fold(sums, totals[0])
        _fold(products, totals[1])


@inner
def _gradient(x, grad_out, wide, with_relu, grad_x):
    """``grad_x = wide[1] * slope - wide[3] - wide[4] * (x - wide[0])``."""
    center, scale, bias, constant, factor = wide[0], wide[1], wide[2], wide[3], wide[4]
    width, zero = center.size, x.dtype.type(0)
    for start in range(0, x.size, width):
        strip, slopes = x[start : start + width], grad_out[start : start + width]
        result = grad_x[start : start + width]
        if with_relu:
            for j in range(strip.size):
                distance = strip[j] - center[j]
                slope = slopes[j] if distance * scale[j] + bias[j] > zero else zero
                result[j] = scale[j] * slope - constant[j] - factor[j] * distance
        else:
            for j in range(strip.size):
                distance = strip[j] - center[j]
                result[j] = scale[j] * slopes[j] - constant[j] - factor[j] * distance


@kernel("void(V, M, f8[:,::1], M)")
def batch_statistics(x, wide, totals, statistics):
    """``statistics`` = mean and variance of each channel; zeros without places.

    In one pass, as distances from the first place, so that nothing is lost where a mean is far from 0. Shapes (places * C,),
    (WIDE_ROWS, strip) scratch, (2, C) scratch, (2, C).
    """
    channels = totals.shape[1]
    statistics[:] = 0
    if x.size == 0:
        return
    _repeat(x[:channels], wide[0])
    _add_up(x, wide, totals)
    count = x.size // channels
    for c in range(channels):
        mean = totals[0, c] / count
        statistics[0, c] = x[c] + mean
        statistics[1, c] = max(totals[1, c] / count - mean * mean, 0.0)


@kernel("void(V, M, f8[:,::1], f8[:,::1])")
def batch_moments(x, wide, totals, moments):
    """``moments`` = mean of each channel, and sum of the squares of distances from it, float64; zeros without places.

    Shapes as in ``batch_statistics``, (2, C).
    """
    channels = totals.shape[1]
    moments[:] = 0
    if x.size == 0:
        return
    _repeat(x[:channels], wide[0])
    _add_up(x, wide, totals)
    count = x.size // channels
    for c in range(channels):
        moments[0, c] = x[c] + totals[0, c] / count
        moments[1, c] = max(totals[1, c] - totals[0, c] * totals[0, c] / count, 0.0)


@inner
def _of_batch(statistics, weight, bias, epsilon, wide):
    """Rows 0 to 2 of ``wide``."""
    _repeat(statistics[0], wide[0])
    _repeat(bias, wide[2])
    for c in range(weight.size):
        wide[1, c] = weight[c] / np.sqrt(statistics[1, c] + epsilon)
    _repeat(wide[1, : weight.size], wide[1])


@kernel("void(V, M, V, V, F, b1, M, V)")
def normalise(x, statistics, weight, bias, epsilon, with_relu, wide, out):
    """``out = (x - mean) / sqrt(variance + epsilon) * weight + bias``, and ReLU of it.

    Shapes (places * C,), (2, C), (C,), (C,), number, bool, (WIDE_ROWS, strip) scratch, (places * C,).
    """
    _of_batch(statistics, weight, bias, epsilon, wide)
    _normalise(x, wide, with_relu, out)


@kernel("void(V, M, V, V, F, b1, M, f8[:,::1], V, V, V, V)")
def batch_norm_gradient(
    x, statistics, weight, bias, epsilon, with_relu, wide, totals, grad_out, grad_weight, grad_bias, grad_x
):  # fmt: skip
    """Gradients of ``normalise`` with the statistics of x itself; ``grad_x`` may be empty, and is then not filled.

    Shapes as there; (2, C) scratch, (places * C,), (C,), (C,), (places * C,).
    """
    channels, count = weight.size, max(1, x.size // weight.size)
    _of_batch(statistics, weight, bias, epsilon, wide)
    _add_up_gradient(x, grad_out, wide, with_relu, totals)
    for c in range(channels):
        inverse = 1 / np.sqrt(statistics[1, c] + epsilon)
        grad_bias[c] = totals[0, c]
        grad_weight[c] = totals[1, c] * inverse
        wide[3, c] = weight[c] * inverse * (totals[0, c] / count)
        wide[4, c] = weight[c] * inverse * inverse * inverse * (totals[1, c] / count)
    if grad_x.size > 0:
        _repeat(wide[3, :channels], wide[3])
        _repeat(wide[4, :channels], wide[4])
        _gradient(x, grad_out, wide, with_relu, grad_x)


@kernel("void(V, M, V, V, F, b1, M, f8[:,::1], V, V, V, V)")
def normalise_gradient(
    x, statistics, weight, bias, epsilon, with_relu, wide, totals, grad_out, grad_weight, grad_bias, grad_x
):  # fmt: skip
    """Gradients of ``normalise`` with statistics that do not depend on x; otherwise as ``batch_norm_gradient``."""
    channels = weight.size
    _of_batch(statistics, weight, bias, epsilon, wide)
    _add_up_gradient(x, grad_out, wide, with_relu, totals)
    for c in range(channels):
        grad_bias[c] = totals[0, c]
        grad_weight[c] = totals[1, c] / np.sqrt(statistics[1, c] + epsilon)
    if grad_x.size > 0:
        wide[3, :] = 0
        wide[4, :] = 0
        _gradient(x, grad_out, wide, with_relu, grad_x)


@kernel("void(V, M, V, V, F, b1, M, V, f8[:,::1])")
def gradient_sums(x, statistics, weight, bias, epsilon, with_relu, wide, grad_out, totals):
    """``totals`` = sums of the gradient behind ``normalise``, and of it times ``x - mean``. Shapes as there, (places * C,), (2, C)."""
    _of_batch(statistics, weight, bias, epsilon, wide)
    _add_up_gradient(x, grad_out, wide, with_relu, totals)


@kernel("void(V, M, V, V, F, b1, f8[:,::1], M, V, V)")
def gradient_by(x, statistics, weight, bias, epsilon, with_relu, means, wide, grad_out, grad_x):
    """``grad_x`` of ``normalise``, if the statistics are those of places of which x has a part.

    ``means``, (2, C), are what ``gradient_sums`` gives for all of these places, divided by their number. Other shapes as there.
    """
    channels = weight.size
    _of_batch(statistics, weight, bias, epsilon, wide)
    for c in range(channels):
        inverse = 1 / np.sqrt(statistics[1, c] + epsilon)
        wide[3, c] = weight[c] * inverse * means[0, c]
        wide[4, c] = weight[c] * inverse * inverse * inverse * means[1, c]
    _repeat(wide[3, :channels], wide[3])
    _repeat(wide[4, :channels], wide[4])
    _gradient(x, grad_out, wide, with_relu, grad_x)


@inner
def _of_image(statistics, groups, weight, bias, epsilon, wide):
    """Rows 0 to 2 of ``wide`` for one image, from the mean and the variance of its groups."""
    channels = weight.size
    for c in range(channels):
        g = c // (channels // groups)
        wide[0, c] = statistics[2 * g]
        wide[1, c] = weight[c] / np.sqrt(statistics[2 * g + 1] + epsilon)
    _repeat(wide[0, :channels], wide[0])
    _repeat(wide[1, :channels], wide[1])
    _repeat(bias, wide[2])


@kernel("void(M, V, V, F, b1, M, f8[:,::1], M, M)")
def group_norm(x, weight, bias, epsilon, with_relu, wide, totals, statistics, out):
    """Each image by mean and variance of its groups of channels: ``statistics``, one after the other, group by group.

    In two passes over an image, which stays in the cache. Shapes (rows, places * C), (C,), (C,), number, bool, (WIDE_ROWS, strip)
    scratch, (2, C) scratch, (rows, 2 * groups), (rows, places * C).
    """
    channels, groups = weight.size, statistics.shape[1] // 2
    each = channels // groups
    for i in range(x.shape[0]):
        count = x.shape[1] // groups
        wide[0, :] = x[i, 0]
        _add_up(x[i], wide, totals)
        for g in range(groups):
            mean = totals[0, g * each : (g + 1) * each].sum() / count + x[i, 0]
            statistics[i, 2 * g] = mean
            wide[0, g * each : (g + 1) * each] = mean
        _repeat(wide[0, :channels], wide[0])
        _add_up(x[i], wide, totals)
        for g in range(groups):
            rest = totals[0, g * each : (g + 1) * each].sum() / count
            square = totals[1, g * each : (g + 1) * each].sum() / count
            statistics[i, 2 * g + 1] = max(square - rest * rest, 0.0)
        _of_image(statistics[i], groups, weight, bias, epsilon, wide)
        _normalise(x[i], wide, with_relu, out[i])


@kernel("void(M, M, V, V, F, b1, M, f8[:,::1], M, V, V, M)")
def group_norm_gradient(
    x, statistics, weight, bias, epsilon, with_relu, wide, totals, grad_out, grad_weight, grad_bias, grad_x
):  # fmt: skip
    """Gradients of ``group_norm``; ``grad_x`` may have no rows, and is then not filled. Shapes as there."""
    channels, groups = weight.size, statistics.shape[1] // 2
    each, count = channels // groups, max(1, x.shape[1] // groups)
    grad_weight[:] = 0
    grad_bias[:] = 0
    for i in range(x.shape[0]):
        _of_image(statistics[i], groups, weight, bias, epsilon, wide)
        _add_up_gradient(x[i], grad_out[i], wide, with_relu, totals)
        for g in range(groups):
            inverse = 1 / np.sqrt(statistics[i, 2 * g + 1] + epsilon)
            first, second = 0.0, 0.0
            for c in range(g * each, (g + 1) * each):
                grad_bias[c] += totals[0, c]
                grad_weight[c] += totals[1, c] * inverse
                first += weight[c] * totals[0, c]
                second += weight[c] * totals[1, c]
            wide[3, g * each : (g + 1) * each] = inverse * (first / count)
            wide[4, g * each : (g + 1) * each] = inverse * inverse * inverse * (second / count)
        if grad_x.shape[0] > 0:
            _repeat(wide[3, :channels], wide[3])
            _repeat(wide[4, :channels], wide[4])
            _gradient(x[i], grad_out[i], wide, with_relu, grad_x[i])
