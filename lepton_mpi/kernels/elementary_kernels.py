"""Exponentials of one number, to be called in loops of kernels, by type.

float32: a loop that calls a C library's exp, tanh or erf is not vectorised, and takes several times as long.
Here they are made of polynomials and one division, in one loop without a branch, and are right to a few units
in the last place. No product is fused with a sum, so vector and scalar code, and machines with and without
fused operations, give the same bits: those of a result depend on its argument alone. float64 calls the C library.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from lepton_mpi.kernels.compiling import inlined

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
# Of ``gelu_argument``: z, z**3, and in its slope z**2.
_GELU_1 = 2 * math.sqrt(2 / math.pi)
_GELU_3, _GELU_2 = 0.044715 * _GELU_1, 3 * 0.044715 * _GELU_1


@inlined
def _reduced(x, low):
    """(p, s) with ``exp(x + low) = s (1 + p)`` and s a power of 2; float32, x from -87 to 0, low below an eighth."""
    shifted = np.float32(x * _LOG2_E + _ROUNDER)
    whole = shifted - _ROUNDER
    r = ((x - whole * _LOG_2_UPPER) - whole * _LOG_2_LOWER) + low
    q = ((((_Q5 * r + _Q4) * r + _Q3) * r + _Q2) * r + _Q1) * r + _Q0
    scale = np.int32((np.float32(shifted).view(np.int32) + 127) << 23)
    return r + (r * r) * q, np.int32(scale).view(np.float32)


def exp(x, low):
    """``exp(x + low)`` for x <= 0, where low is what x lost by rounding; in kernels only."""


def expm1(x):
    """``exp(x) - 1`` for x <= 0; in kernels only."""


def normal(a):
    """Probability of more than a, and density at a, of the normal distribution; a >= 0; in kernels only."""


def gelu_argument(z):
    """(u, low, slope): ``u + low = 2 sqrt(2/pi) (z + 0.044715 z**3)``, low being what u lost by rounding; in kernels only."""


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
    e = exp(-_HALF * (h * h), -_HALF * ((b - h) * (b + h)))
    e = _ZERO if a > _FARTHEST else e
    above = (((_N4 * b + _N3) * b + _N2) * b + _N1) * b + _N0
    below = ((((_D5 * b + _D4) * b + _D3) * b + _D2) * b + _D1) * b + _ONE
    return e * (above / below), e * _DENSITY_AT_0_F4


def _normal_f8(a):
    return 0.5 * math.erfc(a * math.sqrt(0.5)), math.exp(-0.5 * a * a) * _DENSITY_AT_0


def _gelu_argument_f4(z):
    # Of exp(u) the relative error is u's absolute one, so float32 is too short for u.
    exact, square = np.float64(z), np.float64(z) * np.float64(z)
    u = exact * (_GELU_1 + _GELU_3 * square)
    rounded = np.float32(u)
    low = np.float32(u - np.float64(rounded))
    return rounded, low, np.float32(_GELU_1 + _GELU_2 * square)


def _gelu_argument_f8(z):
    square = z * z
    return z * (_GELU_1 + _GELU_3 * square), 0.0, _GELU_1 + _GELU_2 * square


@overload(exp)
def _exp_by_type(x, low):
    return _exp_f4 if x == types.float32 else _exp_f8


@overload(expm1)
def _expm1_by_type(x):
    return _expm1_f4 if x == types.float32 else _expm1_f8


@overload(normal)
def _normal_by_type(a):
    return _normal_f4 if a == types.float32 else _normal_f8


@overload(gelu_argument)
def _gelu_argument_by_type(z):
    return _gelu_argument_f4 if z == types.float32 else _gelu_argument_f8
