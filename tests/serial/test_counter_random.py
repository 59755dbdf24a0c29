"""Random numbers that are a function of (seed, stream, counter)."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lepton_mpi.data import shuffle_kernels
from lepton_mpi.kernels import counter_random, counter_random_kernels

_WEYL = 0x9E3779B97F4A7C15


def test_mix_gives_the_published_numbers_of_splitmix64():
    """The first five numbers of SplitMix64 from seed 1234567, as its authors' C program prints them."""
    states = np.array([(1234567 + k * _WEYL) % 2**64 for k in range(1, 6)], np.uint64)
    assert counter_random.mix(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_bits_never_change_between_versions():
    """Frozen values: initial weights, splits and orders of old runs depend on them."""
    assert counter_random.bits(0, 0, 2).tolist() == [0xF3B2E91540E4F5FF, 0xC6949A93DEBED4AC]
    assert counter_random.bits(7, 1003, 2).tolist() == [0x6FE98F5D6AA3CBCF, 0x7372C6645AF90D87]


@given(st.integers(0, 2**70), st.integers(0, 10**6), st.integers(0, 50), st.integers(0, 50))
def test_a_longer_draw_begins_with_the_shorter_one(seed, stream, count, more):
    """Number k does not depend on how many are drawn."""
    longer = counter_random.bits(seed, stream, count + more)
    np.testing.assert_array_equal(longer[:count], counter_random.bits(seed, stream, count))


@given(st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**64 - 1), st.integers(0, 2**40))
def test_kernels_draw_the_same_bits(key, word, counter):
    """The scalar form inside of kernels and the array form agree, for keys, words and counters of any size."""
    keys, word64 = np.array([key], np.uint64), np.uint64(word % 2**64)
    assert counter_random_kernels.mix(np.uint64(key)) == counter_random.mix(keys)[0]
    chained = counter_random.chain(keys, word)
    assert counter_random_kernels.chain(np.uint64(key), word64) == chained[0]
    drawn = counter_random.numbers(chained, 2, first=counter)
    for place in range(2):
        one = counter_random_kernels.number(chained[0], np.uint64(counter + place))
        assert one == drawn[place]


def test_numbers_from_a_later_counter_on_are_the_end_of_those_from_0():
    """``first`` skips without drawing."""
    whole = counter_random.bits(5, 6, 100)
    np.testing.assert_array_equal(counter_random.bits(5, 6, 30, first=70), whole[70:])


def test_streams_and_seeds_do_not_share_numbers():
    """400 streams of 100 numbers each hold 40 000 different ones."""
    drawn = [counter_random.bits(seed, stream, 100) for seed in range(20) for stream in range(20)]
    assert np.unique(np.concatenate(drawn)).size == 40_000


def test_uniform_numbers_have_the_moments_of_the_uniform_distribution():
    """Mean, variance, serial and cross correlation of 10**6 numbers are within 5 standard errors."""
    count = 10**6
    x = counter_random.uniform(3, 14, count)
    other = counter_random.uniform(3, 15, count)
    assert x.dtype == np.float64 and x.min() >= 0 and x.max() < 1
    assert abs(x.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / count)
    assert abs(x.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / count)
    for a, b in ((x[1:], x[:-1]), (x, other)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(count)


def test_uniform_numbers_fill_all_cells_evenly():
    """Chi-square over 1 000 cells is within 5 standard deviations of its mean, also for the low bits."""
    x = counter_random.uniform(0, 0, 10**6)
    for values in (x, (x * 2**20) % 1):
        counts = np.bincount((values * 1000).astype(int), minlength=1000)
        chi_square = ((counts - 1000) ** 2 / 1000).sum()
        assert abs(chi_square - 999) < 5 * np.sqrt(2 * 999)


@pytest.mark.parametrize("count", [0, 1, 2, 1009])
def test_permutations_hold_every_number_once(count):
    """A permutation of n numbers holds 0 to n-1, as int64."""
    order = counter_random.permutation(1, 2, count)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


def test_permutations_are_even():
    """Over 6 000 seeds each of the 6 orders of 3 things comes up 1 000 times, within 5 standard deviations."""
    orders = [tuple(counter_random.permutation(seed, 5, 3)) for seed in range(6000)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert counts.size == 6 and abs(counts - 1000).max() < 5 * np.sqrt(6000 * 1 / 6 * 5 / 6)


@given(key=st.integers(0, 2**64 - 1), count=st.integers(0, 3000))
@example(key=0, count=32_768)
@example(key=1, count=32_769)
@example(key=2, count=300_003)
def test_the_kernel_shuffles_as_its_twin(key, count):
    """Sorted in buckets or all at once: the same order, whatever the length."""
    exact = counter_random.shuffled(np.array([key], np.uint64), count)
    mine = shuffle_kernels.shuffled(np.uint64(key), count)
    assert mine.dtype == np.int64
    np.testing.assert_array_equal(mine, exact)


@given(key=st.integers(0, 2**64 - 1), row_bits=st.integers(3, 61), pair=st.permutations(range(8)))
def test_all_bits_of_a_hash_decide(key, row_bits, pair):
    """Numbers whose hashes are alike but for bits that were dropped are compared by the whole hashes."""
    left, right = pair[:2]
    same = np.uint64(5) << np.uint64(row_bits)
    given = np.uint64(key), np.uint64(row_bits), same | np.uint64(left), same | np.uint64(right)
    hashes = counter_random.numbers(np.array([key], np.uint64), 8)
    assert shuffle_kernels._is_after(*given) == (hashes[left] > hashes[right])
