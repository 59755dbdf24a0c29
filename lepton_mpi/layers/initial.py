"""Random initial parameters, a function of seed and parameter alone."""

from collections.abc import Callable, Mapping
from math import pi, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.kernels import counter_random

# Fills an array before the first step, from (array, seed, number of the parameter in its model).
Initial = Callable[[NDArray[Any], int, int], None]

# Streams of random numbers: parameter k uses the first plus k.
_INITIALISATION = 10
# Numbers that are made at a time: those of a large matrix would take several times its memory.
_TOGETHER = 1 << 16


def initialise_uniform(parameters: Mapping[str, NDArray[Any]], seed: int) -> None:
    """Matrices by ``glorot_uniform``, everything of fewer dimensions 0."""
    for index, array in enumerate(parameters.values()):
        (glorot_uniform if array.ndim >= 2 else zeros)(array, seed, index)


def glorot_uniform(array: NDArray[Any], seed: int, index: int) -> None:
    """Uniform in ±sqrt(6 / (inputs + outputs)), the last dimension being the outputs.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    """
    uniform(sqrt(6 / max(1, prod(array.shape[:-1]) + array.shape[-1])))(array, seed, index)


def he_uniform(array: NDArray[Any], seed: int, index: int) -> None:
    """Uniform in ±sqrt(6 / inputs), of variance 2 / inputs, for what a ReLU follows; the last dimension are the outputs.

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
    """
    uniform(sqrt(6 / max(1, prod(array.shape[:-1]))))(array, seed, index)


def ones(array: NDArray[Any], seed: int, index: int) -> None:
    """All 1."""
    array[...] = 1


def zeros(array: NDArray[Any], seed: int, index: int) -> None:
    """All 0."""
    array[...] = 0


def uniform(limit: float) -> Initial:
    """Uniform in ±limit."""

    def fill(array: NDArray[Any], seed: int, index: int) -> None:
        flat = _flat(array)
        for start in range(0, array.size, _TOGETHER):
            count = min(_TOGETHER, array.size - start)
            numbers = counter_random.uniform(seed, _INITIALISATION + index, count, start)
            flat[start : start + count] = limit * (2 * numbers - 1)

    return fill


def normal(deviation: float) -> Initial:
    """Of the normal distribution of mean 0. Source: Box and Muller, Annals of Mathematical Statistics 29, 1958."""

    def fill(array: NDArray[Any], seed: int, index: int) -> None:
        half, flat = -(-array.size // 2), _flat(array)
        for start in range(0, half, _TOGETHER):
            count = min(_TOGETHER, half - start)
            of_radius, of_angle = (
                counter_random.uniform(seed, _INITIALISATION + index, count, first)
                for first in (start, half + start)
            )
            radius, angle = np.sqrt(-2 * np.log1p(-of_radius)), 2 * pi * of_angle
            flat[start : start + count] = deviation * (radius * np.cos(angle))
            second = flat[half + start : half + start + count]
            # Of an odd number of elements the last pair has one too many.
            flat[half + start : half + start + count] = (
                deviation * (radius * np.sin(angle))[: len(second)]
            )

    return fill


def _flat(array: NDArray[Any]) -> Any:
    """Its elements one after the other, to be written to."""
    return array.reshape(-1) if array.flags.c_contiguous else array.flat
