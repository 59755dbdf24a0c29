"""Numba kernels of attention, in blocks of queries and keys, so that no array is queries x keys.

A block of scores lies transposed, keys x queries: then the softmax over keys runs down columns, in vectors of queries, and sums need no
reordering. Products are those of ``product_kernels.py`` on heads where they lie, beside each other in the rows of one matrix.

    for each block of queries            for each block of keys that they see
        s = k @ q.T / sqrt(size)             highest, the sum and out are those of the keys so far:
        p = exp(s - highest)                 what is there is multiplied by exp(old highest - new highest)

Source: Dao, Fu, Ermon, Rudra, Ré, "FlashAttention", NeurIPS 2022; the running softmax Milakov and Gimelshein, 2018.
"""

import math

import numpy as np

from lepton_mpi.kernels.compiling import inner, kernel
from lepton_mpi.kernels.elementary_kernels import exp
from lepton_mpi.kernels.intrinsics import base_address
from lepton_mpi.kernels.product_kernels import panel, panel_left
from lepton_mpi.kernels.tile_kernels import VECTOR_BYTES, VECTORS
from lepton_mpi.kernels.transpose_kernels import transpose_block

# Queries and keys of a block: its scores, 8 KiB in float32, stay in the nearest cache with what they are made of.
QUERIES, KEYS = 32, 64
# What ``shape`` holds.
ROWS, HEADS, GROUPS, SIZE, LENGTH, FIRST, KEY_COUNT, KEY_ROWS, CAUSAL = range(9)
_ZERO = np.float32(0)


@inner
def _times(like, row_count, n, c, c_row, a, a_row, b, b_row, count, places, is_first):
    """``c = a @ b`` or ``c += …``: addresses, bytes from row to row; ``places`` of 0, 1, …"""
    width = VECTORS * VECTOR_BYTES // like.itemsize
    for column in range(0, n, width):
        at, at_b, columns = c + column * like.itemsize, b + column * like.itemsize, n - column
        columns = min(columns, width)
        panel(
            *(like, row_count, columns, at, c_row, a, places, a_row),
            *(at_b, b_row, count, is_first, False),
        )


@inner
def _times_left(like, row_count, n, c, c_row, a, a_row, b, b_row, count, places, is_first):
    """``c = a.T @ b`` or ``c += …``, as ``_times``."""
    width = VECTORS * VECTOR_BYTES // like.itemsize
    for column in range(0, n, width):
        at, at_b, columns = c + column * like.itemsize, b + column * like.itemsize, n - column
        columns = min(columns, width)
        panel_left(
            *(like, row_count, columns, at, c_row, a, places, a_row),
            *(at_b, b_row, count, is_first),
        )


@inner
def _turn(like, rows, columns, source, source_row, target):
    """The transposed of (rows, columns) at ``source``, to rows of ``rows`` numbers at ``target``."""
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    for i in range(0, rows, lanes):
        for j in range(0, columns, lanes):
            shape = min(lanes, rows - i), min(lanes, columns - j)
            from_, to = source + i * source_row + j * size, target + (j * rows + i) * size
            transpose_block(like, *shape, from_, source_row, to, rows * size)


@inner
def _scale(numbers, factor):
    for i in range(numbers.size):
        numbers[i] *= factor


@inner
def _hide(scores, first_key, first_query):
    """-inf for keys behind the query."""
    low = scores.dtype.type(-np.inf)
    for j in range(scores.shape[0]):
        row = scores[j]
        for i in range(min(max(first_key + j - first_query, 0), row.size)):
            row[i] = low


@inner
def _fold(scores, highest, total, change):
    """Turn scores into exponentials, and fold them into the maximum and the sum so far; ``change`` is for what was summed."""
    for i in range(highest.size):
        change[i] = highest[i]
    for j in range(scores.shape[0]):
        row = scores[j]
        for i in range(row.size):
            highest[i] = highest[i] if highest[i] > row[i] else row[i]
    for i in range(highest.size):
        change[i] = exp(change[i] - highest[i], _ZERO)
        total[i] *= change[i]
    for j in range(scores.shape[0]):
        row = scores[j]
        for i in range(row.size):
            row[i] = exp(row[i] - highest[i], _ZERO)
            total[i] += row[i]


@inner
def _count(numbers):
    for i in range(numbers.size):
        numbers[i] = i


def scratch_size(size: int) -> int:
    """Elements of memory that both kernels need, for heads of so many numbers."""
    return 3 * size * QUERIES + 2 * KEYS * QUERIES + 4 * QUERIES


