"""Numba kernels for the lines of a text file: numbers as C's printf writes them, and cells put side by side."""

import math

from lepton_mpi.kernels.compiling import inner, kernel

# Bytes of a number at most: -1.7976931348623157e+308, or -9223372036854775808.
CELL_BYTES = 24
# Length of a cell that the kernel leaves to the caller.
UNDECIDED = -1

_MINUS, _POINT, _ZERO, _E, _PLUS = 45, 46, 48, 101, 43
# Powers of ten that the caller has beside 1e0, in both directions, and what a product with one of them may be wrong by, at most
# 1e17 * 2**-100.
POWER_MAX = 290
_DOUBT = 1e-9
# 2**27 + 1, which splits a float64 into halves whose products are exact.
_SPLITTER = 134217729.0


@kernel("void(f8[::1], i8, f8[::1], f8[::1], u1[:, ::1], i8[::1])")
def print_floats(values, digits, high, low, cells, lengths):
    """Every value as ``%.{digits}g``, correctly rounded; its bytes and how many.

    A value is multiplied by a power of ten, of which two float64 hold 107 bits, and rounded to a whole number of ``digits`` digits
    (Dekker, "A floating-point technique for extending the available precision", 1971). UNDECIDED are what is no number, what is beyond
    1e270 or below 1e-270, and what lies as good as in the middle between two such numbers.

    Shapes: values, lengths (rows,); cells (rows, CELL_BYTES); high, low (2 POWER_MAX + 1,), whose sum is a power of ten, 1 in the middle.
    """
    least = 1
    for _ in range(digits - 1):
        least *= 10
    for i in range(values.size):
        value, cell = values[i], cells[i]
        at = 0
        if math.copysign(1.0, value) < 0:
            cell[0] = _MINUS
            at, value = 1, -value
        if value == 0:
            cell[at] = _ZERO
            lengths[i] = at + 1
            continue
        lengths[i] = UNDECIDED
        if not 1e-270 < value < 1e270:
            continue
        exponent = math.floor(math.log10(value))
        number = _scaled(value, digits - 1 - exponent, high, low, least)
        if number == -2:  # the logarithm was rounded to the next whole number
            exponent -= 1
            number = _scaled(value, digits - 1 - exponent, high, low, least)
        elif number == -3:
            exponent += 1
            number = _scaled(value, digits - 1 - exponent, high, low, least)
        if number < 0:
            continue
        if number == 10 * least:
            number, exponent = least, exponent + 1
        lengths[i] = _print(number, exponent, digits, cell, at)


@inner
def _scaled(value, power, high, low, least):
    """``value`` times a power of ten as a whole number from ``least`` to ten times that; -1: in doubt; -2, -3: below, above."""
    big, small = high[POWER_MAX + power], low[POWER_MAX + power]
    product = value * big
    part = value * _SPLITTER
    upper = part - (part - value)
    lower = value - upper
    part = big * _SPLITTER
    big_upper = part - (part - big)
    big_lower = big - big_upper
    error = ((upper * big_upper - product) + upper * big_lower + lower * big_upper) + (
        lower * big_lower
    )
    rest = error + value * small
    total = product + rest
    rest -= total - product
    if total >= 20.0 * least:
        return -3
    number = int(total)
    fraction = (total - number) + rest
    whole = math.floor(fraction)  # not 0 or -1 where total has more than 53 bits
    number += int(whole)
    fraction -= whole
    if number < least:
        return -2
    if number >= 10 * least:
        return -3
    if fraction > 0.5 + _DOUBT:
        return number + 1
    return number if fraction < 0.5 - _DOUBT else -1


@inner
def _print(number, exponent, digits, cell, at):
    """The digits of a whole number as those of a value of that exponent; returns the length."""
    count = digits
    while number % 10 == 0:  # it is not 0
        number //= 10
        count -= 1
    if -4 <= exponent < digits:
        if exponent < 0:
            cell[at], cell[at + 1] = _ZERO, _POINT
            at += 2
            for _ in range(-exponent - 1):
                cell[at] = _ZERO
                at += 1
            return _digits(number, count, -1, cell, at)
        for _ in range(exponent + 1 - count):
            number *= 10
        return _digits(number, max(count, exponent + 1), exponent + 1, cell, at)
    at = _digits(number, count, 1, cell, at)
    cell[at] = _E
    cell[at + 1] = _MINUS if exponent < 0 else _PLUS
    power = abs(exponent)
    return _digits(power, 3 if power > 99 else 2, -1, cell, at + 2)


@inner
def _digits(number, count, point, cell, at):
    """``count`` digits, with a point behind ``point`` of them if more follow; returns where they end."""
    end = at + count + (0 < point < count)
    place = end - 1
    for left in range(count, 0, -1):
        cell[place] = _ZERO + number % 10
        number //= 10
        place -= 1
        if left - 1 == point:
            cell[place] = _POINT
            place -= 1
    return end


@kernel("void(i8[::1], u1[:, ::1], i8[::1])")
def print_integers(values, cells, lengths):
    """Every value in decimal digits. Shapes: values, lengths (rows,); cells (rows, CELL_BYTES)."""
    for i in range(values.size):
        value, cell, at = values[i], cells[i], 0
        if value < 0:
            cell[0] = _MINUS
            at = 1
        count, rest = 1, _tenth(value)
        while rest != 0:
            count += 1
            rest = _tenth(rest)
        for place in range(at + count - 1, at - 1, -1):
            rest = _tenth(value)
            cell[place] = _ZERO + abs(value - 10 * rest)  # the least number has no positive one
            value = rest
        lengths[i] = at + count


@inner
def _tenth(value):
    """``value / 10`` towards 0, also of the least number, which has no opposite."""
    quotient = value // 10
    return quotient + (value < 0 and 10 * quotient != value)


@kernel("void(u1[::1], i8[::1], i8[::1], u1, u1[::1], i8[::1])")
def append_cells(bytes_, starts, lengths, behind, out, places):
    """Put a cell and the byte ``behind`` it into every line, whose end is ``places``.

    Shapes: bytes_ (bytes,), in which cells are; starts, lengths, places (rows,); out (bytes,).
    """
    for i in range(starts.size):
        place, start = places[i], starts[i]
        for k in range(lengths[i]):
            out[place + k] = bytes_[start + k]
        place += lengths[i]
        out[place] = behind
        places[i] = place + 1
