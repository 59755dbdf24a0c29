"""Numba kernels of hidden layers: product, bias, activation and dropout, and what the derivative needs.

A forward kernel leaves two matrices: the activations, and the slope of each by its input, dropout's factor
included. The backward kernel multiplies by the slope and need not know which activation it was.

    z = inputs @ weight + bias,   out = m f(z),   slope = m f'(z),   m = 0 for a dropped unit, else 1 / (1 - rate)

After the product the rows are worked on one at a time, while they are in the nearest cache. ReLU without
dropout needs no slope and has kernels of its own in kernels.py.

float32: a loop that calls a C library's exp, tanh or erf is not vectorised, and takes several times as long.
Here they are made of polynomials and one division, in one loop without a branch, and are right to a few units
in the last place. No product is fused with a sum, so vector and scalar code, and machines with and without
fused operations, give the same bits: those of a unit depend on its input alone. float64 calls the C library.
"""

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

from lepton_mpi.counter_random_kernels import chain, number
from lepton_mpi.models.kernels import multiply, multiply_right

KINDS = {"relu": 0, "gelu": 1, "tanh": 2, "sigmoid": 3, "silu": 4}
_RELU, _GELU, _TANH, _SIGMOID, _SILU = KINDS.values()

# One 64-bit number decides on four units, by 16 bits each.
UNITS_PER_NUMBER = 4
DROPOUT_LEVELS = 1 << 16

_options = {"cache": True, "nogil": True, "error_model": "numpy"}
_ROW_SIGNATURES = [f"void(i8, {t}[::1], {t}[::1], {t}[::1])" for t in ("f4", "f8")]
_DROP_SIGNATURES = [f"void(u8, i8, u8[::1], {t}[::1], {t}[::1])" for t in ("f4", "f8")]

# -- functions of one number -------------------------------------------------------------------------------

# Exact in float32, so that they round nothing in float64 either, and leave float32 float32.
_ZERO, _HALF, _ONE, _TWO = (np.float32(number) for number in (0, 0.5, 1, 2))

_LOG2_E = np.float32(1 / math.log(2))
# The upper part of log 2 has 9 bits, so that its products with whole numbers below 2**15 are exact.
_LOG_2_UPPER = np.float32(0.693359375)
_LOG_2_LOWER = np.float32(math.log(2) - 0.693359375)
# Adding 1.5 * 2**23 rounds to a whole number and leaves it in the lowest bits of the sum.
_ROUNDER = np.float32(1.5 * 2**23)
# exp(-87) is 1.6e-38, a little more than the smallest normal number.
_LOWEST = np.float32(-87)
# (exp(r) - 1 - r) / r**2 for |r| <= 0.375 to 0.01 of float32's roundings; by least squares whose weights were
# adapted until the largest errors were equal (Lawson's algorithm), as for the fraction below.
_Q0, _Q1, _Q2 = np.float32(0.5), np.float32(0.166666662), np.float32(0.0416662486)
_Q3, _Q4, _Q5 = np.float32(0.00833341029), np.float32(0.00139494123), np.float32(0.000198465563)

# exp(a*a/2) times the normal distribution's probability of more than a, for 0 <= a <= 12.8, to 0.08 roundings:
# a fraction of positive terms, of which none takes digits from another.
_FARTHEST = np.float32(12.8)
_N0, _N1, _N2 = np.float32(0.5), np.float32(0.434489232), np.float32(0.180426078)
_N3, _N4 = np.float32(0.0396888405), np.float32(0.00397671943)
_D1, _D2, _D3 = np.float32(1.66686336), np.float32(1.19081283), np.float32(0.462056297)
_D4, _D5 = np.float32(0.0994930112), np.float32(0.00996800226)
_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)
_DENSITY_AT_0_F4 = np.float32(_DENSITY_AT_0)


@njit(inline="always")
def _reduced(x, low):
    """(p, s) with ``exp(x + low) = s (1 + p)`` and s a power of 2; float32, x from -87 to 0, low below an eighth."""
    shifted = np.float32(x * _LOG2_E + _ROUNDER)
    whole = shifted - _ROUNDER
    r = ((x - whole * _LOG_2_UPPER) - whole * _LOG_2_LOWER) + low
    q = ((((_Q5 * r + _Q4) * r + _Q3) * r + _Q2) * r + _Q1) * r + _Q0
    scale = np.int32((np.float32(shifted).view(np.int32) + 127) << 23)
    return r + (r * r) * q, np.int32(scale).view(np.float32)


def _exp(x, low):
    """``exp(x + low)`` for x <= 0, where low is what x lost by rounding; in kernels only."""


def _expm1(x):
    """``exp(x) - 1`` for x <= 0; in kernels only."""


def _normal(a):
    """Probability of more than a, and density at a, of the normal distribution; a >= 0; in kernels only."""


def _exp_f4(x, low):
    p, scale = _reduced(_LOWEST if x < _LOWEST else x, low)
    return _ZERO if x < _LOWEST else scale + scale * p


