"""Numba kernels of pooling. An image is a row of a matrix; channels are the vectors. NumPy twins: ``tests/reference_layers.py``.

``sizes`` are int64: height, width, channels, windows down and across, and of each axis the window's size, stride and padding before.
"""

from lepton_mpi.kernels.compiling import inner, kernel


@inner
def _first_and_stop(window, axis, sizes):
    """The half-open range of places that one window of an axis has in the image."""
    size, stride, padding = sizes[5 + axis], sizes[7 + axis], sizes[9 + axis]
    start = window * stride - padding
    return max(0, start), min(sizes[axis], start + size)


@kernel("void(M, i8[::1], M, i4[:,::1])")
def max_pool(x, sizes, out, taken):
    """``out`` is the largest number of each window and channel, and ``taken`` where it is in its image: the first, if several.

    NaN is larger than anything. Shapes (rows, H * W * C), (11,), (rows, windows * C), the same.
    """
    width, channels = sizes[1], sizes[2]
    for i in range(x.shape[0]):
        image = x[i]
        for down in range(sizes[3]):
            first_row, stop_row = _first_and_stop(down, 0, sizes)
            for across in range(sizes[4]):
                first, stop = _first_and_stop(across, 1, sizes)
                start = (down * sizes[4] + across) * channels
                best, at = out[i, start : start + channels], taken[i, start : start + channels]
                begin = (first_row * width + first) * channels
                for c in range(channels):
                    best[c] = image[begin + c]
                    at[c] = begin + c
                for row in range(first_row, stop_row):
                    for column in range(first, stop):
                        begin = (row * width + column) * channels
                        values = image[begin : begin + channels]
                        for c in range(channels):
                            is_more = values[c] > best[c] or values[c] != values[c]
                            best[c] = values[c] if is_more else best[c]
                            at[c] = begin + c if is_more else at[c]


@kernel("void(i4[:,::1], M, M)")
def max_pool_gradient(taken, grad_out, grad_x):
    """Each gradient goes where the number was taken from. Shapes (rows, windows * C) twice, (rows, H * W * C)."""
    grad_x[:] = 0
    for i in range(grad_out.shape[0]):
        slopes, at, image = grad_out[i], taken[i], grad_x[i]
        for j in range(slopes.size):
            image[at[j]] += slopes[j]


@kernel("void(M, i8[::1], M)")
def average_pool(x, sizes, out):
    """``out`` is the mean of each window's places in the image, by channel. Shapes (rows, H * W * C), (11,), (rows, windows * C)."""
    width, channels = sizes[1], sizes[2]
    for i in range(x.shape[0]):
        image = x[i]
        for down in range(sizes[3]):
            first_row, stop_row = _first_and_stop(down, 0, sizes)
            for across in range(sizes[4]):
                first, stop = _first_and_stop(across, 1, sizes)
                start = (down * sizes[4] + across) * channels
                mean = out[i, start : start + channels]
                mean[:] = 0
                for row in range(first_row, stop_row):
                    for column in range(first, stop):
                        begin = (row * width + column) * channels
                        values = image[begin : begin + channels]
                        for c in range(channels):
                            mean[c] += values[c]
                share = out.dtype.type(1 / ((stop_row - first_row) * (stop - first)))
                for c in range(channels):
                    mean[c] *= share


@kernel("void(M, i8[::1], M)")
def average_pool_gradient(grad_out, sizes, grad_x):
    """Each place of a window gets its share of the gradient. Shapes (rows, windows * C), (11,), (rows, H * W * C)."""
    width, channels = sizes[1], sizes[2]
    grad_x[:] = 0
    for i in range(grad_out.shape[0]):
        image = grad_x[i]
        for down in range(sizes[3]):
            first_row, stop_row = _first_and_stop(down, 0, sizes)
            for across in range(sizes[4]):
                first, stop = _first_and_stop(across, 1, sizes)
                start = (down * sizes[4] + across) * channels
                slopes = grad_out[i, start : start + channels]
                share = grad_x.dtype.type(1 / ((stop_row - first_row) * (stop - first)))
                for row in range(first_row, stop_row):
                    for column in range(first, stop):
                        begin = (row * width + column) * channels
                        values = image[begin : begin + channels]
                        for c in range(channels):
                            values[c] += slopes[c] * share
