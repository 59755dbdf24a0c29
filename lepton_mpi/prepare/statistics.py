"""Mean, variance, extremes and exact quantiles of columns that no rank holds as a whole.

Moments: of each block by two passes over it, corrected for rounding; of two neighbours by the formula of Chan, Golub and
LeVeque ("Updating formulae and a pairwise algorithm for computing sample variances", 1979); along a binary tree over the
numbers of the blocks, which does not depend on the number of ranks.

Quantiles: by radix selection, so exact in bounded memory whatever the number of rows. A float64 is mapped to a uint64 of the
same order; a pass counts the digits that follow the digits known so far of the wanted element, and gives the next digit.
Six passes of 11 bits find the element. Counts are whole numbers, so their sum over ranks has no order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lepton_mpi.prepare import statistics_kernels

_DIGIT_BITS = (11, 11, 11, 11, 11, 9)
# Columns are counted in groups whose counters take so many bytes.
_COUNTER_BYTES = 64 << 20


@dataclass(frozen=True)
class Moments:
    """Of the numbers that are there, by column; float64 of shape (columns,).

    ``m2`` is the sum of squares about the mean; ``mean + mean_rest`` is the mean to twice the digits, without which a
    column whose mean is a million times its deviation would lose five digits of it in the merging.
    """

    count: np.ndarray
    mean: np.ndarray
    mean_rest: np.ndarray
    m2: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """Of the population, as scikit-learn's StandardScaler; 0 of a constant column."""
        variance = self.m2 / np.maximum(self.count, 1)
        return np.where(self.is_constant, 0.0, np.sqrt(variance))

    @property
    def is_constant(self) -> np.ndarray:
        return self.minimum >= self.maximum


# Squares of numbers beyond 1e154 are infinite; whoever goes by them says so, see normalisation.py.
_may_overflow = np.errstate(over="ignore", invalid="ignore")


@_may_overflow
def moments_of(x: np.ndarray) -> Moments:
    """Of a block float64 (rows, columns); NaN is missing."""
    present = ~np.isnan(x)
    count = present.sum(axis=0).astype(np.float64)
    divisor = np.maximum(count, 1)
    mean = np.where(present, x, 0.0).sum(axis=0) / divisor
    deviation = np.where(present, x - mean, 0.0)
    correction = deviation.sum(axis=0)
    m2 = (deviation * deviation).sum(axis=0) - correction * correction / divisor
    minimum = np.where(present, x, np.inf).min(axis=0, initial=np.inf)
    maximum = np.where(present, x, -np.inf).max(axis=0, initial=-np.inf)
    mean, rest = _sum_and_rest(mean, correction / divisor)
    return Moments(count, mean, rest, np.maximum(m2, 0.0), minimum, maximum)


@_may_overflow
def merged(a: Moments, b: Moments) -> Moments:
    """Of two sets of rows together."""
    count = a.count + b.count
    weight = b.count / np.maximum(count, 1)
    delta = np.where(
        (a.count == 0) | (b.count == 0), 0.0, (b.mean - a.mean) + (b.mean_rest - a.mean_rest)
    )
    base = np.where(a.count == 0, b.mean, a.mean)
    base_rest = np.where(a.count == 0, b.mean_rest, a.mean_rest)
    mean, rest = _sum_and_rest(base, delta * weight + base_rest)
    m2 = a.m2 + b.m2 + delta * delta * a.count * weight
    return Moments(
        count, mean, rest, m2, np.minimum(a.minimum, b.minimum), np.maximum(a.maximum, b.maximum)
    )


