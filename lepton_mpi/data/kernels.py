"""Numba kernels of the loader."""

import numpy as np

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.intrinsics import LINE_BYTES, base_address, prefetch

# Rows lie far apart, and a row is read faster than memory answers. Rows of 784 bytes, nanoseconds a row by how many are
# asked for ahead: 0 281, 1 176, 2 142, 4 133, 8 129; from the cache 68 to 70 (``./run_local.sh bench gather``). Rows that
# are longer than this the processor reads ahead itself.
_ROWS_AHEAD, _AHEAD_BYTES_MAX = 4, 4096


@kernel("void(i8, i8)")
def ask_for(address, byte_count):
    """Ask the caches for memory that will be read soon."""
    for byte in range(0, byte_count, LINE_BYTES):
        prefetch(address + byte)


@kernel("void(u1[:,::1], i8[::1], V, V, M)", "void(M, i8[::1], V, V, M)")
def gather_rows(table, rows, shift, scale, out):
    """``out[i, j] = (table[rows[i], j] - shift[j]) * scale[j]``.

    Shapes: table (n, features), rows (r,), shift and scale (features,), out (at least r, features).
    """
    first, row_bytes = base_address(table), table.shape[1] * table.itemsize
    ahead_bytes = min(row_bytes, _AHEAD_BYTES_MAX)
    for i in range(min(_ROWS_AHEAD, rows.size)):
        ask_for(first + rows[i] * row_bytes, ahead_bytes)
    for i in range(rows.size):
        if i + _ROWS_AHEAD < rows.size:
            ask_for(first + rows[i + _ROWS_AHEAD] * row_bytes, ahead_bytes)
        source = table[rows[i]]
        target = out[i]
        for j in range(target.size):
            target[j] = (source[j] - shift[j]) * scale[j]


@kernel(*[f"void({code}[:,::1], i8[::1], i4[:,::1])" for code in ("u1", "u2", "i4")])
def gather_codes(table, rows, out):
    """``out[i, j] = table[rows[i], j]``. Shapes: table (n, k), rows (r,), out (at least r, k)."""
    for i in range(rows.size):
        source = table[rows[i]]
        target = out[i]
        for j in range(target.size):
            target[j] = source[j]


@kernel(
    *[
        f"i8({code}[::1], i8[::1], i8[::1], i8[::1], i8[::1], i8, i4[:,::1], i4[:,::1])"
        for code in ("u1", "u2", "i4")
    ]
)
def gather_windows(tokens, places, starts, skipped, documents, values, x, y):
    """Rows of tokens and the tokens behind each of them; the first row with a token outside [0, values), or -1.

    Row i of ``x``, shape (at least r, length), is tokens[places[i] : places[i] + length], and of ``y`` the same one token
    later; -1 for the first skipped[i] of them, and for those with which a document begins. ``documents`` are positions in the
    whole text, ascending; starts[i] is the position of the first token of row i.
    """
    length = x.shape[1]
    for i in range(places.size):
        here, ahead = x[i], y[i]
        first = places[i]
        lowest, highest = tokens[first], tokens[first]
        for j in range(length):
            here[j] = tokens[first + j]
        for j in range(length):
            token = tokens[first + 1 + j]
            lowest, highest = min(lowest, token), max(highest, token)
            ahead[j] = token
        if lowest < 0 or highest >= values:
            return i
        for j in range(skipped[i]):
            ahead[j] = -1
        begin = starts[i] + 1
        for k in range(np.searchsorted(documents, begin), documents.size):
            if documents[k] > starts[i] + length:
                break
            ahead[documents[k] - begin] = -1
    return -1


@kernel("i8(i4[::1], i8[::1], i4[::1])")
def gather_labels(labels, rows, out):
    """``out[i] = labels[rows[i]]``; returns the number of rows. Shapes (n,), (r,), (at least r,)."""
    for i in range(rows.size):
        out[i] = labels[rows[i]]
    return rows.size


@kernel("i8(M, i8[::1], M)")
def gather_targets(targets, rows, out):
    """``out[i] = targets[rows[i]]``; returns the number of rows. Shapes (n, k), (r,), (at least r, k)."""
    for i in range(rows.size):
        source = targets[rows[i]]
        target = out[i]
        for j in range(target.size):
            target[j] = source[j]
    return rows.size


# Of the file's type, which may be another one than the run's.
@kernel("b1(f4[:,::1])", "b1(f8[:,::1])")
def all_finite(block):
    """Whether no number of ``block``, shape (rows, any), is infinite or none."""
    for i in range(block.shape[0]):
        row = block[i]
        wrong = 0
        for j in range(row.size):
            wrong += row[j] - row[j] != 0
        if wrong:
            return False
    return True
