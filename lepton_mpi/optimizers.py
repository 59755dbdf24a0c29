"""Optimizers: element-wise Numba kernels on slices of the flat vectors.

``gradient`` is a sum over rows; ``scale`` is 1 / rows and makes it the mean. Kernels loop over
``range(array.size)`` of contiguous slices and meet at most four arrays: a fifth, or a loop over part of a
longer array, or Python's check for a division by 0, keeps LLVM from vectorising (measured: Adam 0.4 ns
per parameter against 2 to 5).
Each has a NumPy twin in ``tests/reference.py``.
"""

import math
from typing import Protocol

import numpy as np
from numba import njit

ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-8


def _signatures(vectors: int, numbers: int) -> list[str]:
    """For float32 and for float64: so many vectors, then so many numbers."""
    return [
        f"void({', '.join([f'{kind}[::1]'] * vectors + [kind] * numbers)})" for kind in ("f4", "f8")
    ]


@njit(_signatures(3, 3), cache=True, nogil=True, error_model="numpy")
def sgd_kernel(parameters, gradient, velocity, scale, learning_rate, momentum):
    """``v = momentum v - learning_rate g``, ``w = w + v``; vectors of shape (n,), g = scale * gradient.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    for i in range(parameters.size):
        v = momentum * velocity[i] - learning_rate * (gradient[i] * scale)
        velocity[i] = v
        parameters[i] += v


@njit(_signatures(4, 7), cache=True, nogil=True, error_model="numpy")
def adam_kernel(
    parameters,
    gradient,
    first,
    second,
    scale,
    beta_1,
    one_minus_beta_1,
    beta_2,
    one_minus_beta_2,
    step_size,
    epsilon,
):
    """``m = b1 m + (1-b1) g``, ``v = b2 v + (1-b2) g g``, ``w = w - step_size m / (sqrt(v) + epsilon)``.

    Vectors of shape (n,), g = scale * gradient. The bias corrections are in ``step_size`` and ``epsilon``.
    The complements come as arguments because ``1 - beta`` in float32 would be computed in float64.
    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, end of section 2.
    """
    for i in range(parameters.size):
        g = gradient[i] * scale
        m = beta_1 * first[i] + one_minus_beta_1 * g
        v = beta_2 * second[i] + one_minus_beta_2 * (g * g)
        first[i] = m
        second[i] = v
        parameters[i] -= step_size * m / (math.sqrt(v) + epsilon)


class Optimizer(Protocol):
    """Updates slices of the flat parameters; owns its state as flat vectors of the same length."""

    state: dict[str, np.ndarray]

    def begin_step(self, step: int) -> None:
        """Fix what is common to all slices of optimizer step ``step``, counted from 1."""

    def update(
        self, parameters: np.ndarray, gradient: np.ndarray, start: int, stop: int, scale: float
    ) -> None:
        """Update elements [start, stop) of ``parameters`` from the same of ``gradient``, times ``scale``."""


class Sgd:
    """SGD with momentum; see ``sgd_kernel``."""

    def __init__(self, size: int, dtype: np.dtype, learning_rate: float, momentum: float) -> None:
        self.state = {"velocity": np.zeros(size, dtype)}
        self._number = np.dtype(dtype).type
        self._rate, self._momentum = self._number(learning_rate), self._number(momentum)

    def begin_step(self, step: int) -> None:
        """Nothing depends on the step."""

    def update(
        self, parameters: np.ndarray, gradient: np.ndarray, start: int, stop: int, scale: float
    ) -> None:
        """See Optimizer."""
        velocity = self.state["velocity"][start:stop]
        scale = self._number(scale)
        sgd_kernel(
            parameters[start:stop],
            gradient[start:stop],
            velocity,
            scale,
            self._rate,
            self._momentum,
        )


class Adam:
    """Adam with beta 0.9 and 0.999, epsilon 1e-8; see ``adam_kernel``."""

    def __init__(self, size: int, dtype: np.dtype, learning_rate: float) -> None:
        self.state = {"first_moment": np.zeros(size, dtype), "second_moment": np.zeros(size, dtype)}
        self._number = np.dtype(dtype).type
        self._rate = learning_rate
        betas = (ADAM_BETA_1, 1 - ADAM_BETA_1, ADAM_BETA_2, 1 - ADAM_BETA_2)
        self._betas = tuple(self._number(value) for value in betas)
        self._step_size = self._epsilon = self._number(0)

    def begin_step(self, step: int) -> None:
        """Fold the corrections ``1 - beta**step`` into step size and epsilon."""
        root = math.sqrt(1 - ADAM_BETA_2**step)
        self._step_size = self._number(self._rate * root / (1 - ADAM_BETA_1**step))
        self._epsilon = self._number(ADAM_EPSILON * root)

    def update(
        self, parameters: np.ndarray, gradient: np.ndarray, start: int, stop: int, scale: float
    ) -> None:
        """See Optimizer."""
        adam_kernel(
            parameters[start:stop],
            gradient[start:stop],
            self.state["first_moment"][start:stop],
            self.state["second_moment"][start:stop],
            self._number(scale),
            *self._betas,
            self._step_size,
            self._epsilon,
        )


def make_optimizer(
    name: str, size: int, dtype: np.dtype, learning_rate: float, momentum: float
) -> Optimizer:
    """Optimizer by its name in the configuration: adam or sgd."""
    if name == "adam":
        return Adam(size, dtype, learning_rate)
    return Sgd(size, dtype, learning_rate, momentum)
