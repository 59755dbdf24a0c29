"""NumPy twins of the kernels of layers over images and sequences, written for reading, not for speed.

As in ``reference.py``: the same arguments, computed in float64, outputs filled in place.
"""

import numpy as np


def convolution(x, weight, window, groups):
    """The formula of ``layers/convolution.py``, tap by tap. Shapes (rows, H, W, C), (kh, kw, C / groups, K) -> (rows, H', W', K)."""
    padded = np.pad(np.asarray(x, float), ((0, 0), *window.padding, (0, 0)))
    height, width = window.out(x.shape[1:3])
    in_group, out_group = weight.shape[2], weight.shape[3] // groups
    out = np.zeros((len(x), height, width, weight.shape[3]))
    for i, j in np.ndindex(*window.size):
        starts = i * window.dilation[0], j * window.dilation[1]
        rows, columns = (
            slice(start, start + (count - 1) * step + 1, step)
            for start, count, step in zip(starts, (height, width), window.stride, strict=True)
        )
        for g in range(groups):
            seen = padded[:, rows, columns, g * in_group : (g + 1) * in_group]
            n = slice(g * out_group, (g + 1) * out_group)
            out[..., n] += seen @ np.asarray(weight[i, j, :, n], float)
    return out


def _framed(x, frame):
    """All images in frames, flat. Shape (images, elements of a frame)."""
    height, width, channels, top, left, frame_height, frame_width, _ = frame
    framed = np.zeros((len(x), frame_height, frame_width, channels))
    seen = x.reshape(len(x), height, width, channels)[:, : frame_height - top, : frame_width - left]
    framed[:, top : top + seen.shape[1], left : left + seen.shape[2]] = seen
    return framed.reshape(len(x), frame_height * frame_width * channels)


