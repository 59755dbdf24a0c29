"""Matrix products alone, by the BLAS that Numba calls: with the engine's own, the limit of a training step."""

import numpy as np
from numba import njit

_options = {"cache": True, "nogil": True}


@njit(["void(f4[:,::1], f4[:,::1], f4[:,::1])"], **_options)
def product(a, b, out):
    """``out = a @ b``: a layer forward."""
    np.dot(a, b, out)


@njit(["void(f4[:,::1], f4[:,::1], f4[:,::1])"], **_options)
def product_left(a, b, out):
    """``out = a.T @ b``: the gradient of the weights."""
    np.dot(a.T, b, out)


@njit(["void(f4[:,::1], f4[:,::1], f4[:,::1])"], **_options)
def product_right(a, b, out):
    """``out = a @ b.T``: the gradient of the inputs."""
    np.dot(a, b.T, out)


@njit(["void(f4[:,::1], f4[::1], f4[::1])"], **_options)
def product_vector(a, b, out):
    """``out = a @ b``: logistic regression forward."""
    np.dot(a, b, out)


@njit(["void(f4[:,::1], f4[::1], f4[::1])"], **_options)
def product_vector_left(a, b, out):
    """``out = a.T @ b``: its gradient."""
    np.dot(a.T, b, out)
