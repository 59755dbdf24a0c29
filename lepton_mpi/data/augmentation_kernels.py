"""Rows gathered as by ``kernels.gather_rows``, and changed at random on the way. Numba kernels.

What is random about a row is a hash of the step's ``draw`` and the row's number, so it is the same on whatever rank,
and in whatever batch, the row is read. Number 0 of the row's key says how an image is cropped and whether it is
mirrored, number k + 1 gives the noise of the values k and k + half, where half is that of the row, rounded up.

Noise is normal, after Box and Muller ("A note on the generation of random normal deviates", Ann. Math. Statist. 29,
1958): a distance by 31 bits of the hash and a direction by 32 others give two numbers. The largest distance is
sqrt(2 * 32 * log 2) = 6.66; of the normal distribution, 3e-11 lie beyond it.
Logarithm, sine and cosine are Taylor polynomials in float32, in one loop without a branch, which is vectorised. What
their series would go on with is less than a rounding, and all roundings together are at most 13 of 2**-24 of the number.
Only sums, products, quotients and roots as IEEE 754 has them go into it, and no product is fused with a sum: the bits
are the same on every machine. Rows of float64 get the same noise.
"""

import math

import numpy as np

from lepton_mpi.kernels.compiling import inlined, kernel
from lepton_mpi.kernels.counter_random_kernels import chain, number

# Chained behind a draw. Dropout chains the number of a layer there, so its numbers are others.
PURPOSE = 0x6175676D656E74

# -- normal numbers ----------------------------------------------------------------------------------------

_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(0.5)
_LOG_2 = np.float32(math.log(2))
_ROOT_HALF = int(np.float32(math.sqrt(0.5)).view(np.int32))
# 31 bits and a half to (0, 1]; 30 bits with a sign, and a half, to -pi/4 … pi/4.
_TO_UNIT = np.float32(2.0**-31)
_TO_ANGLE = np.float32(math.pi * 2.0**-31)
# log m = 2 s (1 + s**2/3 + s**4/5 + …) with s = (m - 1) / (m + 1); |s| < 0.172 leaves out 2e-9.
_L1, _L2, _L3, _L4 = (np.float32(1 / k) for k in (3, 5, 7, 9))
# Up to pi/4 sine leaves out 2.3e-9 of itself, cosine 2.5e-8.
_S1, _S2, _S3, _S4 = (np.float32(1 / k) for k in (-6, 120, -5040, 362880))
_C1, _C2, _C3, _C4 = (np.float32(1 / k) for k in (-2, 24, -720, 40320))


@inlined
def _distance(high):
    """``sqrt(-2 log u)``, float32, for u in (0, 1] of 31 bits, int32."""
    u = (np.float32(high) + _HALF) * _TO_UNIT
    # u = 2**exponent * m with m from sqrt(1/2) to sqrt(2).
    shifted = np.int32(np.float32(u).view(np.int32) - _ROOT_HALF)
    exponent = np.float32(np.int32(shifted >> 23))
    m = np.int32((shifted & 0x7FFFFF) + _ROOT_HALF).view(np.float32)
    s = (m - _ONE) / (m + _ONE)
    z = s * s
    series = z * (((_L4 * z + _L3) * z + _L2) * z + _L1)
    log_m = _TWO * s + _TWO * s * series
    return np.sqrt(-_TWO * (exponent * _LOG_2 + log_m))


@inlined
def _direction(low):
    """Point of the unit circle, two float32, for 32 bits, int32.

    The upper 30 are an angle from -pi/4 to pi/4; the lowest two say into which of the circle's quarters it goes.
    """
    angle = (np.float32(np.int32(low >> 2)) + _HALF) * _TO_ANGLE
    z = angle * angle
    sine = angle + angle * (z * (((_S4 * z + _S3) * z + _S2) * z + _S1))
    cosine = _ONE + z * (((_C4 * z + _C3) * z + _C2) * z + _C1)
    cosine = -cosine if low & 2 else cosine
    return (sine if low & 1 else cosine), (cosine if low & 1 else sine)


@kernel("void(u8, f8, V)")
def add_noise(key, deviation, out):
    """Add normal numbers of ``key`` times ``deviation`` to ``out``, shape (k,)."""
    half = (out.size + 1) // 2
    first, second = out[:half], out[half:]
    factor = out.dtype.type(deviation)
    for k in range(second.size):
        bits = number(key, np.uint64(k + 1))
        distance = _distance(np.int32(bits >> np.uint64(33)))
        x, y = _direction(np.int32(bits))
        first[k] += factor * (distance * x)
        second[k] += factor * (distance * y)
    if second.size < half:
        bits = number(key, np.uint64(half))
        x, _ = _direction(np.int32(bits))
        first[half - 1] += factor * (_distance(np.int32(bits >> np.uint64(33))) * x)


