"""Numba kernels of hidden layers behind the product: bias, activation and dropout, and what the derivative needs.

A forward kernel leaves two matrices: the activations, and the slope of each by its input, dropout's factor
included. The backward kernel multiplies by the slope and need not know which activation it was.

    z = inputs @ weight + bias,   out = m f(z),   slope = m f'(z),   m = 0 for a dropped unit, else 1 / (1 - rate)

The rows are worked on one at a time. ReLU without dropout needs no slope and has kernels of its own in kernels.py.

What the bits of a unit depend on is its input alone, see elementary_kernels.py.
"""

import numpy as np

from lepton_mpi.kernels.compiling import inlined, inner, kernel
from lepton_mpi.kernels.counter_random_kernels import chain, number
from lepton_mpi.kernels.elementary_kernels import exp, expm1, gelu_argument, normal

KINDS = {"relu": 0, "gelu": 1, "tanh": 2, "sigmoid": 3, "silu": 4, "gelu_tanh": 5}
_RELU, _GELU, _TANH, _SIGMOID, _SILU, _GELU_TANH = KINDS.values()

# One 64-bit number decides on four units, by 16 bits each.
UNITS_PER_NUMBER = 4
DROPOUT_LEVELS = 1 << 16


# Exact in float32, so that they round nothing in float64 either, and leave float32 float32.
_ZERO, _ONE, _TWO = (np.float32(number) for number in (0, 1, 2))

# Each returns the function's value and its slope. NaN stays NaN.


@inlined
def _relu(z):
    return (_ZERO if z < _ZERO else z), (_ONE if z > _ZERO else _ZERO)


@inlined
def _gelu(z):
    """``z P(z)`` with P(z) the probability of less than z, ``(1 + erf(z / sqrt 2)) / 2``; slope P + z P'."""
    tail, density = normal(abs(z))
    p = _ONE - tail if z > _ZERO else tail
    return z * p, p + z * density


@inlined
def tanh(z):
    """``-t / (2 + t)`` with ``t = exp(-2|z|) - 1``, and the sign of z; slope ``1 - tanh**2``."""
    t = expm1(-_TWO * abs(z))
    size = -t / (_TWO + t)
    return (size if z >= _ZERO else -size), _ONE - size * size


@inlined
def sigmoid(z):
    """``1 / (1 + exp(-z))``, computed from ``e = exp(-|z|)``, which cannot overflow; slope ``e / (1 + e)**2``."""
    e = exp(-abs(z), _ZERO)
    d = _ONE / (_ONE + e)
    return (d if z >= _ZERO else e * d), e * d * d


@inlined
def silu(z):
    """``z sigmoid(z)``, slope ``sigmoid + z sigmoid'``."""
    s, slope = sigmoid(z)
    return z * s, s + z * slope


@inlined
def _gelu_tanh(z):
    """``z sigmoid(u)`` with ``u = 2 sqrt(2/pi) (z + 0.044715 z**3)``, which is ``z (1 + tanh(u/2)) / 2``; slope by the chain rule.

    Source: Hendrycks and Gimpel, "Gaussian error linear units", 2016; GPT-2 has this one.
    """
    u, low, slope_u = gelu_argument(z)
    e = exp(-abs(u), -low if u >= _ZERO else low)
    d = _ONE / (_ONE + e)
    s, slope = (d if u >= _ZERO else e * d), e * d * d
    return z * s, s + (z * slope * slope_u if slope > _ZERO else _ZERO)


# -- rows --------------------------------------------------------------------------------------------------


@kernel("void(i8, V, V, V)")
def activate(kind, bias, out, slope):
    """``z = out + bias``, then ``out = f(z)`` and ``slope = f'(z)``; ``kind`` is one of KINDS. Shapes (k,)."""
    if kind == _RELU:
        for j in range(out.size):
            out[j], slope[j] = _relu(out[j] + bias[j])
    elif kind == _GELU:
        for j in range(out.size):
            out[j], slope[j] = _gelu(out[j] + bias[j])
    elif kind == _TANH:
        for j in range(out.size):
            out[j], slope[j] = tanh(out[j] + bias[j])
    elif kind == _SIGMOID:
        for j in range(out.size):
            out[j], slope[j] = sigmoid(out[j] + bias[j])
    elif kind == _GELU_TANH:
        for j in range(out.size):
            out[j], slope[j] = _gelu_tanh(out[j] + bias[j])
    else:
        for j in range(out.size):
            out[j], slope[j] = silu(out[j] + bias[j])


@kernel("void(u8, i8, u8[::1], V, V)")
def drop(key, dropped, numbers, out, slope):
    """Multiply ``out`` and ``slope`` by 0, with probability ``dropped / DROPOUT_LEVELS``, or else by what keeps their mean.

    Unit j goes by the 16 bits number j of the numbers 0, 1, … of ``key``, lowest bits first. Shapes: out, slope
    (k,); numbers, scratch, uint64, at least k / UNITS_PER_NUMBER, rounded up.
    """
    for g in range(numbers.size):
        numbers[g] = number(key, np.uint64(g))
    parts = numbers.view(np.uint16)
    kept = out.dtype.type(DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped))
    zero = out.dtype.type(0)
    for j in range(out.size):
        factor = kept if parts[j] >= dropped else zero
        out[j] *= factor
        slope[j] *= factor


# -- layers ------------------------------------------------------------------------------------------------


@inner
def activate_rows(kind, bias, out, slope):
    """``activate`` for every row. Shapes int, (k,), (rows, k), (rows, k)."""
    for i in range(out.shape[0]):
        activate(kind, bias, out[i], slope[i])


@inner
def activate_drop_rows(kind, bias, draw, layer, rows, dropped, numbers, out, slope):
    """The same, and ``drop`` with a key made of ``draw``, ``layer`` and the row's number in ``rows``, int64 (rows,).

    So the units that are dropped depend on these and on their place in the layer, never on the batch.
    """
    layer_key = chain(np.uint64(draw), np.uint64(layer))
    for i in range(out.shape[0]):
        activate(kind, bias, out[i], slope[i])
        drop(chain(layer_key, np.uint64(rows[i])), dropped, numbers, out[i], slope[i])


@inner
def slope_backward(slope, grad):
    """``grad *= slope``. Shapes (rows, k)."""
    for i in range(grad.shape[0]):
        row, factors = grad[i], slope[i]
        for j in range(row.size):
            row[j] *= factors[j]