def convolve(x, frame, framed, phases, places, targets, shifts, weight, groups, out):
    in_frame, columns = _framed(x, frame), weight.shape[1] // groups
    for first, count, first_shift, depth in phases:
        here = places[first : first + count, None] + shifts[first_shift : first_shift + depth]
        factors = weight[first_shift : first_shift + depth].astype(float)
        for g in range(groups):
            n = np.arange(g * columns, (g + 1) * columns)
            windows = in_frame[:, here + g * (frame[2] // groups)]
            out[:, targets[first : first + count, None] + n] = windows @ factors[:, n]


def weight_gradient(x, frame, framed, places, runs, run, groups, grad_out, grad_weight):
    outputs, in_frame = grad_weight.shape[1], _framed(x, frame)
    places, columns = places[: len(places) // frame[7]], grad_weight.shape[1] // groups
    slopes = grad_out.reshape(len(x), len(places), outputs).astype(float)
    shifts = (runs[:, None] + np.arange(run)).reshape(-1)
    for g in range(groups):
        n = slice(g * columns, (g + 1) * columns)
        windows = in_frame[:, places[:, None] + shifts + g * (frame[2] // groups)]
        grad_weight[:, n] = np.einsum("ipk,ipn->kn", windows, slopes[..., n])


def turn(weight, taps, groups, turned):
    per_tap = turned.shape[1] // groups, groups, weight.shape[1] // groups
    found = weight.reshape(-1, *per_tap)[taps]
    turned[...] = found.transpose(0, 3, 2, 1).reshape(turned.shape)


def add_to_rows(bias, out):
    out += bias


def add_up_rows(grad_out, grad_bias):
    grad_bias[...] = grad_out.sum(axis=0, dtype=float)


def batch_statistics(x, wide, totals, statistics):
    places = x.reshape(-1, statistics.shape[1]).astype(float)
    statistics[...] = (places.mean(axis=0), places.var(axis=0)) if len(places) else 0


def _normalised(x, statistics, epsilon):
    places = x.reshape(-1, statistics.shape[1]).astype(float)
    mean, variance = statistics.astype(float)
    return (places - mean) / np.sqrt(variance + epsilon)


def normalise(x, statistics, weight, bias, epsilon, with_relu, wide, out):
    found = _normalised(x, statistics, epsilon) * weight + bias
    out[...] = (np.maximum(found, 0) if with_relu else found).reshape(-1)


def batch_norm_gradient(
    x, statistics, weight, bias, epsilon, with_relu, wide, totals, grad_out, grad_weight, grad_bias, grad_x
):  # fmt: skip
    h = _normalised(x, statistics, epsilon)
    slope = grad_out.reshape(h.shape).astype(float)
    if with_relu:
        slope = slope * (h * weight + bias > 0)
    grad_bias[...], grad_weight[...] = slope.sum(axis=0), (slope * h).sum(axis=0)
    count, scale = max(1, len(h)), weight / np.sqrt(statistics[1].astype(float) + epsilon)
    found = scale * (
        slope - grad_bias.astype(float) / count - h * grad_weight.astype(float) / count
    )
    grad_x[...] = found.reshape(-1)[: grad_x.size]


def normalise_gradient(
    x, statistics, weight, bias, epsilon, with_relu, wide, totals, grad_out, grad_weight, grad_bias, grad_x
):  # fmt: skip
    h = _normalised(x, statistics, epsilon)
    slope = grad_out.reshape(h.shape).astype(float)
    if with_relu:
        slope = slope * (h * weight + bias > 0)
    grad_bias[...], grad_weight[...] = slope.sum(axis=0), (slope * h).sum(axis=0)
    found = slope * weight / np.sqrt(statistics[1].astype(float) + epsilon)
    grad_x[...] = found.reshape(-1)[: grad_x.size]


def batch_moments(x, wide, totals, moments):
    places = np.asarray(x, float).reshape(-1, moments.shape[1])
    moments[...] = 0
    if len(places):
        moments[0] = places.mean(axis=0)
        moments[1] = ((places - moments[0]) ** 2).sum(axis=0)


def _slopes(x, statistics, weight, bias, epsilon, with_relu, grad_out):
    """Distances from the mean, the inverse deviations, and the gradient behind the ReLU, by place and channel."""
    mean, variance = statistics.astype(float)
    distance, inverse = x.reshape(-1, weight.size) - mean, 1 / np.sqrt(variance + epsilon)
    slope = grad_out.reshape(-1, weight.size).astype(float)
    if with_relu:
        slope = slope * (distance * inverse * weight + bias > 0)
    return distance, inverse, slope


def gradient_sums(x, statistics, weight, bias, epsilon, with_relu, wide, grad_out, totals):
    given = statistics, weight, bias, epsilon, with_relu, grad_out
    distance, _, slope = _slopes(x, *given)
    totals[0], totals[1] = slope.sum(axis=0), (slope * distance).sum(axis=0)


def gradient_by(x, statistics, weight, bias, epsilon, with_relu, means, wide, grad_out, grad_x):
    given = statistics, weight, bias, epsilon, with_relu, grad_out
    distance, inverse, slope = _slopes(x, *given)
    by_place = slope - means[0] - distance * inverse**2 * means[1]
    grad_x[...] = (weight * inverse * by_place).reshape(-1)


def _groups(x, statistics, epsilon, channels):
    """Rows, places, groups, channels of a group, normalised; and the inverse deviations."""
    groups = statistics.shape[1] // 2
    each, by_group = channels // groups, statistics.reshape(len(x), 1, groups, 1, 2)
    mean, variance = np.moveaxis(by_group.astype(float), -1, 0)
    inverse = 1 / np.sqrt(variance + epsilon)
    places = x.shape[1] // channels
    return (x.reshape(len(x), places, groups, each) - mean) * inverse, inverse


def group_norm(x, weight, bias, epsilon, with_relu, wide, totals, statistics, out):
    groups = statistics.shape[1] // 2
    each, places = weight.size // groups, x.shape[1] // weight.size
    shaped = x.reshape(len(x), places, groups, each).astype(float)
    statistics[:, 0::2], statistics[:, 1::2] = shaped.mean(axis=(1, 3)), shaped.var(axis=(1, 3))
    h, _ = _groups(x, statistics, epsilon, weight.size)
    found = h * weight.reshape(groups, each) + bias.reshape(groups, each)
    out[...] = (np.maximum(found, 0) if with_relu else found).reshape(out.shape)


def group_norm_gradient(
    x, statistics, weight, bias, epsilon, with_relu, wide, totals, grad_out, grad_weight, grad_bias, grad_x
):  # fmt: skip
    h, inverse = _groups(x, statistics, epsilon, weight.size)
    weights, slope = weight.reshape(h.shape[2:]), grad_out.reshape(h.shape).astype(float)
    if with_relu:
        slope = slope * (h * weights + bias.reshape(h.shape[2:]) > 0)
    grad_bias[...] = slope.sum(axis=(0, 1)).reshape(-1)
    grad_weight[...] = (slope * h).sum(axis=(0, 1)).reshape(-1)
    mean = lambda a: a.mean(axis=(1, 3), keepdims=True)  # noqa: E731
    slope = slope * weights
    found = inverse * (slope - mean(slope) - h * mean(slope * h))
    grad_x[...] = found.reshape(x.shape)[: len(grad_x)]


def _windows(sizes):
    """Of each window in turn, its places in the image: a slice down, and one across."""
    height, width, _, *out = sizes[:5]
    for down, across in np.ndindex(*out):
        starts = down * sizes[7] - sizes[9], across * sizes[8] - sizes[10]
        yield tuple(
            slice(max(0, start), min(length, start + size))
            for start, length, size in zip(starts, (height, width), sizes[5:7], strict=True)
        )


def _as_images(x, sizes):
    return x.reshape(len(x), *sizes[:3])


def max_pool(x, sizes, out, taken):
    height, width, channels = sizes[:3]
    numbers = np.arange(height * width * channels).reshape(height, width, channels)
    for n, here in enumerate(_windows(sizes)):
        places = numbers[here].reshape(-1, channels)
        best = x[:, places].argmax(axis=1)
        taken[:, n * channels : (n + 1) * channels] = places[best, np.arange(channels)]
    out[...] = np.take_along_axis(x, taken, axis=1)


def max_pool_gradient(taken, grad_out, grad_x):
    grad_x[...] = 0
    for row, at, slopes in zip(grad_x, taken, grad_out, strict=True):
        np.add.at(row, at, slopes)


def average_pool(x, sizes, out):
    for n, here in enumerate(_windows(sizes)):
        mean = _as_images(x, sizes)[:, *here].mean(axis=(1, 2), dtype=float)
        out[:, n * sizes[2] : (n + 1) * sizes[2]] = mean


def average_pool_gradient(grad_out, sizes, grad_x):
    grad_x[...] = 0
    images, channels = _as_images(grad_x, sizes), sizes[2]
    for n, here in enumerate(_windows(sizes)):
        slopes = grad_out[:, None, None, n * channels : (n + 1) * channels]
        images[:, *here] += slopes / images[0:1, *here].size * channels if len(images) else 0
