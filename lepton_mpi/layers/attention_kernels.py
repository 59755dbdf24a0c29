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
    heads, size, length, first = shape[HEADS], shape[SIZE], shape[LENGTH], shape[FIRST]
    width, places = q.itemsize, base_address(numbers)
    q_row, k_row, v_row = q.shape[1] * width, k.shape[1] * width, v.shape[1] * width
    out_row, factor = out.shape[1] * width, q.dtype.type(1 / math.sqrt(size))
    turned = scratch[: size * QUERIES]
    square = scratch[size * QUERIES : size * QUERIES + KEYS * QUERIES]
    rest = scratch[size * QUERIES + KEYS * QUERIES :]
    for r in range(shape[ROWS]):
        for h in range(heads):
            column = h // shape[GROUPS] * size
            at_k = base_address(k) + r * shape[KEY_ROWS] * k_row + (k_column + column) * width
            at_v = base_address(v) + r * shape[KEY_ROWS] * v_row + (v_column + column) * width
            for start in range(0, length, QUERIES):
                n = min(QUERIES, length - start)
                at_q = (
                    base_address(q) + (r * length + start) * q_row + (q_column + h * size) * width
                )
                at_out = base_address(out) + (r * length + start) * out_row + h * size * width
                highest, total, change = rest[:n], rest[n : 2 * n], rest[2 * n : 3 * n]
                highest[:] = -np.inf
                total[:] = 0
                _turn(q, n, size, at_q, q_row, base_address(turned))
                _scale(turned[: size * n], factor)
                seen = shape[KEY_COUNT]
                if shape[CAUSAL]:
                    seen = min(seen, first + start + n)
                for key in range(0, seen, KEYS):
                    m = min(KEYS, seen - key)
                    scores = square[: m * n].reshape(m, n)
                    at_s, s_row = base_address(scores), n * width
                    _times(
                        *(q, m, n, at_s, s_row, at_k + key * k_row, k_row),
                        *(base_address(turned), s_row, size, places, True),
                    )
                    if shape[CAUSAL]:
                        _hide(scores, key, first + start)
                    _fold(scores, highest, total, change)
                    if key > 0:
                        for i in range(n):
                            row = out[r * length + start + i]
                            for j in range(h * size, (h + 1) * size):
                                row[j] *= change[i]
                    _times_left(
                        *(q, n, size, at_out, out_row, at_s, s_row),
                        *(at_v + key * v_row, v_row, m, places, key == 0),
                    )
                for i in range(n):
                    row, share = out[r * length + start + i], total.dtype.type(1) / total[i]
                    for j in range(h * size, (h + 1) * size):
                        row[j] *= share
                    log_sums[r * heads + h, start + i] = highest[i] + math.log(total[i])


@kernel("void(i8[::1], M, M, M, M, i8[::1], V, M)")
def attention_gradient(shape, x, out, grad_out, log_sums, numbers, scratch, grad):
    """The gradient by queries, keys and values, which lie beside each other in rows of ``x`` and of ``grad``.

    With p the softmax, which is computed again from ``log_sums``, and d the sum of ``grad_out * out`` over a head's numbers::

        grad_v = p.T @ grad_out    s = p * (grad_out @ v.T - d) / sqrt(size)    grad_q = s @ k    grad_k = s.T @ q

    Shapes as in ``attention``; x, grad (rows * length, (heads + 2 heads / groups) * size).
    """
    _count(numbers)
    heads, size, length = shape[HEADS], shape[SIZE], shape[LENGTH]
    width, places = x.itemsize, base_address(numbers)
    row_bytes, out_row = x.shape[1] * width, out.shape[1] * width
    k_column = heads * size
    v_column = k_column + heads // shape[GROUPS] * size
    factor = x.dtype.type(1 / math.sqrt(size))
    block, square = size * QUERIES, KEYS * QUERIES
    turned, slopes, others = (
        scratch[:block],
        scratch[block : 2 * block],
        scratch[2 * block : 3 * block],
    )
    both, ends = scratch[3 * block : 3 * block + 2 * square], scratch[3 * block + 2 * square :]
    for i in range(grad.shape[0]):
        grad[i, k_column:] = 0
    for r in range(shape[ROWS]):
        from_x, from_grad = (
            r * length * row_bytes + base_address(x),
            r * length * row_bytes + base_address(grad),
        )
        for h in range(heads):
            column = h // shape[GROUPS] * size
            to_k, to_v = (k_column + column) * width, (v_column + column) * width
            for start in range(0, length, QUERIES):
                n = min(QUERIES, length - start)
                to_q = start * row_bytes + h * size * width
                to_out = (r * length + start) * out_row + h * size * width
                at_grad_out = base_address(grad_out) + to_out
                _turn(x, n, size, from_x + to_q, row_bytes, base_address(turned))
                _scale(turned[: size * n], factor)
                _turn(x, n, size, at_grad_out, out_row, base_address(slopes))
                _turn(x, n, size, base_address(out) + to_out, out_row, base_address(others))
                mean, log_sum = ends[:n], log_sums[r * heads + h, start : start + n]
                mean[:] = 0
                for j in range(size):
                    a, b = slopes[j * n : (j + 1) * n], others[j * n : (j + 1) * n]
                    for i in range(n):
                        mean[i] += a[i] * b[i]
                seen = min(length, start + n) if shape[CAUSAL] else length
                for key in range(0, seen, KEYS):
                    m = min(KEYS, seen - key)
                    p, s = both[: m * n].reshape(m, n), both[square : square + m * n].reshape(m, n)
                    at_p, at_s, s_row, below = (
                        base_address(p),
                        base_address(s),
                        n * width,
                        key * row_bytes,
                    )
                    at_k, at_v = from_x + below + to_k, from_x + below + to_v
                    _times(
                        x,
                        m,
                        n,
                        at_p,
                        s_row,
                        at_k,
                        row_bytes,
                        base_address(turned),
                        s_row,
                        size,
                        places,
                        True,
                    )
                    _times(
                        x,
                        m,
                        n,
                        at_s,
                        s_row,
                        at_v,
                        row_bytes,
                        base_address(slopes),
                        s_row,
                        size,
                        places,
                        True,
                    )
                    if shape[CAUSAL]:
                        _hide(p, key, start)
                    for j in range(m):
                        weights, row = p[j], s[j]
                        for i in range(n):
                            weights[i] = exp(weights[i] - log_sum[i], _ZERO)
                            row[i] = weights[i] * (row[i] - mean[i]) * factor
                    _times(
                        *(x, m, size, from_grad + below + to_v, row_bytes, at_p, s_row),
                        *(at_grad_out, out_row, n, places, False),
                    )
                    _times(
                        *(x, m, size, from_grad + below + to_k, row_bytes, at_s, s_row),
                        *(from_x + to_q, row_bytes, n, places, False),
                    )
                    _times_left(
                        *(x, n, size, from_grad + to_q, row_bytes, at_s, s_row),
                        *(at_k, row_bytes, m, places, key == 0),
                    )
