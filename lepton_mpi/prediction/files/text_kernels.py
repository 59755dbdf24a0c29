"""Numba kernels for the lines of a text file: numbers as C's printf writes them, and cells put side by side."""

import math

import numpy as np

from lepton_mpi.kernels.compiling import inlined, inner, kernel
from lepton_mpi.kernels.intrinsics import vector_at, words_at

# Bytes of a number at most: -1.7976931348623157e+308, or -9223372036854775808.
NUMBER_BYTES = 24
# In place of an exponent: a number that the kernel leaves to the caller, and what has no digits.
UNDECIDED, NAN, INFINITY, MINUS_ZERO = range(1 << 20, (1 << 20) + 4)

# Words of a column: its kind; its place among the floats, or the address of whole numbers, which of a text are the number of a
# cell; of texts also the addresses of where cells begin, how long they are, and their bytes.
KIND, VALUES, STARTS, LENGTHS, BYTES = range(5)
COLUMN_WORDS = 5
FLOATS, INTEGERS, TEXTS = range(3)

_MINUS, _POINT, _ZERO, _E, _PLUS = 45, 46, 48, 101, 43
_PAIRS = np.frombuffer("".join(f"{number:02d}" for number in range(100)).encode(), np.uint8)
# Powers of ten that the caller has beside 1e0, in both directions, and what a product with one of them may be wrong by, at most
# 1e17 * 2**-100.
POWER_MAX = 290
_DOUBT = 1e-9
# 2**27 + 1, which splits a float64 into halves whose products are exact.
_SPLITTER = 134217729.0
# Of a float64: where its exponent is, and what 0 is there; 2**18 times the logarithm of 2 to the base of 10.
_FRACTION_BITS, _EXPONENT_OF_ONE, _LOG10_OF_2 = 52, 1023, 78913
_POWERS = 10 ** np.arange(19)


@kernel("void(f8[:, ::1], i8, f8[::1], f8[::1], i8, i8[:, ::1], i8[:, ::1])")
def round_floats(values, digits, high, low, first, numbers, exponents):
    """Every value as a whole number of ``digits`` digits, correctly rounded, with its sign, and the power of ten of its first digit.

    A value is multiplied by a power of ten, of which two float64 hold 107 bits, and rounded
    (Dekker, "A floating-point technique for extending the available precision", 1971). UNDECIDED is what is beyond
    1e270 or below 1e-270, and what lies as good as in the middle between two such numbers.

    Shapes: values (rows, columns); numbers, exponents (rows, any), where columns from ``first`` on are filled; high, low
    (2 POWER_MAX + 1,), whose sum is a power of ten, 1 in the middle.
    """
    least = _POWERS[digits - 1]
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j]
            size = abs(value)
            number, exponent = 0, UNDECIDED
            if size == 0:
                exponent = MINUS_ZERO if math.copysign(1.0, value) < 0 else 0
            elif math.isnan(value):
                exponent = NAN
            elif math.isinf(value):
                number, exponent = 1, INFINITY
            elif 1e-270 < size < 1e270:
                number, exponent = _rounded(size, digits, high, low, least)
            numbers[i, first + j] = -number if value < 0 else number
            exponents[i, first + j] = exponent


@inlined
def _rounded(value, digits, high, low, least):
    power_of_2 = (np.float64(value).view(np.int64) >> _FRACTION_BITS) - _EXPONENT_OF_ONE
    exponent = (power_of_2 * _LOG10_OF_2) >> 18  # it, or one less
    if value >= high[POWER_MAX + exponent + 1]:
        exponent += 1
    number = _scaled(value, digits - 1 - exponent, high, low, least)
    if number == -2:  # the power of ten was rounded
        exponent -= 1
        number = _scaled(value, digits - 1 - exponent, high, low, least)
    elif number == -3:
        exponent += 1
        number = _scaled(value, digits - 1 - exponent, high, low, least)
    if number < 0:
        return 0, UNDECIDED
    if number == 10 * least:
        return least, exponent + 1
    return number, exponent


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


