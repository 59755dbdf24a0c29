"""Matrix products alone, by the BLAS that Numba calls: with the engine's own, the limit of a training step."""

import numpy as np

from lepton_mpi.kernels.compiling import kernel


@kernel("void(f4[:,::1], f4[:,::1], f4[:,::1])")
def product(a, b, out):
    """``out = a @ b``: a layer forward."""
    np.dot(a, b, out)


@kernel("void(f4[:,::1], f4[:,::1], f4[:,::1])")
def product_left(a, b, out):
    """``out = a.T @ b``: the gradient of the weights."""
    np.dot(a.T, b, out)


@kernel("void(f4[:,::1], f4[:,::1], f4[:,::1])")
def product_right(a, b, out):
    """``out = a @ b.T``: the gradient of the inputs."""
    np.dot(a, b.T, out)


@kernel("void(f4[:,::1], f4[::1], f4[::1])")
def product_vector(a, b, out):
    """``out = a @ b``: logistic regression forward."""
    np.dot(a, b, out)


@kernel("void(f4[:,::1], f4[::1], f4[::1])")
def product_vector_left(a, b, out):
    """``out = a.T @ b``: its gradient."""
    np.dot(a.T, b, out)
