"""Gradients and parameters whose values are known: what ``benchmarks/update.py`` checks every way against.

    gradient of rank r in step t, element i      ((i + t) n + r) mod 1021
    parameters before the first step, element i  (i mod 1021) / 1024 - 1/2

All of it repeats after 1021 elements, so the twins of the kernels in NumPy and float64 (``tests/reference.py``) follow
any number of steps on one period, and every element of the parameters is compared, not a sample. 1021 is
a prime: whatever is out of place by a power of two elements has a wrong value. The gradient is another one in each step, so
one that is a step old is noticed.

The sum of all gradients is a whole number that float32 holds exactly. Plain SGD has no rounding in it then, on 2, 4 or
8 ranks, and is compared exactly; of the others the bound allows a rounding of the parameter and of its change in each step.
"""

import numpy as np

from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.vectors import Layout
from tests import reference as twins

PERIOD = 1021
# Rows that every rank's gradient is the sum over. A power of two: the mean is exact.
ROWS_OF_RANK = 1024
LEARNING_RATE = 2.0**-10

# Written tile by tile: one that stays in the L1 cache costs no second stream of memory.
_TILE = 4 * PERIOD
# Of which the results of comparisons stay in a cache.
_COMPARED_PERIODS = 64
_ROUNDING = 2.0**-24
# A step's change of a parameter is at most 10 times the rate here, and relative errors of the state are at most
# 3 roundings / (1 - beta), 3000 for Adam's second moment, half of it after the square root.
_CHANGE_ROUNDINGS = 4096


def settings_of(optimizer: str) -> Settings:
    """Of the optimizer called so in ``OPTIMIZERS.built_in``; "sgd" has no momentum."""
    momentum = 0.0 if optimizer == "sgd" else 0.9
    return Settings(optimizer, lambda step: LEARNING_RATE, momentum)


def fill_parameters(parameters: np.ndarray) -> None:
    """Write the parameters before the first step."""
    _write(parameters, np.tile(_initial(), _TILE // PERIOD).astype(parameters.dtype))


class Reference:
    """One period of the parameters, step by step, for rank ``rank`` of ``size``.

    Attributes
    ----------
    step : int
        Steps made so far.
    row_count : int
        Rows of a step, over all ranks.
    """

    def __init__(self, optimizer: str, rank: int, size: int) -> None:
        settings = settings_of(optimizer)
        states = len(rule_of(Settings(optimizer, float)).state)
        # The numbers of a step are the float32 ones that the kernels work with.
        self._optimizer = Optimizer(
            settings, Layout({"period": (PERIOD,)}), np.float32, np.empty((states, 0), np.float32)
        )
        self._twin = getattr(twins, optimizer)
        self._state = [*np.zeros((states, PERIOD)), *[np.empty(0)] * 2][:2]
        self._parameters = _initial()
        numbers = [(np.arange(PERIOD) * size + other) % PERIOD for other in range(size)]
        self._sum = np.sum(numbers, axis=0, dtype=np.float64)
        # One period more than a tile, so that it can begin anywhere in a period.
        self._tile = np.tile(numbers[rank], _TILE // PERIOD + 1).astype(np.float32)
        self._largest = float(np.abs(self._parameters).max())
        self.step, self.row_count = 0, size * ROWS_OF_RANK
        self._is_plain = optimizer == "sgd" and size & (size - 1) == 0

    def advance(self, gradient: np.ndarray) -> None:
        """Go on to the next step, and write this rank's ``gradient`` of it."""
        self.step += 1
        shift = self.step % PERIOD
        _write(gradient, self._tile[shift : shift + _TILE])
        self._optimizer.begin_step(self.step, 1.0 / self.row_count)
        summed = np.roll(self._sum, -shift)
        self._twin(self._parameters, summed, *self._state, 0.0, self._optimizer.numbers)
        self._largest = max(self._largest, float(np.abs(self._parameters).max()))

    @property
    def tolerance(self) -> float:
        """How far a parameter may be from the reference after the steps made so far."""
        units = self._largest * self.row_count / LEARNING_RATE
        if self._is_plain and units < 1 / _ROUNDING:
            return 0.0
        return self.step * _ROUNDING * (self._largest + _CHANGE_ROUNDINGS * LEARNING_RATE)

    def count_wrong(self, parameters: np.ndarray) -> int:
        """Elements of ``parameters``, shape (n,), that are not what they should be."""
        whole = parameters.size // PERIOD * PERIOD
        periods, rest = parameters[:whole].reshape(-1, PERIOD), parameters[whole:]
        wrong = self._wrong(rest)
        for first in range(0, len(periods), _COMPARED_PERIODS):
            wrong += self._wrong(periods[first : first + _COMPARED_PERIODS])
        return wrong

    def _wrong(self, periods: np.ndarray) -> int:
        # In the parameters' own type, which makes no copies. Rounding the bounds moves them by less than the bound allows.
        expected = self._parameters[: periods.shape[-1]]
        lowest = (expected - self.tolerance).astype(periods.dtype)
        highest = (expected + self.tolerance).astype(periods.dtype)
        right = (periods >= lowest) & (periods <= highest)  # not a number is neither
        return right.size - int(np.count_nonzero(right))


def _initial() -> np.ndarray:
    return np.arange(PERIOD) / 1024 - 0.5


def _write(vector: np.ndarray, tile: np.ndarray) -> None:
    whole = vector.size // _TILE * _TILE
    vector[:whole].reshape(-1, _TILE)[...] = tile
    vector[whole:] = tile[: vector.size - whole]
