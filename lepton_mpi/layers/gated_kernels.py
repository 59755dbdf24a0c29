"""Numba kernels of a unit that another one opens. Conventions as in dense_kernels.py."""

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.layers.activation_kernels import silu


@kernel("void(M, M)")
def swiglu(x, out):
    """``out = silu(x[:, :k]) * x[:, k:]``. Shapes (rows, 2 k), (rows, k)."""
    k = out.shape[1]
    for i in range(out.shape[0]):
        gate, value, row = x[i, :k], x[i, k:], out[i]
        for j in range(k):
            opened, _ = silu(gate[j])
            row[j] = opened * value[j]


@kernel("void(M, M, M)")
def swiglu_gradient(x, grad_out, grad_x):
    """``grad_x = grad_out * (silu' * x[:, k:], silu)``. Shapes (rows, 2 k), (rows, k), (rows, 2 k)."""
    k = grad_out.shape[1]
    for i in range(grad_out.shape[0]):
        gate, value, row = x[i, :k], x[i, k:], grad_out[i]
        by_gate, by_value = grad_x[i, :k], grad_x[i, k:]
        for j in range(k):
            opened, slope = silu(gate[j])
            by_gate[j] = row[j] * value[j] * slope
            by_value[j] = row[j] * opened
