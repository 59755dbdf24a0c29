"""NumPy twins of the Numba kernels: the same arguments, the formula in as few lines as it can be read in.

They compute in float64 whatever they are given and store in the arrays' own type, so that a kernel is
compared with the exact result and not with the same rounding errors.
"""

import numpy as np
from scipy.special import expit, log_softmax


def _double(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


# -- data/kernels.py ----------------------------------------------------------------------------------


def gather_rows(table, rows, shift, scale, out):
    x, shift, scale = _double(table[rows], shift, scale)
    out[: rows.size] = (x - shift) * scale


def gather_labels(labels, rows, out):
    out[: rows.size] = labels[rows]
    return rows.size


# -- models/kernels.py --------------------------------------------------------------------------------


def dense(inputs, weight, bias, out):
    x, w, b = _double(inputs, weight, bias)
    out[:] = x @ w + b


def dense_relu(inputs, weight, bias, out):
    x, w, b = _double(inputs, weight, bias)
    out[:] = np.maximum(x @ w + b, 0)


def dense_gradient(inputs, grad_output, grad_weight, grad_bias):
    x, g = _double(inputs, grad_output)
    grad_weight[:] = x.T @ g
    grad_bias[:] = g.sum(axis=0)


def dense_relu_backward(grad_output, weight, activations, grad_input):
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


def logistic_gradient(inputs, weight, bias, labels, difference, grad_weight, grad_bias):
    x, w, b = _double(inputs, weight, bias)
    z = x @ w + b
    p_minus_y = expit(z) - labels
    difference[:] = p_minus_y
    grad_weight[:] = x.T @ p_minus_y
    grad_bias[:] = p_minus_y.sum()
    return np.logaddexp(0, np.where(labels, -z, z)).sum(), np.count_nonzero((z > 0) == labels)


def logistic_predict(inputs, weight, bias, labels, scratch, predicted):
    x, w, b = _double(inputs, weight, bias)
    z = x @ w + b
    predicted[:] = z > 0
    return np.logaddexp(0, np.where(labels, -z, z)).sum()


# -- optimizers.py ------------------------------------------------------------------------------------


def sgd_kernel(parameters, gradient, velocity, scale, learning_rate, momentum):
    w, g, v = _double(parameters, gradient, velocity)
    v = float(momentum) * v - float(learning_rate) * (g * float(scale))
    velocity[:] = v
    parameters[:] = w + v


def adam_kernel(
    parameters,
    gradient,
    first,
    second,
    scale,
    beta_1,
    one_minus_beta_1,
    beta_2,
    one_minus_beta_2,
    step_size,
    epsilon,
):
    w, g, m, v = _double(parameters, gradient, first, second)
    g = g * float(scale)
    m = float(beta_1) * m + float(one_minus_beta_1) * g
    v = float(beta_2) * v + float(one_minus_beta_2) * g**2
    first[:], second[:] = m, v
    parameters[:] = w - float(step_size) * m / (np.sqrt(v) + float(epsilon))