# -- rows --------------------------------------------------------------------------------------------------


@kernel("void(u1[::1], u8, u8, u8, u8, V)", "void(V, u8, u8, u8, u8, V)")
def _mirror(source, first, pixels, channels, start, out):
    """Put the ``pixels`` pixels of ``source`` from place ``first`` on into ``out`` from ``start`` on, last one first.

    Places are uint64: with signed ones, every access would be tested for a negative one.
    """
    last = first + (pixels - np.uint64(1)) * channels
    if channels == 1:
        for x in range(pixels):
            out[start + x] = source[last - x]
    elif channels == 3:
        for x in range(pixels):
            to, by = start + np.uint64(3) * x, last - np.uint64(3) * x
            out[to] = source[by]
            out[to + np.uint64(1)] = source[by + np.uint64(1)]
            out[to + np.uint64(2)] = source[by + np.uint64(2)]
    else:
        for x in range(pixels):
            for c in range(channels):
                out[start + x * channels + c] = source[last - x * channels + c]


@kernel("void(u8, u8, V)")
def _clear(start, count, out):
    """``out[start : start + count] = 0``, of few numbers; uint64 as in ``_mirror``."""
    for j in range(count):
        out[start + j] = 0


@kernel("void(u1[::1], i8, i8, i8, i8, i8, b1, V)", "void(V, i8, i8, i8, i8, i8, b1, V)")
def _move(source, height, width, channels, down, right, mirrored, out):
    """``out[y, x] = source[y + down, x + right]``, 0 outside of the image; then mirrored left to right, if asked for."""
    line = width * channels
    top, bottom = max(0, -down), min(height, height - down)
    start, stop = max(0, -right), min(width, width - right)
    if mirrored:
        for y in range(top, bottom):
            first = (y + down) * line + (start + right) * channels
            left = y * line + (width - stop) * channels
            _mirror(
                source,
                np.uint64(first),
                np.uint64(stop - start),
                np.uint64(channels),
                np.uint64(left),
                out,
            )
        start, stop = width - stop, width - start
    else:
        # All lines are one copy; what comes to the sides from the lines above and below is cleared.
        offset = down * line + right * channels
        count = max(0, out.size - abs(offset))
        part, shifted = out[max(0, -offset) :][:count], source[max(0, offset) :][:count]
        for j in range(part.size):
            part[j] = shifted[j]
    out[: top * line] = 0
    out[bottom * line :] = 0
    for y in range(top, bottom):
        _clear(np.uint64(y * line), np.uint64(start * channels), out)
        _clear(np.uint64(y * line + stop * channels), np.uint64((width - stop) * channels), out)


@kernel(
    "void(u1[:,::1], i8[::1], i8[::1], i8, V, V, i8, i8, i8, b1, i8, f8, M)",
    "void(M, i8[::1], i8[::1], i8, V, V, i8, i8, i8, b1, i8, f8, M)",
)
def gather_augmented(
    table, places, rows, draw, shift, scale, height, width, channels, flip, crop, noise, out
):
    """``out[i] = (moved - shift) * scale + noise * normal``, where ``moved`` is ``table[places[i]]``, cropped and mirrored.

    Parameters
    ----------
    table : shape (n, features)
    places : int64, shape (r,), of rows in the table
    rows : int64, shape (r,), their numbers in the data set, with ``draw`` (int64) the source of all that is random
    shift, scale : shape (features,)
    height, width, channels : int64, whose product is features
    flip, crop, noise : as in ``augmentation.Augmentation``; crop at most height and width
    out : shape (at least r, features)
    """
    draw_key, choices = chain(np.uint64(draw), np.uint64(PURPOSE)), np.uint64(2 * crop + 1)
    for i in range(places.size):
        source, target = table[places[i]], out[i]
        key = chain(draw_key, np.uint64(rows[i]))
        bits = number(key, np.uint64(0))
        mirrored = flip and bits & np.uint64(1) == 1
        # Of 2**32 and of 2**31 equally likely numbers, each place gets as many as any other, or one more.
        down = np.int64((bits >> np.uint64(32)) * choices >> np.uint64(32)) - crop
        right = (
            np.int64(((bits & np.uint64(0xFFFFFFFF)) >> np.uint64(1)) * choices >> np.uint64(31))
            - crop
        )
        if mirrored or down != 0 or right != 0:
            _move(source, height, width, channels, down, right, mirrored, target)
            for j in range(target.size):
                target[j] = (target[j] - shift[j]) * scale[j]
        else:
            for j in range(target.size):
                target[j] = (source[j] - shift[j]) * scale[j]
        if noise > 0:
            add_noise(key, noise, target)
