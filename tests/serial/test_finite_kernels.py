"""Numbers that are not finite are found wherever they are."""

import numpy as np
import pytest

from lepton_mpi.kernels.copy_kernels import copy_and_look
from lepton_mpi.kernels.finite_kernels import not_finite
from tests import reference


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 7, 64, 65, 1003])
def test_not_finite_matches_its_twin(dtype, count):
    """One of them at each end and in the middle; the largest and the smallest numbers are finite."""
    vector = np.random.default_rng(count).standard_normal(count).astype(dtype)
    vector[1::5], vector[2::5] = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    assert not_finite(vector) == reference.not_finite(vector) == 0
    for value in (np.nan, np.inf, -np.inf):
        for place in {0, count // 2, count - 1} if count else ():
            wrong = vector.copy()
            wrong[place] = value
            assert not_finite(wrong) == reference.not_finite(wrong) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 2047, 2048, 2049, 5003])
@pytest.mark.parametrize("shift", [0, 1, 3, 15])
def test_a_copy_that_looks_is_a_copy(dtype, count, shift):
    """From and to any alignment, nothing beside it is touched, and numbers that are not finite are copied, too."""
    memory = np.full(count + shift + 40, 7, dtype)
    source = np.random.default_rng(count).standard_normal(count + 1).astype(dtype)[1:]
    target = memory[shift : shift + count]
    assert copy_and_look(target, source) == 0
    assert np.array_equal(target, source)
    assert (memory[:shift] == 7).all() and (memory[shift + count :] == 7).all()
    for place in {0, count // 2, count - 1} if count else ():
        wrong = source.copy()
        wrong[place] = np.nan if place else -np.inf
        assert copy_and_look(target, wrong) == reference.not_finite(wrong) == 1
        assert np.array_equal(target, wrong, equal_nan=True)