@kernel("void(i8[::1], M, i8, M, i8, M, i8, i8[::1], V, M, M)")
def attention(shape, q, q_column, k, k_column, v, v_column, numbers, scratch, out, log_sums):
    """``out = softmax(q @ k.T / sqrt(size)) @ v`` of each row and head; ``log_sums`` keep the logarithm of the softmax's sum.

    Parameters
    ----------
    shape : int64, shape (9,)
        Rows; heads; heads that share keys and values; numbers of a head; queries of a row; position of the first query among the
        keys; keys of a row; room for keys of a row; whether a query sees keys up to its own position alone.
    q : shape (rows * queries, …); k, v : shape (rows * room, …)
        Of which the columns from ``q_column``, ``k_column`` and ``v_column`` on are the heads, one behind the other.
    numbers : int64, (KEYS,), scratch : (scratch_size(),)
    out : shape (rows * queries, heads * size)
    log_sums : shape (rows * heads, queries)
    """
    _count(numbers)
    heads, size, length, width = shape[HEADS], shape[SIZE], shape[LENGTH], q.itemsize
    q_row, k_row, v_row = q.shape[1] * width, k.shape[1] * width, v.shape[1] * width
    for r in range(shape[ROWS]):
        for h in range(heads):
            column = h // shape[GROUPS] * size
            at_k = base_address(k) + r * shape[KEY_ROWS] * k_row + (k_column + column) * width
            at_v = base_address(v) + r * shape[KEY_ROWS] * v_row + (v_column + column) * width
            for start in range(0, length, QUERIES):
                n = min(QUERIES, length - start)
                first = r * length + start
                at_q = base_address(q) + first * q_row + (q_column + h * size) * width
                sums = log_sums[r * heads + h, start : start + n]
                rows = out[first : first + n]
                _queries(
                    *(shape, start, h, at_q, q_row, at_k, k_row, at_v, v_row),
                    *(numbers, scratch, rows, sums),
                )


@inner
def _queries(
    shape, start, h, at_q, q_row, at_k, k_row, at_v, v_row, numbers, scratch, out, log_sums
):
    """A block of queries of one head, over the keys that they see. ``out``, (queries, …), and ``log_sums`` are theirs."""
    n, size, width, places = out.shape[0], shape[SIZE], out.itemsize, base_address(numbers)
    block, square = size * QUERIES, KEYS * QUERIES
    turned, ends = scratch[:block], scratch[block + square :]
    highest, total, change = ends[:n], ends[n : 2 * n], ends[2 * n : 3 * n]
    first, seen, column = shape[FIRST] + start, shape[KEY_COUNT], h * size
    out_row, s_row = out.shape[1] * width, n * width
    at_out = base_address(out) + column * width
    highest[:] = -np.inf
    total[:] = 0
    _turn(out, n, size, at_q, q_row, base_address(turned))
    _scale(turned[: size * n], out.dtype.type(1 / math.sqrt(size)))
    if shape[CAUSAL]:
        seen = min(seen, first + n)
    for key in range(0, seen, KEYS):
        m = min(KEYS, seen - key)
        scores = scratch[block : block + m * n].reshape(m, n)
        at_s = base_address(scores)
        _times(
            *(out, m, n, at_s, s_row, at_k + key * k_row, k_row),
            *(base_address(turned), s_row, size, places, True),
        )
        if shape[CAUSAL]:
            _hide(scores, key, first)
        _fold(scores, highest, total, change)
        if key > 0:
            _multiply_rows(out, column, column + size, change)
        _times_left(
            *(out, n, size, at_out, out_row, at_s, s_row),
            *(at_v + key * v_row, v_row, m, places, key == 0),
        )
    for i in range(n):
        log_sums[i] = highest[i] + math.log(total[i])
        change[i] = total.dtype.type(1) / total[i]
    _multiply_rows(out, column, column + size, change)


@inner
def _multiply_rows(out, first, stop, factors):
    """Columns [first, stop) of each row, by its factor."""
    for i in range(factors.size):
        row = out[i, first:stop]
        for j in range(row.size):
            row[j] *= factors[i]


