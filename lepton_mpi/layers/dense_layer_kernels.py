"""Numba kernels of the dense layer of a network: what ``dense_kernels.py`` and ``activation_kernels.py`` do, in one call each.

Rows are all positions of a batch: (rows, positions, width) is (rows * positions, width). NumPy twins as in ``dense_kernels.py``.
"""

from lepton_mpi.kernels.compiling import inner, kernel
from lepton_mpi.kernels.product_kernels import product, product_left, product_right
from lepton_mpi.layers.activation_kernels import activate_rows
from lepton_mpi.layers.dense_kernels import add_bias, add_bias_relu, sum_rows

# Beside those of ``activation_kernels.KINDS``.
NO_ACTIVATION = -1
_RELU = 0


@inner
def _count(numbers):
    for i in range(numbers.size):
        numbers[i] = i


@kernel("void(M, i8[::1], b1, M, V, i8, M, M)")
def dense(inputs, places, in_order, weight, bias, kind, out, slope):
    """``out = f(inputs[places] @ weight + bias)``, and ``slope = f'`` at the same place, of ``kind`` without ReLU.

    Shapes (any, m), (rows or more,), bool, (m, k), (k,) or (0,) for none, int, (rows, k), (rows, k) or (0, 0). With ``in_order``
    ``places`` are filled with 0, 1, … here.
    """
    rows = out.shape[0]
    if in_order:
        _count(places)
    product(inputs, places[:rows], weight, out)
    if kind == NO_ACTIVATION:
        if bias.size > 0:
            add_bias(bias, out)
    elif kind == _RELU:
        add_bias_relu(bias, out)
    else:
        activate_rows(kind, bias, out, slope)


@kernel("void(M, i8[::1], b1, M, M, V)")
def dense_gradient(inputs, places, in_order, grad_z, grad_weight, grad_bias):
    """``grad_weight = inputs[places].T @ grad_z``, and ``grad_bias`` is the sum of its rows. Shapes as in ``dense``."""
    rows = grad_z.shape[0]
    if in_order:
        _count(places)
    product_left(inputs, places[:rows], grad_z, grad_weight, 0, grad_weight.shape[0])
    if grad_bias.size > 0:
        sum_rows(grad_z, grad_bias)


@kernel("void(M, M, i8[::1], V, M)")
def dense_backward(grad_z, weight, numbers, scratch, grad_x):
    """``grad_x = grad_z @ weight.T``; ``numbers`` and ``scratch`` as in ``product_right``, numbers are filled here."""
    _count(numbers)
    product_right(grad_z, numbers, weight, scratch, grad_x)


@kernel("void(V, V, V)")
def relu_gradient(out, grad_out, grad_z):
    """``grad_z = grad_out where out > 0, else 0``; ``grad_z`` may be ``grad_out``. Shapes (count,)."""
    zero = grad_z.dtype.type(0)
    for j in range(grad_z.size):
        slope = grad_out[j]  # read in any case: a load behind a condition is not vectorised
        grad_z[j] = slope if out[j] > zero else zero
