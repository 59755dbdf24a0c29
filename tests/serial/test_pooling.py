"""Pooling: kernels against their twins, gradients against finite differences."""

import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import pooling
from lepton_mpi.layers import pooling_kernels as kernels
from lepton_mpi.layers.pooling import AveragePool, MaxPool
from lepton_mpi.layers.windows import Window, along, square
from tests import reference_images
from tests.serial.slopes import check_slopes, network_of

CASES = {
    "one of everything": (square(1), (1, 1, 1)),
    "2x2": (square(2, stride=2), (5, 6, 3)),
    "3x3 overlapping": (square(3, stride=2, padding=1), (7, 6, 17)),
    "beyond a small image": (square(3, padding=1), (1, 2, 4)),
    "each axis its own": (Window((3, 2), (1, 3), ((1, 0), (0, 1))), (6, 5, 2)),
    "places between the windows": (square(1, stride=2), (4, 5, 3)),
    "along a sequence": (along(3, stride=2, padding=(1, 1)), (7, 5)),
}
cases = pytest.mark.parametrize(("window", "shape"), CASES.values(), ids=CASES)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])


def _random(seed: int, *shape: int, dtype=np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _check(kernel, twin, given: tuple, outs: tuple, terms: int) -> None:
    mine, exact = [a.copy() for a in outs], [a.copy() for a in outs]
    kernel(*given, *mine)
    twin(*given, *exact)
    for a, b in zip(mine, exact, strict=True):
        assert not np.isnan(a).any(), "a part of the output was not filled"
        tolerance = terms * np.finfo(np.float32 if a.dtype == np.float32 else np.float64).eps
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)))


@dtypes
@pytest.mark.parametrize("rows", [0, 1, 4])
@cases
def test_kernels_match_their_twins(dtype, rows, window, shape):
    """Also where several numbers of a window are the largest."""
    sizes = pooling._sizes(window, shape)
    x = np.round(_random(1, rows, int(np.prod(shape)), dtype=dtype), 1)
    slopes = _random(2, rows, sizes[3] * sizes[4] * sizes[2], dtype=dtype)
    nan, grad = np.full_like(slopes, np.nan), np.full_like(x, np.nan)
    taken, twin = np.full(slopes.shape, -1, np.int32), reference_images
    _check(kernels.max_pool, twin.max_pool, (x, sizes), (nan, taken), 0)
    kernels.max_pool(x, sizes, nan.copy(), taken)
    _check(kernels.max_pool_gradient, twin.max_pool_gradient, (taken, slopes), (grad,), 16)
    _check(kernels.average_pool, twin.average_pool, (x, sizes), (nan,), 16)
    gradient = kernels.average_pool_gradient, twin.average_pool_gradient
    _check(*gradient, (slopes, sizes), (grad,), 16)


def test_nan_is_the_largest_number():
    """So that it is seen in the loss."""
    x, sizes = np.array([[1, np.nan, 3, 4]]), pooling._sizes(square(2), (2, 2, 1))
    out, taken = np.empty((1, 1)), np.empty((1, 1), np.int32)
    kernels.max_pool(x, sizes, out, taken)
    assert np.isnan(out[0, 0]) and taken[0, 0] == 1


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("kind", [MaxPool, AveragePool])
@pytest.mark.parametrize("rows", [0, 1, 4])
@cases
def test_gradients_are_the_slopes_of_the_loss(kind, rows, window, shape):
    check_slopes(network_of(kind(window), shape), rows, 50)


@pytest.mark.parametrize("shape", [(3, 4, 5), (7, 2), (1, 1, 1)])
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_gradients_of_the_mean_of_all_places(rows, shape):
    network = network_of(AveragePool(), shape)
    check_slopes(network, rows, 50)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPool(square(3, padding=2)), "padded by at most half of it"),
        (lambda: AveragePool(square(3, dilation=2)), "expected a window without dilation"),
        (lambda: network_of(MaxPool(square(2)), (4, 3)), "expected rows of numbers with as many"),
        (lambda: network_of(AveragePool(), (4,)), "expected rows of numbers with as many"),
        (lambda: network_of(MaxPool(square(3)), (2, 4, 1)), "at least 3x3 with its padding, got 2x4"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
