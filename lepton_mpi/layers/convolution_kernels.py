"""Numba kernels of convolution: products over windows, without im2col (``windows.py`` has the tables that they read).

Some images at a time are laid into frames with zeros around them, which stay in the second-level cache; rows of the product
are windows of a frame, whose elements ``tile_shifted`` reads where they lie. So x is read from memory once, and nothing
larger than x is ever written. With a channel of its own for each output (depthwise) there is no product: vectors are
channels. Matrices have an image, or a tap with an input channel, in each row. NumPy twins: ``tests/reference_layers.py``.
"""

from lepton_mpi.kernels.compiling import inner, kernel
from lepton_mpi.kernels.intrinsics import base_address
from lepton_mpi.kernels.product_kernels import panel_left
from lepton_mpi.kernels.tile_kernels import (
    ROW_COUNTS,
    VECTOR_BYTES,
    VECTORS,
    tile_shifted,
)
from lepton_mpi.kernels.vector_code import PLACE_BYTES

# Numbers of k between two visits of a tile, as in product_kernels.py; of the weights' gradient fewer, so that both matrices'
# part stays in the nearest cache.
_DEPTH, _DEPTH_LEFT = 512, 256
_LEFT_ROWS = 24


@kernel("void(M, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, b1)")
def _panel(like, row_count, columns, c, targets, a, places, shifts, b, b_k, count, is_first):
    """Rows in one tile's columns; arguments as in ``tile_shifted``, but any number of rows."""
    while row_count > 0:
        for rows in ROW_COUNTS:
            if rows <= row_count:
                break
        tile_shifted(like, rows, columns, c, targets, a, places, shifts, b, b_k, count, is_first)
        targets += rows * PLACE_BYTES
        places += rows * PLACE_BYTES
        row_count -= rows


@inner
def _is_framed(frame):
    return frame[0] != frame[5] or frame[1] != frame[6]


@inner
def _clear_frames(framed, frame, rows):
    """Zeros around as many images as are worked on together."""
    images = min(frame[7], rows)
    framed[: images * frame[5] * frame[6] * frame[2]] = 0


@inner
def _lay(x, first, count, frame, framed):
    """Images [first, first + count) of ``x`` into their frames, whose zeros are there."""
    height, width, channels, top, left, frame_height, frame_width, _ = frame
    rows, length = min(height, frame_height - top), min(width, frame_width - left) * channels
    for image in range(count):
        source = x[first + image]
        for row in range(rows):
            at = ((image * frame_height + top + row) * frame_width + left) * channels
            values, target = source[row * width * channels :][:length], framed[at : at + length]
            for j in range(values.size):
                target[j] = values[j]


@inner
def _multiply(a, phase, at_places, at_targets, at_shifts, images, weight, groups, a_group, out, c):
    """The product of one phase for some images; ``a`` and ``c`` are addresses, ``a_group`` channels of a group there."""
    size = out.itemsize
    first, each, first_shift, depth = phase
    columns, b_k = weight.shape[1] // groups, weight.shape[1] * size
    width, at_b = VECTORS * VECTOR_BYTES // size, base_address(weight) + first_shift * b_k
    places, targets = at_places + first * PLACE_BYTES, at_targets + first * PLACE_BYTES
    for group in range(groups):
        for k in range(0, depth, _DEPTH):
            shifts, count = at_shifts + (first_shift + k) * PLACE_BYTES, min(_DEPTH, depth - k)
            for column in range(0, columns, width):
                skip = (group * columns + column) * size
                _panel(
                    *(out, images * each, min(width, columns - column), c + skip, targets),
                    *(a + group * a_group * size, places, shifts),
                    *(at_b + k * b_k + skip, b_k, count, k == 0),
                )


@inner
def _clear(phases, targets, images, width, out, start):
    """Zeros in the elements that no tap meets."""
    for phase in phases:
        if phase[3] == 0:
            for place in range(phase[0], phase[0] + images * phase[1]):
                for j in range(width):
                    out[start + targets[place] + j] = 0