@kernel("void(i8[::1], M, M, M, M, i8[::1], V, M)")
def attention_gradient(shape, x, out, grad_out, log_sums, numbers, scratch, grad):
    """The gradient by queries, keys and values, which lie beside each other in rows of ``x`` and of ``grad``.

    With p the softmax, which is computed again from ``log_sums``, and d the sum of ``grad_out * out`` over a head's numbers::

        grad_v = p.T @ grad_out    s = p * (grad_out @ v.T - d) / sqrt(size)    grad_q = s @ k    grad_k = s.T @ q

    Shapes as in ``attention``; x, grad (rows * length, (heads + 2 heads / groups) * size).
    """
    _count(numbers)
    heads, size, length = shape[HEADS], shape[SIZE], shape[LENGTH]
    for i in range(grad.shape[0]):
        grad[i, heads * size :] = 0
    for r in range(shape[ROWS]):
        begin, end = r * length, (r + 1) * length
        for h in range(heads):
            for start in range(0, length, QUERIES):
                n = min(QUERIES, length - start)
                first = begin + start
                own = out[first : first + n], grad_out[first : first + n]
                sums = log_sums[r * heads + h, start : start + n]
                _queries_gradient(
                    shape, start, h, x[begin:end], *own, sums, numbers, scratch, grad[begin:end]
                )


@inner
def _queries_gradient(shape, start, h, x, out, grad_out, log_sums, numbers, scratch, grad):
    """What a block of queries of one head adds. ``x`` and ``grad`` are those of the row, ``out``, … of the block."""
    heads, size, n = shape[HEADS], shape[SIZE], out.shape[0]
    width, places, row_bytes = x.itemsize, base_address(numbers), x.shape[1] * x.itemsize
    out_row, s_row = out.shape[1] * width, n * width
    block, square = size * QUERIES, KEYS * QUERIES
    turned, slopes = scratch[: size * n], scratch[block : block + size * n]
    both, mean = scratch[3 * block :], scratch[3 * block + 2 * square : 3 * block + 2 * square + n]
    at_k_0 = (heads + h // shape[GROUPS]) * size * width
    at_v_0 = at_k_0 + heads // shape[GROUPS] * size * width
    at_q = start * row_bytes + h * size * width
    at_slopes = base_address(grad_out) + h * size * width
    from_x, to = base_address(x), base_address(grad)
    factor = x.dtype.type(1 / math.sqrt(size))
    _turn(x, n, size, from_x + at_q, row_bytes, base_address(turned))
    _scale(turned, factor)
    _turn(x, n, size, at_slopes, out_row, base_address(slopes))
    of_out = scratch[2 * block : 2 * block + size * n]
    _turn(x, n, size, base_address(out) + h * size * width, out_row, base_address(of_out))
    _sum_products(slopes, of_out, mean)
    seen = min(x.shape[0], start + n) if shape[CAUSAL] else x.shape[0]
    for key in range(0, seen, KEYS):
        m = min(KEYS, seen - key)
        p, s = both[: m * n].reshape(m, n), both[square : square + m * n].reshape(m, n)
        at_p, at_s = base_address(p), base_address(s)
        at_k, at_v = key * row_bytes + at_k_0, key * row_bytes + at_v_0
        keys, values = (from_x + at_k, row_bytes), (from_x + at_v, row_bytes)
        of_scores = s_row, size, places, True
        _times(x, m, n, at_p, s_row, *keys, base_address(turned), *of_scores)
        _times(x, m, n, at_s, s_row, *values, base_address(slopes), *of_scores)
        if shape[CAUSAL]:
            _hide(p, key, start)
        _slopes_of_scores(p, s, log_sums, mean, factor)
        queries, added = (from_x + at_q, row_bytes), (n, places, False)
        _times(x, m, size, to + at_v, row_bytes, at_p, s_row, at_slopes, out_row, *added)
        _times(x, m, size, to + at_k, row_bytes, at_s, s_row, *queries, *added)
        _times_left(x, n, size, to + at_q, row_bytes, at_s, s_row, *keys, m, places, key == 0)


@inner
def _sum_products(a, b, out):
    """``out[i] = sum over j of a[j, i] * b[j, i]``, a and b flat."""
    n = out.size
    out[:] = 0
    for first in range(0, a.size, n):
        left, right = a[first : first + n], b[first : first + n]
        for i in range(n):
            out[i] += left[i] * right[i]


@inner
def _slopes_of_scores(p, s, log_sums, mean, factor):
    """Turn scores ``p`` into the softmax, and the gradient by the softmax, ``s``, into that by the products."""
    for j in range(p.shape[0]):
        weights, row = p[j], s[j]
        for i in range(row.size):
            weights[i] = exp(weights[i] - log_sums[i], _ZERO)
            row[i] = weights[i] * (row[i] - mean[i]) * factor