def _exp_f8(x, low):
    return math.exp(x + low)


def _expm1_f4(x):
    p, scale = _reduced(_LOWEST if x < _LOWEST else x, _ZERO)
    return (scale - _ONE) + scale * p


def _expm1_f8(x):
    return math.expm1(x)


def _normal_f4(a):
    b = _FARTHEST if a > _FARTHEST else a
    # Half of the digits of b: its square is exact, and the rest of b's square is small.
    upper = np.int32((np.float32(b).view(np.int32) + 2048) & -4096)
    h = np.int32(upper).view(np.float32)
    e = _exp(-_HALF * (h * h), -_HALF * ((b - h) * (b + h)))
    e = _ZERO if a > _FARTHEST else e
    above = (((_N4 * b + _N3) * b + _N2) * b + _N1) * b + _N0
    below = ((((_D5 * b + _D4) * b + _D3) * b + _D2) * b + _D1) * b + _ONE
    return e * (above / below), e * _DENSITY_AT_0_F4


def _normal_f8(a):
    return 0.5 * math.erfc(a * math.sqrt(0.5)), math.exp(-0.5 * a * a) * _DENSITY_AT_0


@overload(_exp)
def _exp_by_type(x, low):
    return _exp_f4 if x == types.float32 else _exp_f8


@overload(_expm1)
def _expm1_by_type(x):
    return _expm1_f4 if x == types.float32 else _expm1_f8


@overload(_normal)
def _normal_by_type(a):
    return _normal_f4 if a == types.float32 else _normal_f8


# Each returns the function's value and its slope. NaN stays NaN.


@njit(inline="always")
def _relu(z):
    return (_ZERO if z < _ZERO else z), (_ONE if z > _ZERO else _ZERO)


@njit(inline="always")
def _gelu(z):
    """``z P(z)`` with P(z) the probability of less than z, ``(1 + erf(z / sqrt 2)) / 2``; slope P + z P'."""
    tail, density = _normal(abs(z))
    p = _ONE - tail if z > _ZERO else tail
    return z * p, p + z * density


@njit(inline="always")
def _tanh(z):
    """``-t / (2 + t)`` with ``t = exp(-2|z|) - 1``, and the sign of z; slope ``1 - tanh**2``."""
    t = _expm1(-_TWO * abs(z))
    size = -t / (_TWO + t)
    return (size if z >= _ZERO else -size), _ONE - size * size


@njit(inline="always")
def _sigmoid(z):
    """``1 / (1 + exp(-z))``, computed from ``e = exp(-|z|)``, which cannot overflow; slope ``e / (1 + e)**2``."""
    e = _exp(-abs(z), _ZERO)
    d = _ONE / (_ONE + e)
    return (d if z >= _ZERO else e * d), e * d * d


@njit(inline="always")
def _silu(z):
    """``z sigmoid(z)``, slope ``sigmoid + z sigmoid'``."""
    s, slope = _sigmoid(z)
    return z * s, s + z * slope


# -- rows --------------------------------------------------------------------------------------------------


@njit(_ROW_SIGNATURES, **_options)
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
            out[j], slope[j] = _tanh(out[j] + bias[j])
    elif kind == _SIGMOID:
        for j in range(out.size):
            out[j], slope[j] = _sigmoid(out[j] + bias[j])
    else:
        for j in range(out.size):
            out[j], slope[j] = _silu(out[j] + bias[j])


@njit(_DROP_SIGNATURES, **_options)
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


@njit(**_options)
def dense_activation(kind, inputs, places, weight, bias, threaded, out, slope):
    """``out = f(inputs[places] @ weight + bias)`` and the slope. Shapes as in ``kernels.dense``, slope as out."""
    multiply(inputs, places, weight, threaded, out)
    for i in range(out.shape[0]):
        activate(kind, bias, out[i], slope[i])


@njit(**_options)
def dense_dropout(
    kind, inputs, places, weight, bias, threaded, draw, layer, rows, dropped, numbers, out, slope
):
    """``dense_activation``, and ``drop`` with a key made of ``draw``, ``layer`` and the row's number in ``rows``.

    So the units that are dropped depend on these and on their place in the layer, never on the batch.
    Shapes as there; rows int64 (rows,); numbers as in ``drop``.
    """
    multiply(inputs, places, weight, threaded, out)
    layer_key = chain(np.uint64(draw), np.uint64(layer))
    for i in range(out.shape[0]):
        activate(kind, bias, out[i], slope[i])
        drop(chain(layer_key, np.uint64(rows[i])), dropped, numbers, out[i], slope[i])


@njit(**_options)
def dense_slope_backward(grad_output, weight, slope, threaded, numbers, scratch, grad_input):
    """``grad_input = (grad_output @ weight.T) * slope``. Shapes as in ``kernels.dense_relu_backward``."""
    multiply_right(grad_output, weight, threaded, numbers, scratch, grad_input)
    for i in range(grad_input.shape[0]):
        row, factors = grad_input[i], slope[i]
        for j in range(row.size):
            row[j] *= factors[j]
