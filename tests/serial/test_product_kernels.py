"""The matrix products against NumPy, and that their bits depend on row and column alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.kernels.product_kernels import (
    product,
    product_left,
    product_right,
    right_scratch_size,
)
from lepton_mpi.kernels.transpose_kernels import transpose
from tests import reference

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
# Around the edges of a tile, 8 rows of 32 columns (float64: 16), and of the blocks of k and of columns.
SIZES = st.one_of(st.integers(0, 20), st.sampled_from([31, 32, 33, 48, 63, 64, 65, 127, 130]))
DEPTHS = st.one_of(SIZES, st.sampled_from([255, 256, 257, 511, 512, 514, 1026]))


def _whole(shape: tuple[int, int], dtype, seed: int) -> np.ndarray:
    """Small whole numbers, of which sums of products are exact in float32, too."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


def _guarded(shape: tuple[int, int], dtype) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of NaN, and the memory in whose middle it lies."""
    size = int(np.prod(shape))
    memory = np.full(size + 200, np.nan, dtype)
    return memory[100 : 100 + size].reshape(shape), memory


def _product_left(a, places, b, out):
    product_left(a, places, b, out, 0, len(out))


@dtypes
@given(m=SIZES, depth=DEPTHS, n=SIZES)
def test_products_of_whole_numbers_are_exact(dtype, m, depth, n):
    """Forward and left product of any shape, of rows anywhere, fill their result, and write nothing beside it."""
    b, generator = _whole((depth, n), dtype, 2), np.random.default_rng(4)
    for kernel, twin, rows, width in (
        (product, reference.product, m, depth),
        (_product_left, reference.product_left, depth, m),
    ):
        (out, memory), expected = _guarded((m, n), dtype), np.empty((m, n), dtype)
        a, places = _whole((50, width), dtype, 1), generator.integers(0, 50, rows)
        kernel(a, places, b, out)
        twin(a, places, b, expected)
        np.testing.assert_array_equal(out, expected)
        assert np.isnan(memory[:100]).all() and np.isnan(memory[100 + m * n :]).all()


@dtypes
@given(rows=SIZES, depth=DEPTHS, m=SIZES)
def test_right_products_of_whole_numbers_are_exact(dtype, rows, depth, m):
    """The product along the rows of both matrices, whichever of them is transposed; memory beside is untouched."""
    a, b = _whole((rows, depth), dtype, 1), _whole((m, depth), dtype, 2)
    (out, memory), expected = _guarded((rows, m), dtype), np.empty((rows, m), dtype)
    size = right_scratch_size(rows, depth, m)
    scratch, scratch_memory = _guarded((size,), dtype)
    given = a, np.arange(max(rows, m)), b, scratch
    product_right(*given, out)
    reference.product_right(*given, expected)
    np.testing.assert_array_equal(out, expected)
    for each, count in ((memory, rows * m), (scratch_memory, size)):
        assert np.isnan(each[:100]).all() and np.isnan(each[100 + count :]).all()


@dtypes
@given(m=SIZES, n=SIZES)
def test_a_matrix_of_any_shape_is_transposed(dtype, m, n):
    """Every element once, and nothing beside them."""
    (out, memory), expected = _guarded((n, m), dtype), np.empty((n, m), dtype)
    a = np.arange(m * n, dtype=dtype).reshape(m, n)
    transpose(a, out)
    reference.transpose(a, expected)
    np.testing.assert_array_equal(out, expected)
    assert np.isnan(memory[:100]).all() and np.isnan(memory[100 + m * n :]).all()


@dtypes
def test_bits_of_a_right_product_do_not_depend_on_what_is_transposed(dtype):
    """A row of the batch alone, and weights of few rows, give the bits that all give together."""
    generator = np.random.default_rng(7)
    a = generator.standard_normal((40, 90)).astype(dtype)
    b = generator.standard_normal((60, 90)).astype(dtype)
    whole, numbers = np.empty((40, 60), dtype), np.arange(60)
    product_right(a, numbers, b, np.empty(40 * 150, dtype), whole)
    for rows, m in ((1, 60), (40, 1), (5, 7), (40, 59)):
        part = np.empty((rows, m), dtype)
        scratch = np.empty(right_scratch_size(rows, 90, m), dtype)
        product_right(a[:rows], numbers, b[:m], scratch, part)
        np.testing.assert_array_equal(part, whole[:rows, :m])


@dtypes
@pytest.mark.parametrize("shape", [(64, 784, 128), (7, 300, 45), (64, 1100, 10), (3, 4000, 5)])
def test_products_of_random_numbers_are_within_the_bound(dtype, shape):
    """Each element differs from the exact one by at most a chain's rounding errors, and those of adding up chains."""
    (m, depth, n), generator = shape, np.random.default_rng(3)
    b = generator.standard_normal((depth, n)).astype(dtype)
    for kernel, twin, a_shape in (
        (product, reference.product, (m, depth)),
        (_product_left, reference.product_left, (depth, m)),
    ):
        a = generator.standard_normal(a_shape).astype(dtype)
        out, expected, magnitude = np.empty((m, n), dtype), np.empty((m, n)), np.empty((m, n))
        places = np.arange(len(a))
        kernel(a, places, b, out)
        twin(a, places, b, expected)
        twin(np.abs(a), places, np.abs(b), magnitude)
        unit = np.finfo(dtype).eps / 2
        roundings = min(depth, 512) + depth // 512 + 1
        assert (np.abs(out - expected) <= roundings * unit * magnitude).all()


