"""Random numbers as a function of (seed, stream, counter): the same on every machine and for every split.

A generator with a state would have to be advanced past the rows of other ranks; a hash of the counter
needs no state. The hash is the finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014), applied to a Weyl sequence. NumPy's own generators are
not used because their streams may change between NumPy versions.

Words are folded into a key one after the other by ``chain``, and ``numbers`` draws from a key. The same for
one number at a time, inside of kernels, is ``counter_random_kernels.py``.
"""

import numpy as np

_WEYL = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 in which every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def chain(key: np.ndarray, word: int) -> np.ndarray:
    """The keys that follow from ``key``, uint64 of any shape but (), and one more word."""
    # Arrays only: NumPy warns when a scalar wraps around, as it should here.
    return mix((key + np.uint64(word & 0xFFFFFFFFFFFFFFFF)) * _WEYL + _WEYL)


def key_of(seed: int, stream: int) -> np.ndarray:
    """The key of one stream of one seed, uint64, shape (1,)."""
    return chain(chain(np.zeros(1, np.uint64), seed), stream)


def numbers(key: np.ndarray, count: int, first: int = 0) -> np.ndarray:
    """Independent uint64, shape (count,), for counters first, first + 1, … of one key, uint64 of shape (1,)."""
    return mix(key + np.arange(first + 1, first + count + 1, dtype=np.uint64) * _WEYL)


def bits(seed: int, stream: int, count: int, first: int = 0) -> np.ndarray:
    """``count`` uint64 for counters first, first + 1, … of one stream of one seed."""
    return numbers(key_of(seed, stream), count, first)


def uniform(seed: int, stream: int, count: int, first: int = 0) -> np.ndarray:
    """``count`` float64 in [0, 1), shape (count,), for counters first, first + 1, …; 53 random bits each."""
    return (bits(seed, stream, count, first) >> np.uint64(11)) * 2.0**-53


def shuffled(key: np.ndarray, count: int) -> np.ndarray:
    """The integers 0 … count-1 in random order, int64, shape (count,), for one key, uint64 of shape (1,).

    They are sorted by their hash, in O(count log count); equal hashes keep their order.
    """
    return np.argsort(numbers(key, count), kind="stable")


def permutation(seed: int, stream: int, count: int) -> np.ndarray:
    """``shuffled`` by the numbers of one stream of one seed."""
    return shuffled(key_of(seed, stream), count)
