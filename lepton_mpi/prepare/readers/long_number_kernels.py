"""Numba kernel for numbers of many digits or large powers of ten, rounded as the nearest float64, ties to even.

The first 19 digits are a whole number w of 64 bits, and the cell is w * 10**q. Eisel and Lemire (Lemire, "Number parsing at a
gigabyte per second", 2021) multiply w by the first 64 bits of 5**q; the product's upper bits are those of the result unless
they end in ones only, where another 64 bits of 5**q decide. That these always do was shown by Mushtak and Lemire ("Fast
number parsing without fallback", 2023). Of more than 19 digits, both w and w + 1 are rounded: if they give the same number, so
does what lies between; else, about once in a thousand such cells, the caller rounds.
"""

import numpy as np

from lepton_mpi.kernels.compiling import inner, kernel

# Powers of ten beyond which every number of 19 digits is 0, or infinite.
_LOWEST, _HIGHEST = -342, 308
_DIGITS_MAX = 19
_INFINITE_BITS = np.uint64(0x7FF0000000000000)
_HALF = np.uint64(0xFFFFFFFF)
_0, _1, _3, _9, _10, _32, _52, _63 = (np.uint64(n) for n in (0, 1, 3, 9, 10, 32, 52, 63))
_HIDDEN_BIT = np.uint64(1 << 52)
_LAST_9_BITS = np.uint64(0x1FF)
_SIGN_BIT = np.uint64(1 << 63)
_MINUS, _PLUS, _ZERO, _E, _SMALL_E = 45, 43, 48, 69, 101


def powers_of_five() -> np.ndarray:
    """First 128 bits of 5**q for q from -342 to 308: uint64 (651, 2), upper half first."""
    table = []
    for q in range(_LOWEST, _HIGHEST + 1):
        if q < 0:
            power, z = 5**-q, (5**-q - 1).bit_length()
            bits = 2 ** (z + 127) // power + 1 if q >= -27 else 2 ** (2 * z + 128) // power + 1
        else:
            bits = 5**q << max(0, 128 - (5**q).bit_length())
        bits >>= max(0, bits.bit_length() - 128)
        table.append((bits >> 64, bits & (1 << 64) - 1))
    return np.array(table, np.uint64)


@inner
def _product(a, b):
    """Upper and lower 64 bits of a * b, all uint64."""
    a_low, a_high, b_low, b_high = a & _HALF, a >> _32, b & _HALF, b >> _32
    low, middle, other, high = a_low * b_low, a_high * b_low, a_low * b_high, a_high * b_high
    carry = (low >> _32) + (middle & _HALF) + (other & _HALF)
    return high + (middle >> _32) + (other >> _32) + (carry >> _32), a * b


@inner
def _leading_zeros(w):
    count, step = 0, 32
    while step:
        if w >> np.uint64(64 - step) == _0:
            count += step
            w <<= np.uint64(step)
        step >>= 1
    return count


@inner
def _bits_of(w, q, table):
    """Bits of the float64 nearest to w * 10**q, w uint64."""
    if w == _0 or q < _LOWEST:
        return _0
    if q > _HIGHEST:
        return _INFINITE_BITS
    zeros = _leading_zeros(w)
    w <<= np.uint64(zeros)
    high, low = _product(w, table[q - _LOWEST, 0])
    if high & _LAST_9_BITS == _LAST_9_BITS:
        more, _ = _product(w, table[q - _LOWEST, 1])
        low += more
        if more > low:
            high += _1
    upper = int(high >> _63)
    shift = np.uint64(upper + 9)
    mantissa = high >> shift
    power = ((217706 * q) >> 16) + 63 + upper - zeros + 1023
    if power <= 0:  # below the smallest number of full precision
        if 1 - power >= 64:
            return _0
        mantissa >>= np.uint64(1 - power)
        mantissa += mantissa & _1
        return mantissa >> _1
    if low <= _1 and -4 <= q <= 23 and mantissa & _3 == _1 and mantissa << shift == high:
        mantissa &= ~_1  # halfway between two numbers: the even one
    mantissa += mantissa & _1
    mantissa >>= _1
    if mantissa >= _HIDDEN_BIT << _1:
        mantissa = _HIDDEN_BIT
        power += 1
    if power >= 0x7FF:
        return _INFINITE_BITS
    return (mantissa & ~_HIDDEN_BIT) | (np.uint64(power) << _52)


@kernel("void(u1[::1], i8[::1], i8[::1], i8[::1], i8, u8[:,::1], u8[::1], b1[::1])")
def round_long_numbers(text, cells, starts, stops, decimal, table, bits, done):
    """Round cells that are decimal numbers, as ``csv_kernels.parse_numbers`` finds them.

    Shapes: cells (n,), numbers of cells; starts, stops (cells,); table as ``powers_of_five``; bits (cells,), float64 seen as
    uint64, set where done; done (n,): whether it is, or left to the caller.
    """
    for i in range(cells.size):
        cell = cells[i]
        position, stop = starts[cell], stops[cell]
        negative = text[position] == _MINUS
        if negative or text[position] == _PLUS:
            position += 1
        w, digits, power, seen_point, more = _0, 0, 0, False, False
        while position < stop:
            c = text[position]
            if c == decimal:
                seen_point = True
            elif c in (_E, _SMALL_E):
                break
            elif digits < _DIGITS_MAX:
                w = w * _10 + np.uint64(c - _ZERO)
                digits += w != _0
                power -= seen_point
            else:
                more |= c != _ZERO
                power += not seen_point
            position += 1
        if position < stop:
            position += 1
            below = text[position] == _MINUS
            if below or text[position] == _PLUS:
                position += 1
            exponent = 0
            while position < stop:
                exponent = min(exponent * 10 + (text[position] - _ZERO), 100000)
                position += 1
            power += -exponent if below else exponent
        found = _bits_of(w, power, table)
        done[i] = not more or _bits_of(w + _1, power, table) == found
        if done[i]:
            bits[cell] = found | _SIGN_BIT if negative else found