@dtypes
@given(rows=st.lists(st.integers(0, 39), min_size=1, max_size=40), first=st.integers(0, 3))
def test_bits_of_a_row_do_not_depend_on_its_batch(dtype, rows, first):
    """A row gives the same bits alone, in any other batch, and beside other columns."""
    generator = np.random.default_rng(5)
    x = generator.standard_normal((40, 70)).astype(dtype)
    w = generator.standard_normal((70, 37)).astype(dtype)
    whole, part = np.empty((40, 37), dtype), np.empty((len(rows), 37 - first), dtype)
    product(x, np.arange(40), w, whole)
    right = np.ascontiguousarray(w[:, first:])
    product(np.ascontiguousarray(x[rows]), np.arange(len(rows)), right, part)
    np.testing.assert_array_equal(part, whole[rows, first:])
    product(x, np.array(rows), right, part)
    np.testing.assert_array_equal(part, whole[rows, first:])


@dtypes
@given(cuts=st.lists(st.integers(0, 90), max_size=3), n=st.integers(1, 70))
def test_the_left_product_in_parts_has_the_same_bits(dtype, cuts, n):
    """Rows of the result, from anywhere to anywhere."""
    generator = np.random.default_rng(7)
    x, g = (generator.standard_normal((60, width)).astype(dtype) for width in (90, n))
    whole, parts = np.empty((90, n), dtype), np.full((90, n), np.nan, dtype)
    _product_left(x, np.arange(60), g, whole)
    for first, stop in itertools.pairwise(sorted([0, *cuts, 90])):
        product_left(x, np.arange(60), g, parts, first, stop)
        assert np.isnan(parts[stop:]).all()
    np.testing.assert_array_equal(parts, whole)


@dtypes
def test_the_left_product_adds_in_the_order_of_the_others(dtype):
    """The gradient of 700 rows has the bits of the product of the transposed matrix: the same order of additions."""
    generator = np.random.default_rng(6)
    x, g = (generator.standard_normal((700, width)).astype(dtype) for width in (50, 20))
    left, forward = np.empty((50, 20), dtype), np.empty((50, 20), dtype)
    _product_left(x, np.arange(700), g, left)
    product(np.ascontiguousarray(x.T), np.arange(50), g, forward)
    np.testing.assert_array_equal(left, forward)


def test_not_a_number_stays_in_its_row():
    """What is not finite in one row or column reaches no other."""
    x, w, out = np.ones((9, 5), np.float32), np.ones((5, 40), np.float32), np.empty((9, 40), "f4")
    x[3, 1], w[2, 35] = np.nan, np.inf
    product(x, np.arange(9), w, out)
    assert np.isnan(out[3]).all() and np.isinf(np.delete(out[:, 35], 3)).all()
    rest = np.delete(np.delete(out, 3, axis=0), 35, axis=1)
    assert (rest == 5).all()
