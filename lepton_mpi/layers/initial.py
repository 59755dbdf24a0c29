"""Random initial parameters, a function of seed and parameter alone."""

from collections.abc import Mapping
from math import prod, sqrt

import numpy as np

from lepton_mpi.kernels import counter_random

# Streams of random numbers: parameter k uses the first plus k.
_INITIALISATION = 10


def initialise_uniform(parameters: Mapping[str, np.ndarray], seed: int) -> None:
    """Matrices uniform in ±sqrt(6 / (inputs + outputs)), everything of fewer dimensions 0.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010. The numbers depend on seed and parameter only.
    """
    for index, array in enumerate(parameters.values()):
        array[...] = 0
        if array.ndim >= 2:
            inputs, outputs = prod(array.shape[:-1]), array.shape[-1]
            limit = sqrt(6 / max(1, inputs + outputs))
            numbers = counter_random.uniform(seed, _INITIALISATION + index, array.size)
            array[...] = (limit * (2 * numbers - 1)).reshape(array.shape)
