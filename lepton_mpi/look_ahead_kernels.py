"""Memory that will be read soon, told by whoever knows to whoever can ask the caches for it meanwhile. Numba kernels.

It is a vector of int64: bytes of each part, the part and the byte in it that is asked for next, the number of calls of
the model that share the asking, and from FIRST_PART on the addresses of the parts. The loader tells where the rows are
that it will gather next; a model asks for them, a few lines at a time, while a product computes.
"""

from numba import njit

from lepton_mpi.intrinsics import base_address, prefetch

PART_BYTES, NEXT_PART, NEXT_BYTE, SHARES, FIRST_PART = range(5)
_LINE_BYTES = 64

_options = {"cache": True, "nogil": True}
_TELL = [f"void({kind}[:,::1], i8[::1], i8, i8[::1])" for kind in ("u1", "f4", "f8")]


@njit(_TELL, **_options)
def tell_rows(table, rows, shares, ahead):
    """Rows ``rows`` of ``table`` are next, after ``shares`` calls. Shapes (n, features), (r,), (FIRST_PART + r,)."""
    first, row_bytes = base_address(table), table.shape[1] * table.itemsize
    ahead[PART_BYTES], ahead[NEXT_PART], ahead[NEXT_BYTE] = row_bytes, FIRST_PART, 0
    ahead[SHARES] = shares
    for i in range(rows.size):
        ahead[FIRST_PART + i] = first + rows[i] * row_bytes


@njit("i8(i8[::1])", **_options)
def line_count(ahead):
    """Cache lines to be asked for in one call of the model, at most."""
    if ahead.size <= FIRST_PART:
        return 0
    lines = (ahead.size - FIRST_PART) * (1 + ahead[PART_BYTES] // _LINE_BYTES)
    return -(-lines // ahead[SHARES])


@njit("void(i8[::1], i8)", **_options)
def ask_ahead(ahead, lines):
    """Ask for the next ``lines`` cache lines, without waiting for them."""
    if ahead.size <= FIRST_PART:
        return
    part, byte = ahead[NEXT_PART], ahead[NEXT_BYTE]
    for _ in range(lines):
        if part >= ahead.size:
            break
        prefetch(ahead[part] + byte)
        byte += _LINE_BYTES
        if byte >= ahead[PART_BYTES]:
            part, byte = part + 1, 0
    ahead[NEXT_PART], ahead[NEXT_BYTE] = part, byte


@njit("void(i8, i8)", **_options)
def ask_for(address, byte_count):
    """Ask the caches for memory that will be read soon."""
    for byte in range(0, byte_count, _LINE_BYTES):
        prefetch(address + byte)
