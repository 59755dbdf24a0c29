"""The losses of regression against their NumPy twins, and at their edges."""

import numpy as np
import pytest

from lepton_mpi.layers import loss_kernels as kernels
from tests import reference

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
LOSSES = {"squared_error": (), "huber of 1": (1.0,), "huber of a half": (0.5,)}
losses = pytest.mark.parametrize(("name", "more"), LOSSES.items(), ids=LOSSES)


def _call(module, name: str, outputs, targets, more) -> tuple[float, np.ndarray]:
    outputs = outputs.copy()
    loss = getattr(module, name.split()[0])(outputs, targets, *more)
    return loss, outputs


@dtypes
@losses
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (64, 1), (7, 3)])
def test_losses_match_their_twins(dtype, name, more, shape):
    """Loss and gradient."""
    generator = np.random.default_rng(0)
    outputs, targets = (generator.standard_normal(shape).astype(dtype) for _ in range(2))
    loss, gradient = _call(kernels, name, outputs, targets, more)
    exact, exact_gradient = _call(reference, name, outputs, targets, more)
    precision = np.finfo(dtype).eps
    np.testing.assert_allclose(loss, exact, rtol=8 * precision)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=0, atol=8 * precision)


@losses
def test_the_mean_over_rows_is_the_mean_over_all_elements(name, more):
    """As torch's ``MSELoss`` and ``HuberLoss`` reduce: written out."""
    generator = np.random.default_rng(1)
    z, t = generator.standard_normal((2, 11, 3)) * 2
    e = np.abs(z - t)
    elements = e**2
    if more:
        (delta,) = more
        elements = np.where(e < delta, 0.5 * e**2, delta * (e - 0.5 * delta))
    loss, _ = _call(kernels, name, z, t, more)
    np.testing.assert_allclose(loss / 11, elements.mean(), rtol=1e-14)


@dtypes
def test_huber_is_continuous_at_its_edge_and_bounded_beyond(dtype):
    """At delta both formulas agree; far away the gradient is delta; NaN is not hidden."""
    outputs = np.array([[0.5], [-0.5], [1e30], [-1e30], [np.nan]], dtype)
    loss = [kernels.huber(row[None].copy(), np.zeros((1, 1), dtype), 0.5) for row in outputs]
    assert loss[0] == loss[1] == 0.125
    np.testing.assert_allclose(loss[2:4], 0.5e30, rtol=1e-6)
    kernels.huber(outputs, np.zeros((5, 1), dtype), 0.5)
    assert outputs[:4, 0].tolist() == [0.5, -0.5, 0.5, -0.5]
    assert np.isnan(outputs[4, 0]) and np.isnan(loss[4])


def test_a_large_float32_error_does_not_overflow():
    """Squares are summed in float64."""
    loss = kernels.squared_error(np.full((1, 1), 1e30, np.float32), np.zeros((1, 1), np.float32))
    np.testing.assert_allclose(loss, 1e60, rtol=1e-6)