@kernel("void(M, i8[::1], V, i8[:,::1], i8[::1], i8[::1], i8[::1], M, i8, M)")
def convolve(x, frame, framed, phases, places, targets, shifts, weight, groups, out):
    """``out[i, targets[p] + n] = sum over k of framed x[i, places[p] + shifts[k]] * weight[k, n]``, group by group.

    Shapes (images, H * W * C), int64 (8,), (Tables.frame_size,) scratch, the others of ``windows.Tables``, (sum of all phases'
    k, columns of all groups), int, (images, …).
    """
    together, is_framed = frame[7], _is_framed(frame)
    if is_framed:
        _clear_frames(framed, frame, x.shape[0])
    addresses = base_address(places), base_address(targets), base_address(shifts)
    flat = out.reshape(-1)
    for first in range(0, x.shape[0], together):
        images = min(together, x.shape[0] - first)
        a = base_address(x) + first * x.shape[1] * x.itemsize
        if is_framed:
            _lay(x, first, images, frame, framed)
            a = base_address(framed)
        start = first * out.shape[1]
        _clear(phases, targets, images, weight.shape[1], flat, start)
        for n in range(phases.shape[0]):
            phase = phases[n, 0], phases[n, 1], phases[n, 2], phases[n, 3]
            c = base_address(out) + start * out.itemsize
            _multiply(a, phase, *addresses, images, weight, groups, frame[2] // groups, out, c)


@kernel("void(M, i8[::1], V, i8[:,::1], i8[::1], i8[::1], i8[::1], M, i8, M)")
def convolve_depthwise(x, frame, framed, phases, places, targets, shifts, weight, groups, out):
    """The same where each of the ``groups`` is one channel and one output."""
    together, is_framed = frame[7], _is_framed(frame)
    if is_framed:
        _clear_frames(framed, frame, x.shape[0])
    channels, flat, x_flat = weight.shape[1], out.reshape(-1), x.reshape(-1)
    for first in range(0, x.shape[0], together):
        images = min(together, x.shape[0] - first)
        a = x_flat[first * x.shape[1] : (first + images) * x.shape[1]]
        if is_framed:
            _lay(x, first, images, frame, framed)
            a = framed
        for n in range(phases.shape[0]):
            stop = phases[n, 0] + images * phases[n, 1]
            for p in range(phases[n, 0], stop):
                start = first * out.shape[1] + targets[p]
                row = flat[start : start + channels]
                row[:] = 0
                for k in range(phases[n, 2], phases[n, 2] + phases[n, 3]):
                    at, factors = places[p] + shifts[k], weight[k]
                    values = a[at : at + channels]
                    for j in range(channels):
                        row[j] += values[j] * factors[j]


@kernel("void(M, i8[::1], V, i8[::1], i8[::1], i8, i8, M, M)")
def weight_gradient(x, frame, framed, places, runs, run, groups, grad_out, grad_weight):
    """``grad_weight[k, n] = sum over images and p of framed x[i, places[p] + shifts[k]] * grad_out[i, p, n]``.

    ``runs`` are the shifts at which ``run`` consecutive elements begin, of a group's channels or of several taps in a row.
    Shapes as in ``convolve``; (images, places * outputs), (taps * channels of a group, outputs).
    """
    together, is_framed, size = frame[7], _is_framed(frame), x.itemsize
    outputs, width = grad_weight.shape[1], VECTORS * VECTOR_BYTES // x.itemsize
    each, columns, b_k = places.size // together, outputs // groups, outputs * size
    if is_framed:
        _clear_frames(framed, frame, x.shape[0])
    if x.shape[0] == 0:
        grad_weight[:] = 0
    for first in range(0, x.shape[0], together):
        images = min(together, x.shape[0] - first)
        a = base_address(x) + first * x.shape[1] * size
        if is_framed:
            _lay(x, first, images, frame, framed)
            a = base_address(framed)
        from_b = base_address(grad_out) + first * grad_out.shape[1] * size
        for k in range(0, images * each, _DEPTH_LEFT):
            count, is_first = min(_DEPTH_LEFT, images * each - k), first == 0 and k == 0
            at_places, b = base_address(places) + k * PLACE_BYTES, from_b + k * b_k
            for group in range(groups):
                from_a = a + group * (frame[2] // groups) * size
                for n in range(runs.size):
                    for row in range(0, run, _LEFT_ROWS):
                        rows = min(_LEFT_ROWS, run - row)
                        for column in range(0, columns, width):
                            skip = (group * columns + column) * size
                            panel_left(
                                *(x, rows, min(width, columns - column)),
                                base_address(grad_weight) + (n * run + row) * b_k + skip,
                                *(b_k, from_a + (runs[n] + row) * size, at_places, size),
                                *(b + skip, b_k, count, is_first),
                            )


@kernel("void(M, i8[::1], V, i8[::1], i8[::1], i8, i8, M, M)")
def weight_gradient_depthwise(x, frame, framed, places, runs, run, groups, grad_out, grad_weight):
    """The same where each of the ``groups`` is one channel and one output."""
    together, is_framed = frame[7], _is_framed(frame)
    channels, x_flat = grad_weight.shape[1], x.reshape(-1)
    each = places.size // together
    if is_framed:
        _clear_frames(framed, frame, x.shape[0])
    grad_weight[:] = 0
    for first in range(0, x.shape[0], together):
        images = min(together, x.shape[0] - first)
        a = x_flat[first * x.shape[1] : (first + images) * x.shape[1]]
        if is_framed:
            _lay(x, first, images, frame, framed)
            a = framed
        slopes = grad_out[first : first + images].reshape(images * each, channels)
        for p in range(images * each):
            slope = slopes[p]
            for k in range(runs.size):
                at, row = places[p] + runs[k], grad_weight[k]
                values = a[at : at + channels]
                for j in range(channels):
                    row[j] += values[j] * slope[j]


@kernel("void(M, i8[::1], i8, M)")
def turn(weight, taps, groups, turned):
    """Weights for the gradient by x: ``turned[t * K + k, g * C + c] = weight[taps[t] * C + c, g * K + k]``.

    C and K are channels and outputs of a group. Shapes (taps of the window * C, groups * K), int64 (taps,), int,
    (taps * K, groups * C).
    """
    in_group, out_group = turned.shape[1] // groups, weight.shape[1] // groups
    for t in range(taps.size):
        for g in range(groups):
            for c in range(in_group):
                row = weight[taps[t] * in_group + c]
                for k in range(out_group):
                    turned[t * out_group + k, g * in_group + c] = row[g * out_group + k]


@kernel("void(V, M)")
def add_to_rows(bias, out):
    """``out += bias`` for every row. Shapes (k,), (rows, k)."""
    for i in range(out.shape[0]):
        row = out[i]
        for j in range(row.size):
            row[j] += bias[j]


@kernel("void(M, V)")
def add_up_rows(grad_out, grad_bias):
    """``grad_bias`` is the sum of the rows. Shapes (rows, k), (k,)."""
    grad_bias[:] = 0
    for i in range(grad_out.shape[0]):
        row = grad_out[i]
        for j in range(row.size):
            grad_bias[j] += row[j]
