"""NumPy twins of the Numba kernels: the same arguments, the formula in as few lines as it can be read in.

They compute in float64 whatever they are given and store in the arrays' own type, so that a kernel is
compared with the exact result and not with the same rounding errors.
"""

import csv
import io
import re

import numpy as np
from scipy.special import erfc, expit, log_softmax

from lepton_mpi.kernels import counter_random


def _double(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


# -- data/kernels.py ----------------------------------------------------------------------------------


def gather_rows(table, rows, shift, scale, out):
    x, shift, scale = _double(table[rows], shift, scale)
    out[: rows.size] = (x - shift) * scale


def step_bounds(row_count: int, batch_rows: int) -> list[tuple[int, int]]:
    """Ranges of positions in an epoch's order, one per step; the last step may be shorter."""
    return [
        (start, min(start + batch_rows, row_count)) for start in range(0, row_count, batch_rows)
    ]


def gather_codes(table, rows, out):
    out[: rows.size] = table[rows]


def gather_windows(tokens, places, starts, skipped, documents, values, x, y):
    length = x.shape[1]
    for i, place in enumerate(places):
        window = tokens[place : place + length + 1].astype(np.int64)
        x[i], y[i] = window[:-1], window[1:]
        if window.min() < 0 or window.max() >= values:
            return i
        positions = starts[i] + 1 + np.arange(length)
        y[i, (np.arange(length) < skipped[i]) | np.isin(positions, documents)] = -1
    return -1


def gather_labels(labels, rows, out):
    out[: rows.size] = labels[rows]
    return rows.size


def gather_targets(targets, rows, out):
    out[: rows.size] = targets[rows]
    return rows.size


# -- data/checksum_kernels.py ---------------------------------------------------------------------------


def fletcher32(words, last_byte):
    """Word by word, the first byte of each the high one, as ``H5_checksum_fletcher32`` of HDF5's H5checksum.c does."""
    values = [int(word) for word in np.asarray(words).astype("<u2").view(">u2")]
    if last_byte >= 0:
        values.append(int(last_byte) << 8)
    sum_1 = sum_2 = 0
    for value in values:
        sum_1 = (sum_1 + value) % 65535
        sum_2 = (sum_2 + sum_1) % 65535
    return sum_2 << 16 | sum_1


# -- data/augmentation_kernels.py ---------------------------------------------------------------------------


def add_noise(key, deviation, out):
    """The bits to u and angle go as in the kernel, by float32; all that follows is float64."""
    half = np.float32(0.5)
    bits = counter_random.numbers(np.array([key], np.uint64), (out.size + 1) // 2, first=1)
    low = bits.astype(np.uint32).view(np.int32)
    u, angle = _double(
        (bits >> np.uint64(33)).astype(np.float32) + half, (low >> 2).astype(np.float32) + half
    )
    distance = np.sqrt(-2 * np.log(u * 2.0**-31))
    sine, cosine = np.sin(angle * np.pi * 2.0**-31), np.cos(angle * np.pi * 2.0**-31)
    cosine = np.where(low & 2, -cosine, cosine)
    x, y = np.where(low & 1, [sine, cosine], [cosine, sine])
    out += deviation * np.concatenate([distance * x, distance * y])[: out.size]


def gather_augmented(
    table, places, rows, draw, shift, scale, height, width, channels, flip, crop, noise, out
):
    draw_key = counter_random.chain(np.array([draw]).astype(np.uint64), 0x6175676D656E74)
    for place, row, target in zip(places, rows, out, strict=False):
        key = counter_random.chain(draw_key, int(row))
        bits = int(counter_random.numbers(key, 1)[0])
        top = (bits >> 32) * (2 * crop + 1) >> 32
        left = (bits % 2**32 >> 1) * (2 * crop + 1) >> 31
        image = np.pad(
            table[place].reshape(height, width, channels), ((crop, crop), (crop, crop), (0, 0))
        )
        image = image[top : top + height, left : left + width]
        image = image[:, ::-1] if flip and bits & 1 else image
        x, shift, scale = _double(image.reshape(-1), shift, scale)
        moved = (x - shift) * scale
        if noise > 0:
            add_noise(key[0], noise, moved)
        target[:] = moved


# -- models/product_kernels.py, models/transpose_kernels.py, models/row_kernels.py ---------------------------


def product(a, places, b, out):
    a, b = _double(a[places], b)
    out[:] = a @ b


def product_left(a, places, b, out):
    a, b = _double(a[places], b)
    out[:] = a.T @ b


def product_right(a, numbers, b, scratch, out):
    a, b = _double(a, b)
    out[:] = a @ b.T


def transpose(a, out):
    out[:] = a.T


def dots(a, places, vector, out):
    a, v = _double(a[places], vector)
    out[:] = a @ v


def weighted_sum(a, places, factors, is_first, out):
    a, f = _double(a[places], factors)
    out[:] = f @ a + (0 if is_first else out)


# -- layers/dense_kernels.py, models/logistic_kernels.py -----------------------------------------------------------


def dense(inputs, places, weight, bias, threaded, out):
    x, w, b = _double(inputs[places], weight, bias)
    out[:] = x @ w + b


def dense_relu(inputs, places, weight, bias, threaded, out):
    x, w, b = _double(inputs[places], weight, bias)
    out[:] = np.maximum(x @ w + b, 0)


def dense_gradient(inputs, places, grad_output, threaded, grad_weight, grad_bias):
    x, g = _double(inputs[places], grad_output)
    grad_weight[:] = x.T @ g
    grad_bias[:] = g.sum(axis=0)


def dense_relu_backward(grad_output, weight, activations, threaded, numbers, scratch, grad_input):
    g, w = _double(grad_output, weight)
    grad_input[:] = np.where(activations > 0, g @ w.T, 0)


def softmax_cross_entropy(logits, labels):
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    correct = np.count_nonzero(log_p.argmax(axis=1) == labels)
    rows = np.arange(labels.size)
    logits[:] = np.exp(log_p)
    logits[rows, labels] = np.expm1(log_p[rows, labels])
    return -log_p[rows, labels].sum(), correct


def softmax_predict(logits, labels, predicted):
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    predicted[:] = log_p.argmax(axis=1)
    return -log_p[np.arange(labels.size), labels].sum()


def weighted_softmax_cross_entropy(logits, labels, weights):
    of_rows = weights.astype(np.float64)[labels]
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    _, correct = softmax_cross_entropy(logits, labels)
    logits *= of_rows[:, None]
    return -(of_rows * log_p[np.arange(labels.size), labels]).sum(), correct


def weighted_softmax_predict(logits, labels, weights, predicted):
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    predicted[:] = log_p.argmax(axis=1)
    return -(weights.astype(np.float64)[labels] * log_p[np.arange(labels.size), labels]).sum()


def logistic_gradient(
    inputs, places, weight, bias, labels, class_weights, difference, grad_weight, grad_bias
):
    x, w, b = _double(inputs[places], weight, bias)
    z = x @ w + b
    counts = class_weights.astype(np.float64)[labels]
    p_minus_y = (expit(z) - labels) * counts
    difference[:] = p_minus_y
    grad_weight[:] = x.T @ p_minus_y
    grad_bias[:] = p_minus_y.sum()
    loss = (np.logaddexp(0, np.where(labels, -z, z)) * counts).sum()
    return loss, np.count_nonzero((z > 0) == labels)


def logistic_predict(inputs, places, weight, bias, labels, class_weights, scratch, predicted):
    x, w, b = _double(inputs[places], weight, bias)
    z = x @ w + b
    predicted[:] = z > 0
    counts = class_weights.astype(np.float64)[labels]
    return (np.logaddexp(0, np.where(labels, -z, z)) * counts).sum()


def logistic_probabilities(inputs, places, weight, bias, scratch, outputs):
    x, w, b = _double(inputs[places], weight, bias)
    z = x @ w + b
    outputs[:] = np.stack([expit(-z), expit(z)], axis=1)


# -- models/activation_kernels.py -----------------------------------------------------------------------


def _normal(z):
    """Probability of less than z, and density at z."""
    return erfc(-z / np.sqrt(2)) / 2, np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _gelu_tanh(z):
    """With expit for tanh, which loses no digits of small results."""
    c = np.sqrt(8 / np.pi)
    with np.errstate(over="ignore", invalid="ignore"):
        u, slope = c * (z + 0.044715 * z**3), c * (1 + 3 * 0.044715 * z**2)
        inner = np.where(np.abs(u) < 700, z * expit(u) * expit(-u) * slope, 0)
        return z * expit(u), expit(u) + inner


# (f(z), f'(z)) by the kernel's number.
ACTIVATIONS = [
    lambda z: (np.maximum(z, 0), z > 0),
    lambda z: (z * _normal(z)[0], _normal(z)[0] + z * _normal(z)[1]),
    lambda z: (np.tanh(z), 1 - np.tanh(z) ** 2),
    lambda z: (expit(z), expit(z) * expit(-z)),
    lambda z: (z * expit(z), expit(z) * (1 + z * expit(-z))),
    lambda z: _gelu_tanh(z),
]


def activate(kind, bias, out, slope):
    z, b = _double(out, bias)
    out[:], slope[:] = ACTIVATIONS[kind](z + b)


def drop(key, dropped, numbers, out, slope):
    numbers[:] = counter_random.numbers(np.array([key], np.uint64), numbers.size)
    parts = numbers.astype("<u8").view("<u2")[: out.size]
    factor = np.where(parts < dropped, 0, 65536 / (65536 - dropped))
    out[:], slope[:] = _double(out * factor, slope * factor)


def dense_activation(kind, inputs, places, weight, bias, threaded, out, slope):
    x, w, b = _double(inputs[places], weight, bias)
    out[:], slope[:] = ACTIVATIONS[kind](x @ w + b)


def dense_dropout(
    kind, inputs, places, weight, bias, threaded, draw, layer, rows, dropped, numbers, out, slope
):
    dense_activation(kind, inputs, places, weight, bias, threaded, out, slope)
    key = counter_random.chain(np.array([draw]).astype(np.uint64), layer)
    for row, y, s in zip(rows, out, slope, strict=True):
        drop(counter_random.chain(key, int(row))[0], dropped, numbers, y, s)


def dense_slope_backward(grad_output, weight, slope, threaded, numbers, scratch, grad_input):
    g, w, s = _double(grad_output, weight, slope)
    grad_input[:] = g @ w.T * s


# -- layers/dense_layer_kernels.py, layers/pointwise_kernels.py ------------------------------------------------


def layer_dense(inputs, places, in_order, weight, bias, kind, out, slope):
    x, w = _double(inputs if in_order else inputs[places[: len(out)]], weight)
    z = x @ w + (bias if bias.size else 0)
    out[:] = ACTIVATIONS[kind](z)[0] if kind >= 0 else z
    if slope.size:
        slope[:] = ACTIVATIONS[kind](z)[1]


def layer_dense_gradient(inputs, places, in_order, grad_z, grad_weight, grad_bias):
    x, g = _double(inputs if in_order else inputs[places[: len(grad_z)]], grad_z)
    grad_weight[:], grad_bias[:] = x.T @ g, g.sum(axis=0)


def layer_dense_backward(grad_z, weight, numbers, scratch, grad_x):
    g, w = _double(grad_z, weight)
    grad_x[:] = g @ w.T


def relu(x, out):
    out[:] = np.maximum(x, 0)


def relu_gradient(out, grad_out, grad_z):
    grad_z[:] = np.where(out > 0, grad_out, 0)


def multiply(a, b, out):
    out[:] = a * b


def activation(kind, zeros, x, out, slope):
    out[:], slope[:] = ACTIVATIONS[kind](x.astype(np.float64))


def dropout(draw, layer, rows, dropped, numbers, x, out):
    out[:] = x
    key = counter_random.chain(np.array([draw]).astype(np.uint64), layer)
    for row, y in zip(rows, out, strict=True):
        drop(counter_random.chain(key, int(row))[0], dropped, numbers, y, np.ones_like(y))


# -- layers/loss_kernels.py -----------------------------------------------------------------------


def softmax(logits, out):
    out[:] = np.exp(log_softmax(logits.astype(np.float64), axis=1))


def squared_error(outputs, targets):
    z, t = _double(outputs, targets)
    e = z - t
    outputs[:] = 2 * e / t.shape[1]
    return (e**2).mean(axis=1).sum()


def huber(outputs, targets, delta):
    z, t = _double(outputs, targets)
    e = np.abs(z - t)
    outputs[:] = np.clip(z - t, -delta, delta) / t.shape[1]
    return np.where(e <= delta, e**2 / 2, delta * (e - delta / 2)).mean(axis=1).sum()


# -- optimizers/rule_kernels.py ------------------------------------------------------------------------------


def _mean(gradient, parameters, decay, numbers):
    """Mean gradient, clipped, with the pull of the weight decay; and the numbers in float64."""
    g, w, numbers = _double(gradient, parameters, numbers)
    return np.clip(g * numbers[0], -numbers[1], numbers[1]) + float(decay) * w, w, numbers


def sgd(parameters, gradient, first, second, decay, numbers):
    g, w, (_, _, rate, *_) = _mean(gradient, parameters, decay, numbers)
    parameters[:] = w - rate * g


def momentum(parameters, gradient, first, second, decay, numbers):
    g, w, (_, _, rate, mu, *_) = _mean(gradient, parameters, decay, numbers)
    v = mu * first.astype(np.float64) - rate * g
    first[:] = v
    parameters[:] = w + v


def nesterov(parameters, gradient, first, second, decay, numbers):
    g, w, (_, _, rate, mu, *_) = _mean(gradient, parameters, decay, numbers)
    v = mu * first.astype(np.float64) - rate * g
    first[:] = v
    parameters[:] = w + mu * v - rate * g


def adam(parameters, gradient, first, second, decay, numbers):
    g, w, (_, _, rate, b1, r1, b2, r2, epsilon, *_) = _mean(gradient, parameters, decay, numbers)
    m = b1 * first.astype(np.float64) + r1 * g
    v = np.maximum(b2 * second.astype(np.float64) + r2 * g**2, float(numbers[-1]) * g**2)
    first[:], second[:] = m, v
    parameters[:] = w - rate * m / (np.sqrt(v) + epsilon)


def adamw(parameters, gradient, first, second, decay, numbers):
    shrunk = parameters.astype(np.float64) * (1 - float(decay))
    rest = np.zeros_like(shrunk)
    adam(rest, gradient, first, second, 0.0, numbers)
    parameters[:] = shrunk + rest


def lion(parameters, gradient, first, second, decay, numbers):
    g, w, (_, _, rate, b1, r1, b2, r2, *_) = _mean(gradient, parameters, 0.0, numbers)
    m = first.astype(np.float64)
    parameters[:] = w * (1 - float(decay)) - rate * np.sign(b1 * m + r1 * g)
    first[:] = b2 * m + r2 * g


def adagrad(parameters, gradient, first, second, decay, numbers):
    g, w, (_, _, rate, _, _, _, _, epsilon, *_) = _mean(gradient, parameters, decay, numbers)
    s = first.astype(np.float64) + g**2
    first[:] = s
    parameters[:] = w - rate * g / (np.sqrt(s) + epsilon)


def rmsprop(parameters, gradient, first, second, decay, numbers):
    g, w, (_, _, rate, _, _, rho, rest, epsilon, *_) = _mean(gradient, parameters, decay, numbers)
    s = rho * first.astype(np.float64) + rest * g**2
    first[:] = s
    parameters[:] = w - rate * g / (np.sqrt(s) + epsilon)


# -- strategies/norm_kernels.py ------------------------------------------------------------------------


def sum_of_squares(vector):
    return float(np.sum(vector.astype(np.float64) ** 2))


# -- kernels/digest_kernels.py -----------------------------------------------------------------------


def digest_of_words(words, first):
    numbers = range(first, first + len(words))
    factors = [(number * 0x9E3779B1 & 0xFFFFFFFF) | 1 for number in numbers]
    return sum(int(word) * factor for word, factor in zip(words, factors, strict=True)) % 2**64


# -- kernels/finite_kernels.py ----------------------------------------------------------------------


def not_finite(vector):
    return int(not np.isfinite(vector).all())


# -- prepare/readers/csv_kernels.py ------------------------------------------------------------------


def split_cells(raw, delimiter=",", quote='"'):
    """Records of cells, by the standard library's reader, which knows neither spaces around cells nor wrong quotes."""
    reader = csv.reader(io.StringIO(raw.decode(), newline=""), delimiter=delimiter, quotechar=quote)
    return [record for record in reader if record]


def parse_number(cell):
    """The number of a cell, or None: Python's conversion of what is written in digits."""
    return float(cell) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", cell) else None


# -- prepare/statistics_kernels.py -------------------------------------------------------------------


def count_digits(keys, prefixes, shift, bits, counts):
    for j, t in np.ndindex(prefixes.shape):
        rest = [int(key) >> shift for key in keys[:, j]]
        digits = [r % 2**bits for r in rest if r >> bits == int(prefixes[j, t])]
        counts[j, t] += np.bincount(np.array(digits, int), minlength=2**bits)
