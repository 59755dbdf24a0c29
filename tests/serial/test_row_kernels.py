"""Rows with a vector against NumPy, and that bits depend on nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.kernels.row_kernels import dots, weighted_sum
from tests import reference

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
ROWS = st.integers(0, 13)
COLUMNS = st.one_of(st.integers(0, 20), st.sampled_from([31, 32, 33, 64, 100, 1000]))


@dtypes
@given(rows=ROWS, columns=COLUMNS, is_first=st.booleans())
def test_results_of_whole_numbers_are_exact(dtype, rows, columns, is_first):
    """Any number of rows, anywhere in the table, of any length; memory beside the results is untouched."""
    generator = np.random.default_rng(1)
    table = generator.integers(-9, 10, (20, columns)).astype(dtype)
    places = generator.integers(0, 20, rows)
    for kernel, twin, size, more in (
        (dots, reference.dots, columns, ()),
        (weighted_sum, reference.weighted_sum, rows, (is_first,)),
    ):
        vector = generator.integers(-9, 10, size).astype(dtype)
        out_size = rows + columns - size
        memory = np.full(out_size + 40, np.nan, dtype)
        out = memory[20 : 20 + out_size]
        out[:] = expected = generator.integers(-9, 10, out_size).astype(dtype)
        kernel(table, places, vector, *more, out)
        twin(table, places, vector, *more, expected)
        np.testing.assert_array_equal(out, expected)
        assert np.isnan(memory[:20]).all() and np.isnan(memory[20 + out_size :]).all()


@dtypes
@pytest.mark.parametrize("columns", [7, 100])
def test_bits_do_not_depend_on_how_many_rows_are_taken_together(dtype, columns):
    """Rows one by one give what all of them give at once."""
    generator = np.random.default_rng(2)
    table = generator.standard_normal((9, columns)).astype(dtype)
    vector = generator.standard_normal(columns).astype(dtype)
    factors = generator.standard_normal(9).astype(dtype)
    places, together, alone = np.arange(9), np.empty(9, dtype), np.empty(9, dtype)
    total, chained = np.empty(columns, dtype), np.empty(columns, dtype)
    dots(table, places, vector, together)
    weighted_sum(table, places, factors, True, total)
    for row in range(9):
        here = slice(row, row + 1)
        dots(table, places[here], vector, alone[here])
        weighted_sum(table, places[here], factors[here], row == 0, chained)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(total, chained)
