"""Matrix products of a batch with a layer: forward, the gradient of the weights, and that of the inputs.

Nothing is packed: a batch and a panel of the weights lie in the second-level cache, which is fast enough for a
tile's loads. Libraries pack, for matrices far larger than a batch, and on batches pay for it
(``python -m benchmarks.products``). Only the gradient of the inputs multiplies along the rows of both matrices, which
vectors cannot: there the weights are transposed, or where that is more, the batch and the result.

The batch is rows ``places`` of a: so rows can be multiplied where they lie, in a table of all rows.

Every element of a result is the sum, in ascending order, of chains of fused multiply-adds over blocks of k, each from 0.
So its bits depend on its row and its column alone: not on the tile, on the place of a row in its batch, or on the number
of rows. And roundings do not grow with k: one chain of 2400 had 2.2 times the error of chains of 512, and 2.8 times
that of OpenBLAS.
"""

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.intrinsics import base_address
from lepton_mpi.kernels.tile_kernels import ROW_COUNTS, VECTOR_BYTES, VECTORS, tile, tile_left
from lepton_mpi.kernels.transpose_kernels import transpose
from lepton_mpi.kernels.vector_code import PLACE_BYTES

# Numbers of k between two visits of a tile. A panel of b of so many rows, 64 KiB, stays in the second-level cache while all
# rows of a pass over it. The same in all products, so that they give the same bits.
_DEPTH = 512
# Of ``product_left``: so many columns of a at a time, 4 tiles, whose lines stay in the nearest caches while all columns of b
# pass over them.
LEFT_COLUMNS = 32


@kernel("void(M, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, b1, b1)")
def panel(like, row_count, columns, c, c_row, a, places, a_row, b, b_k, count, is_first, is_new):
    """Rows of ``c`` in one tile's columns; arguments as in ``tile``, but any number of rows."""
    while row_count > 0:
        for rows in ROW_COUNTS:
            if rows <= row_count:
                break
        next_places = places + rows * PLACE_BYTES if is_new and row_count >= 2 * rows else 0
        tile(like, rows, columns, c, c_row, a, places, a_row, b, b_k, count, is_first, next_places)
        c += rows * c_row
        places += rows * PLACE_BYTES
        row_count -= rows


@kernel("void(M, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, b1)")
def panel_left(like, row_count, columns, c, c_row, a, places, a_row, b, b_k, count, is_first):
    """The same of ``tile_left``, whose rows are columns of ``a``."""
    while row_count > 0:
        for rows in ROW_COUNTS:
            if rows <= row_count:
                break
        tile_left(like, rows, columns, c, c_row, a, places, a_row, b, b_k, count, is_first)
        c += rows * c_row
        a += rows * like.itemsize
        row_count -= rows


@kernel("void(M, i8[::1], M, M)")
def product(a, places, b, out):
    """``out = a[places] @ b``. Shapes (any, k), int64 (m,), (k, n), (m, n)."""
    size, width = a.itemsize, VECTORS * VECTOR_BYTES // a.itemsize
    depth, n = b.shape
    if depth == 0:
        out[:] = 0
    a_row, b_row = depth * size, n * size
    at_a, at_b, at_out = base_address(a), base_address(b), base_address(out)
    at_places = base_address(places)
    for k in range(0, depth, _DEPTH):
        count = min(_DEPTH, depth - k)
        for column in range(0, n, width):
            columns, c = min(width, n - column), at_out + column * size
            from_a, from_b = at_a + k * size, at_b + k * b_row + column * size
            shape = places.size, columns
            panel(
                *(a, *shape, c, b_row, from_a, at_places, a_row),
                *(from_b, b_row, count, k == 0, column == 0),
            )


@kernel("void(M, i8[::1], M, M, i8, i8)")
def product_left(a, places, b, out, first, stop):
    """Rows [first, stop) of ``out = a[places].T @ b``. Shapes (any, m), int64 (k,), (k, n), (m, n)."""
    size, width = a.itemsize, VECTORS * VECTOR_BYTES // a.itemsize
    depth, (m, n) = places.size, out.shape
    if depth == 0:
        out[first:stop] = 0
    a_row, b_row = m * size, n * size
    at_a, at_b, at_out = base_address(a), base_address(b), base_address(out)
    at_places = base_address(places)
    for k in range(0, depth, _DEPTH):
        count = min(_DEPTH, depth - k)
        for row in range(first, stop, LEFT_COLUMNS):
            rows, from_a = min(LEFT_COLUMNS, stop - row), at_a + row * size
            for column in range(0, n, width):
                columns, c = min(width, n - column), at_out + row * b_row + column * size
                from_b, from_places = at_b + k * b_row + column * size, at_places + k * PLACE_BYTES
                panel_left(
                    *(a, rows, columns, c, b_row, from_a, from_places, a_row),
                    *(from_b, b_row, count, k == 0),
                )


def right_scratch_size(rows: int, k: int, m: int) -> int:
    """Elements of memory that ``product_right`` needs for shapes (rows, k) and (m, k)."""
    return min(m * k, rows * (m + k))


@kernel("void(M, i8[::1], M, V, M)")
def product_right(a, numbers, b, scratch, out):
    """``out = a @ b.T``. Shapes (rows, k), (any,), (m, k), (any,), (rows, m).

    numbers : int64, 0, 1, 2, … up to the larger of rows and m, or more
    scratch : of ``right_scratch_size`` elements or more
    """
    (rows, k), m = a.shape, b.shape[0]
    if m * k <= rows * (m + k):
        turned = scratch[: k * m].reshape(k, m)
        transpose(b, turned)
        product(a, numbers[:rows], turned, out)
    else:
        turned = scratch[: k * rows].reshape(k, rows)
        turned_out = scratch[k * rows : (k + m) * rows].reshape(m, rows)
        transpose(a, turned)
        product(b, numbers[:m], turned, turned_out)
        transpose(turned_out, out)
