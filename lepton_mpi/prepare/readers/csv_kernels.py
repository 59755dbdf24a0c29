"""Numba kernels for CSV text: where its cells are, and which numbers they hold."""

from lepton_mpi.kernels.compiling import inlined, inner, kernel

# What ``split_cells`` reports in found[2].
FINE, UNCLOSED, AFTER_QUOTE, INSIDE_CELL = range(4)
# What ``parse_numbers`` says of a cell.
NUMBER, EMPTY, TEXT, LONG_NUMBER = range(4)

_SPACE, _TAB, _NEWLINE, _RETURN = 32, 9, 10, 13
_PLUS, _MINUS, _ZERO, _NINE, _E, _SMALL_E = 43, 45, 48, 57, 69, 101


@kernel("void(u1[::1], i8, i8, i8[::1], i8[::1], b1[::1], i8[::1], i8[::1], i8[::1])")
def split_cells(text, delimiter, quote, starts, stops, doubled, record_cells, record_starts, found):
    """Bounds of every cell, by RFC 4180: quoted cells may hold delimiters, newlines, and doubled quotes.

    Spaces around a cell and a carriage return before the newline belong to no cell; lines of blanks alone are no records.
    With a space as the delimiter, several count as one. ``quote`` 0 takes quotes as ordinary characters.

    Shapes: text (bytes,), starts, stops, doubled (at least the cells,): doubled tells that two quotes in the cell mean
    one; record_cells, record_starts (at least the records + 1,): number of the first cell and first byte of each
    record; found (4,): cells, records, what is wrong (FINE, UNCLOSED, …), and the byte where.
    """
    size = text.size
    position, cell, record, wrong = 0, 0, 0, FINE
    merge = delimiter == _SPACE
    while position < size and wrong == FINE:
        position = _next_record(text, position, delimiter)
        if position == size:
            break
        record_cells[record] = cell
        record_starts[record] = position
        record += 1
        in_record = True
        while in_record:
            while position < size and _is_blank(text[position]) and text[position] != delimiter:
                position += 1
            if quote != 0 and position < size and text[position] == quote:
                starts[cell] = position + 1
                stops[cell], position, doubled[cell], wrong = _quoted(
                    text, position, delimiter, quote
                )
            else:
                starts[cell] = position
                stops[cell], position, wrong = _plain(text, position, delimiter, quote)
                doubled[cell] = False
            if wrong != FINE:
                break
            cell += 1
            if merge:
                after = position
                while after < size and (text[after] == _SPACE or text[after] == _RETURN):
                    after += 1
                position = after if after == size or text[after] == _NEWLINE else after - 1
            in_record = position < size and text[position] == delimiter
            if position < size:
                position += 1
    record_cells[record] = cell
    found[0], found[1], found[2], found[3] = cell, record, wrong, position


@inner
def _next_record(text, begin, delimiter):
    """First byte from ``begin`` that is of a record, or the end; a tab may be the delimiter before an empty cell."""
    size, position = text.size, begin
    while position < size:
        c = text[position]
        if not (c in (_NEWLINE, _RETURN, _SPACE) or (c == _TAB and c != delimiter)):
            break
        position += 1
    return position


@inlined
def _is_blank(c):
    return c in (_SPACE, _TAB)


@inner
def _quoted(text, begin, delimiter, quote):
    """End of the cell whose first quote is at ``begin``, where to go on, whether quotes are doubled, and what is wrong."""
    size, doubled, stop = text.size, False, begin + 1
    while stop < size:
        if text[stop] == quote:
            if stop + 1 < size and text[stop + 1] == quote:
                doubled = True
                stop += 1
            else:
                break
        stop += 1
    if stop >= size:
        return stop, begin, doubled, UNCLOSED
    position = stop + 1
    while position < size and text[position] != delimiter and text[position] != _NEWLINE:
        if not _is_blank(text[position]) and text[position] != _RETURN:
            return stop, position, doubled, AFTER_QUOTE
        position += 1
    return stop, position, doubled, FINE


@inner
def _plain(text, begin, delimiter, quote):
    """End of a cell without quotes that begins at ``begin``, where to go on, and what is wrong."""
    size, position = text.size, begin
    while position < size and text[position] != delimiter and text[position] != _NEWLINE:
        if quote != 0 and text[position] == quote:
            return position, position, INSIDE_CELL
        position += 1
    end = position
    while end > begin and (_is_blank(text[end - 1]) or text[end - 1] == _RETURN):
        end -= 1
    return end, position, FINE


@kernel("void(u1[::1], i8[::1], i8[::1], i8, f8[::1], f8[::1], u1[::1])")
def parse_numbers(text, starts, stops, decimal, powers, numbers, kinds):
    """Number of every cell that is one, and what the others are.

    A number of at most 2**53 without its point, and within 22 powers of ten, is exact: one operation on two exact
    numbers rounds once (Clinger, "How to read floating point numbers accurately", PLDI 1990). Cells that need more
    digits are marked LONG_NUMBER and left to the caller.

    Shapes: starts, stops, numbers, kinds (cells,); powers (23,) holds 1, 10, … 1e22; decimal is a byte.
    """
    for i in range(starts.size):
        position, stop = starts[i], stops[i]
        numbers[i] = 0.0
        if position == stop:
            kinds[i] = EMPTY
            continue
        negative = text[position] == _MINUS
        if negative or text[position] == _PLUS:
            position += 1
        mantissa, digits, exponent, seen_point = 0, 0, 0, False
        long = False
        while position < stop:
            c = text[position]
            if _ZERO <= c <= _NINE:
                digits += 1
                if mantissa < 1000000000000000:
                    mantissa = mantissa * 10 + (c - _ZERO)
                    if seen_point:
                        exponent -= 1
                else:
                    long = True
            elif c == decimal and not seen_point:
                seen_point = True
            else:
                break
            position += 1
        good = digits > 0
        if good and position < stop and (text[position] == _E or text[position] == _SMALL_E):
            position += 1
            below = False
            if position < stop and (text[position] == _MINUS or text[position] == _PLUS):
                below = text[position] == _MINUS
                position += 1
            power, digits = 0, 0
            while position < stop and _ZERO <= text[position] <= _NINE:
                digits += 1
                power = min(power * 10 + (text[position] - _ZERO), 100000)
                position += 1
            good = digits > 0
            exponent += -power if below else power
        if not good or position < stop:
            kinds[i] = TEXT
            continue
        if long or mantissa > 9007199254740992 or exponent < -22 or exponent > 22:
            kinds[i] = LONG_NUMBER
            continue
        value = float(mantissa)
        value = value / powers[-exponent] if exponent < 0 else value * powers[exponent]
        numbers[i] = -value if negative else value
        kinds[i] = NUMBER