@kernel("i8(i8[:, ::1], i8, i8, i8, i8[:, ::1], i8[:, ::1], u1, u1[::1], i8)")
def write_lines(columns, start, stop, digits, numbers, exponents, separator, out, at):
    """Write rows [start, stop) as lines into ``out`` from byte ``at`` on; returns where they end.

    Shapes: columns (any, COLUMN_WORDS), whose addresses are of row 0; numbers, exponents (stop - start, floats), of ``round_floats``
    with as many ``digits``; out (bytes,), with room for the longest lines.
    """
    for row in range(start, stop):
        for j in range(columns.shape[0]):
            column = columns[j]
            if column[KIND] == FLOATS:
                place = column[VALUES]
                at = _float(
                    numbers[row - start, place], exponents[row - start, place], digits, out, at
                )
            else:
                value = words_at(column[VALUES], row + 1)[row]
                if column[KIND] == INTEGERS:
                    at = _integer(value, out, at)
                else:
                    begin = words_at(column[STARTS], value + 1)[value]
                    length = words_at(column[LENGTHS], value + 1)[value]
                    text = vector_at(out, column[BYTES] + begin, length)
                    for k in range(length):
                        out[at + k] = text[k]
                    at += length
            out[at] = separator
            at += 1
        out[at - 1] = 10  # a line feed
    return at


@inner
def _float(number, exponent, digits, out, at):
    """A number of ``round_floats`` as ``%.{digits}g``; returns where it ends."""
    if number < 0 or exponent == MINUS_ZERO:
        out[at] = _MINUS
        at, number = at + 1, -number
    if exponent >= UNDECIDED and exponent != MINUS_ZERO:
        text = b"nan" if exponent == NAN else b"inf"
        for k in range(3):
            out[at + k] = text[k]
        return at + 3
    if number == 0:
        out[at] = _ZERO
        return at + 1
    count = digits
    while True:
        tenth = _divided(number, 10)
        if tenth * 10 != number:
            break
        number, count = tenth, count - 1
    before = exponent + 1  # digits before the point
    if -4 <= exponent < 0:
        out[at], out[at + 1] = _ZERO, _POINT
        at += 2
        for _ in range(-before):
            out[at] = _ZERO
            at += 1
        return _digits(number, count, out, at)
    has_power = exponent < 0 or exponent >= digits
    if has_power:
        before = 1
    if count <= before:
        at = _digits(number * _POWERS[before - count], before, out, at)
    else:
        power = _POWERS[count - before]
        whole = _divided(number, power)
        at = _digits(whole, before, out, at)
        out[at] = _POINT
        at = _digits(number - whole * power, count - before, out, at + 1)
    if has_power:
        out[at] = _E
        out[at + 1] = _MINUS if exponent < 0 else _PLUS
        power = abs(exponent)
        at = _digits(power, 3 if power > 99 else 2, out, at + 2)
    return at


@inlined
def _divided(number, by):
    """Of numbers that are not negative, without Python's questions about signs and 0."""
    return np.int64(np.uint64(number) // np.uint64(by))


@inner
def _digits(number, count, out, at):
    """The last ``count`` digits of a number that is not negative; returns where they end."""
    place = at + count
    while place - at > 1:
        rest = _divided(number, 100)
        pair = 2 * (number - 100 * rest)
        out[place - 2], out[place - 1] = _PAIRS[pair], _PAIRS[pair + 1]
        number = rest
        place -= 2
    if place > at:
        out[at] = _ZERO + number - 10 * _divided(number, 10)
    return at + count


@inner
def _integer(value, out, at):
    """In decimal digits; returns where they end."""
    if value < 0:
        out[at] = _MINUS
        at += 1
    size = np.uint64(0) - np.uint64(value) if value < 0 else np.uint64(value)
    last = size // np.uint64(10)  # the least number has no positive one, but without its last digit
    rest, count = np.int64(last), 1
    while rest > 0:
        rest, count = _divided(rest, 10), count + 1
    _digits(np.int64(last), count - 1, out, at)
    out[at + count - 1] = _ZERO + np.int64(size - np.uint64(10) * last)
    return at + count
