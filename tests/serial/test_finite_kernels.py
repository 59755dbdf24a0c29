"""Numbers that are not finite are found wherever they are."""

import numpy as np
import pytest

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