def _sum_and_rest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounded sum and what was rounded away (Knuth's TwoSum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


class MergeTree:
    """Merges what is pushed along one binary tree over the order of pushing, keeping a logarithm of it in memory.

    >>> tree = MergeTree(lambda a, b: f"({a}{b})")
    >>> for leaf in "abcde": tree.push(leaf)
    >>> tree.result()
    '(((ab)(cd))e)'
    """

    def __init__(self, merge: Callable) -> None:
        self._merge, self._stack = merge, []

    def push(self, leaf: object) -> None:
        """Add the next leaf."""
        node, height = leaf, 0
        while self._stack and self._stack[-1][1] == height:
            node, height = self._merge(self._stack.pop()[0], node), height + 1
        self._stack.append((node, height))

    def result(self):
        """The root."""
        node = self._stack[-1][0]
        for left, _ in reversed(self._stack[:-1]):
            node = self._merge(left, node)
        return node


def moments(parts: Iterator[Moments]) -> Moments:
    """Of all blocks, given in their order."""
    tree = MergeTree(merged)
    for part in parts:
        tree.push(part)
    return tree.result()


def quantiles(
    fractions: tuple[float, ...],
    counts: np.ndarray,
    own_values: Callable[[], Iterator[np.ndarray]],
    summed: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Quantiles by linear interpolation, NumPy's default, float64 (fractions, columns). Collective.

    Parameters
    ----------
    fractions
        Each from 0 to 1.
    counts : float64 (columns,)
        Numbers that are there, over all ranks.
    own_values
        Starts a pass over this rank's blocks, each float64 (rows, columns), NaN missing.
    summed
        Sum of an int64 array over ranks.
    """
    last = np.maximum(counts - 1, 0)
    at = np.outer(fractions, last)
    low = np.floor(at)
    ranks = np.stack([low, np.minimum(low + 1, last)]).astype(np.int64)  # (2, fractions, columns)
    targets = ranks.reshape(-1, len(counts)).T  # (columns, targets)
    group = max(1, _COUNTER_BYTES // (8 * targets.shape[1] << _DIGIT_BITS[0]))
    found = np.concatenate(
        [
            _select(targets[first : first + group], slice(first, first + group), own_values, summed)
            for first in range(0, len(counts), group)
        ]
    )
    lower, upper = found.T.reshape(ranks.shape)
    # As NumPy does it: from the nearer end, so that a fraction of 1 gives the upper value itself.
    weight, step = at - low, upper - lower
    out = np.where(weight < 0.5, lower + step * weight, upper - step * (1 - weight))
    return np.where(counts > 0, out, np.nan)


def _select(targets, columns: slice, own_values, summed) -> np.ndarray:
    """The elements of ranks ``targets`` (columns, targets), counted from 0, of each column."""
    prefixes, left = np.zeros(targets.shape, np.uint64), np.ascontiguousarray(targets)
    shift = 64
    for bits in _DIGIT_BITS:
        shift -= bits
        counts = np.zeros((*targets.shape, 1 << bits), np.int64)
        for values in own_values():
            keys = _keys(values[:, columns])
            statistics_kernels.count_digits(keys, prefixes, shift, bits, counts)
        below = np.cumsum(summed(counts), axis=2)
        digit = np.minimum((below <= left[:, :, None]).sum(axis=2), (1 << bits) - 1)
        before = np.take_along_axis(below, np.maximum(digit - 1, 0)[:, :, None], axis=2)[:, :, 0]
        left = left - np.where(digit > 0, before, 0)
        prefixes = np.ascontiguousarray((prefixes << np.uint64(bits)) | digit.astype(np.uint64))
    return _values(prefixes)


_SIGN = np.uint64(1 << 63)


def _keys(values: np.ndarray) -> np.ndarray:
    """uint64 of the same order as float64 without NaN, which becomes the highest."""
    raw = np.ascontiguousarray(np.where(np.isnan(values), np.nan, values + 0.0)).view(np.uint64)
    keys = np.where(raw & _SIGN, ~raw, raw | _SIGN)
    return np.where(np.isnan(values), np.uint64(0xFFFFFFFFFFFFFFFF), keys)


def _values(keys: np.ndarray) -> np.ndarray:
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)
