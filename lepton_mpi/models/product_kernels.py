"""Matrix products of a batch with a layer: forward, and the gradient of the weights.

Nothing is packed: a batch and a panel of the weights lie in the second-level cache, which is fast enough for a
tile's loads. Libraries pack, for matrices far larger than a batch, and on batches pay for it
(``python -m benchmarks.products``).

Every element of a result is one chain of fused multiply-adds over ascending k that starts at 0. So its bits depend
on its row and its column alone: not on the tile, on the place of a row in its batch, or on the number of rows.
"""

from numba import njit

from lepton_mpi.intrinsics import base_address
from lepton_mpi.look_ahead_kernels import ask_ahead, line_count
from lepton_mpi.models.tile_kernels import ROW_COUNTS, ROWS, VECTOR_BYTES, VECTORS, tile

# Of ``product``: numbers of k between two visits of a tile. A panel of b of so many rows, 128 KiB, stays in the
# second-level cache while all rows of a pass over it.
_PRODUCT_DEPTH = 1024
# Of ``product_left``: a has as many rows as the batch, of which so many pass at a time; and so many of its columns,
# 4 tiles, whose lines stay in the first-level cache while all columns of b pass over them.
_LEFT_DEPTH, _LEFT_COLUMNS = 256, 32

_options = {"cache": True, "nogil": True, "error_model": "numpy"}
_MATRICES = [f"void({kind}[:,::1], {kind}[:,::1], {kind}[:,::1])" for kind in ("f4", "f8")]
_PANELS = [f"void({kind}[:,::1], {', '.join(['i8'] * 10)}, b1)" for kind in ("f4", "f8")]
_MATRICES_AHEAD = [
    f"void({kind}[:,::1], {kind}[:,::1], i8[::1], {kind}[:,::1])" for kind in ("f4", "f8")
]


@njit(_PANELS, **_options)
def _panel(like, row_count, columns, c, c_row, a, a_row, a_k, b, b_k, count, is_first):
    """Rows of ``c`` in one tile's columns; arguments as in ``tile``, but any number of rows."""
    whole = row_count // ROWS
    for _ in range(whole):
        tile(like, ROWS, columns, c, c_row, a, a_row, a_k, b, b_k, count, is_first)
        c += ROWS * c_row
        a += ROWS * a_row
    left = row_count - whole * ROWS
    for rows in ROW_COUNTS[1:]:
        if left >= rows:
            tile(like, rows, columns, c, c_row, a, a_row, a_k, b, b_k, count, is_first)
            c += rows * c_row
            a += rows * a_row
            left -= rows


@njit(_MATRICES, **_options)
def product(a, b, out):
    """``out = a @ b``. Shapes (m, k), (k, n), (m, n)."""
    size, width = a.itemsize, VECTORS * VECTOR_BYTES // a.itemsize
    (m, depth), n = a.shape, b.shape[1]
    if depth == 0:
        out[:] = 0
    a_row, b_row = depth * size, n * size
    at_a, at_b, at_out = base_address(a), base_address(b), base_address(out)
    for k in range(0, depth, _PRODUCT_DEPTH):
        count = min(_PRODUCT_DEPTH, depth - k)
        for column in range(0, n, width):
            columns, c = min(width, n - column), at_out + column * size
            from_a, from_b = at_a + k * size, at_b + k * b_row + column * size
            _panel(a, m, columns, c, b_row, from_a, a_row, size, from_b, b_row, count, k == 0)


@njit(_MATRICES_AHEAD, **_options)
def product_left(a, b, ahead, out):
    """``out = a.T @ b``. Shapes (k, m), (k, n), any, (m, n).

    What is ``ahead`` is asked for meanwhile, a few lines after each panel, so that they arrive while the next computes.
    """
    size, width = a.itemsize, VECTORS * VECTOR_BYTES // a.itemsize
    (depth, m), n = a.shape, b.shape[1]
    if depth == 0:
        out[:] = 0
    a_row, b_row = m * size, n * size
    at_a, at_b, at_out = base_address(a), base_address(b), base_address(out)
    panels = max(1, -(-m // _LEFT_COLUMNS) * -(-n // width) * -(-depth // _LEFT_DEPTH))
    lines_ahead = line_count(ahead) // panels + 1
    for k in range(0, depth, _LEFT_DEPTH):
        count = min(_LEFT_DEPTH, depth - k)
        for row in range(0, m, _LEFT_COLUMNS):
            rows, from_a = min(_LEFT_COLUMNS, m - row), at_a + k * a_row + row * size
            for column in range(0, n, width):
                columns, c = min(width, n - column), at_out + row * b_row + column * size
                from_b = at_b + k * b_row + column * size
                _panel(
                    a, rows, columns, c, b_row, from_a, size, a_row, from_b, b_row, count, k == 0
                )
                ask_ahead(ahead, lines_ahead)
