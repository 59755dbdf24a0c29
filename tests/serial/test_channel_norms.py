"""Batch and group normalisation: kernels against their twins, gradients against finite differences, running statistics."""

import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import channel_norm_kernels as kernels
from lepton_mpi.layers.batch_norm import BatchNorm, strips
from lepton_mpi.layers.compose import Residual, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.group_norm import GroupNorm
from tests import reference_images
from tests.serial.slopes import (
    batch_of,
    check_slopes,
    loss_and_gradient,
    network_of,
    parameters_of,
)

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
relu = pytest.mark.parametrize("with_relu", [False, True], ids=["plain", "relu"])
# Places and channels: none, one, less than a strip, several strips and a rest, more than a chunk of strips.
SIZES = [(0, 3), (1, 1), (1, 7), (5, 3), (91, 12), (3, 300), (2500, 8)]


def _random(seed: int, *shape: int, dtype=np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _check(kernel, twin, given: tuple, outs: tuple, terms: int) -> None:
    mine, exact = [a.copy() for a in outs], [a.copy() for a in outs]
    kernel(*given, *mine)
    twin(*given, *exact)
    for a, b in zip(mine, exact, strict=True):
        assert not np.isnan(a).any(), "a part of the output was not filled"
        tolerance = (terms + 16) * np.finfo(a.dtype).eps * max(1, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def _scratch(channels: int, dtype) -> tuple[np.ndarray, np.ndarray]:
    memory = strips(channels)
    return np.full(memory["wide"].shape, np.nan, dtype), np.full(memory["totals"].shape, np.nan)


@pytest.mark.slow(but_every=4)
@dtypes
@relu
@pytest.mark.parametrize(("places", "channels"), SIZES)
def test_batch_kernels_match_their_twins(dtype, with_relu, places, channels):
    """Statistics, the normalised numbers, and the gradients with and without that by x."""
    x, slope = (_random(s, places * channels, dtype=dtype) for s in (1, 2))
    weight, bias = (_random(s, channels, dtype=dtype) for s in (3, 4))
    wide, totals = _scratch(channels, dtype)
    statistics = np.full((2, channels), np.nan, dtype)
    twin = reference_images
    _check(kernels.batch_statistics, twin.batch_statistics, (x, wide, totals), (statistics,), 64)
    kernels.batch_statistics(x, wide, totals, statistics)
    nan = np.full_like(x, np.nan)
    given = x, statistics, weight, bias, 1e-5, with_relu, wide
    _check(kernels.normalise, twin.normalise, given, (nan,), 300)
    filled = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    for grad_x in (nan, nan[:0]):
        outs = *filled, grad_x
        twin_gradient = twin.batch_norm_gradient
        # Sums over places of products, and again of a chunk of strips in the run's type; one place has no deviation.
        terms = 64 + places if places != 1 else 2_000
        _check(kernels.batch_norm_gradient, twin_gradient, (*given, totals, slope), outs, terms)
        twin_gradient = twin.normalise_gradient
        _check(kernels.normalise_gradient, twin_gradient, (*given, totals, slope), outs, terms)


@pytest.mark.slow(but_every=4)
@dtypes
@relu
@pytest.mark.parametrize(("rows", "places", "groups", "each"), [(0, 2, 1, 3), (1, 1, 1, 4), (3, 5, 2, 3), (2, 67, 4, 8), (4, 3, 3, 100)])  # fmt: skip
def test_group_kernels_match_their_twins(dtype, with_relu, rows, places, groups, each):
    channels = groups * each
    x, slope = (_random(s, rows, places * channels, dtype=dtype) for s in (1, 2))
    weight, bias = (_random(s, channels, dtype=dtype) for s in (3, 4))
    scratch = _scratch(channels, dtype)
    statistics, nan = np.full((rows, 2 * groups), np.nan, dtype), np.full_like(x, np.nan)
    given, twin = (weight, bias, 1e-5, with_relu, *scratch), reference_images
    _check(kernels.group_norm, twin.group_norm, (x, *given), (statistics, nan), 300)
    kernels.group_norm(x, *given, statistics, nan.copy())
    filled = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    for grad_x in (nan, nan[:0]):
        outs, arguments = (*filled, grad_x), (x, statistics, *given, slope)
        terms = 300 + rows * places
        _check(kernels.group_norm_gradient, twin.group_norm_gradient, arguments, outs, terms)


def test_statistics_far_from_zero_keep_their_digits():
    """A mean of 10 000 deviations costs float32 no more than its own rounding."""
    x = (1e4 + _random(1, 4096, 3)).astype(np.float32)
    statistics = np.empty((2, 3), np.float32)
    kernels.batch_statistics(x.reshape(-1), *_scratch(3, np.float32), statistics)
    exact = x.astype(float).mean(axis=0), x.astype(float).var(axis=0)
    np.testing.assert_allclose(statistics, exact, rtol=1e-6)


PARTS = {
    "batch": (BatchNorm(), (5, 4, 3)),
    "batch, relu": (BatchNorm(relu=True), (5,)),
    "batch, one channel": (BatchNorm(relu=True), (3, 1)),
    "batch, wide": (BatchNorm(relu=True), (2, 300)),
    "batch, momentum": (BatchNorm(momentum=0.5, epsilon=0.1), (4,)),
    "batch, residual": (Residual(Sequential([Dense(4), BatchNorm(), Dense(4)])), (4,)),
    "group": (GroupNorm(2), (5, 4, 6)),
    "group, all channels": (GroupNorm(1, relu=True), (3, 5)),
    "group, each channel": (GroupNorm(3, relu=True), (2, 3)),
}


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize(("part", "shape"), PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_gradients_are_the_slopes_of_the_loss(part, shape, rows):
    check_slopes(network_of(part, shape), rows, 60)


def test_the_gradients_of_running_statistics_are_sums_over_rows():
    """So that the mean over the rows of a step, of any micro-batches, is that of their statistics by rows."""
    network = network_of(BatchNorm(momentum=0.25), (5, 2))
    layout, vector = parameters_of(network)
    mean, variance = (f"layer1/running_{name}" for name in ("mean", "variance"))
    assert network.averaged == {mean: 0.25, variance: 0.25} and network.mixes_rows
    batch = batch_of(network, 6)
    p = layout.views(vector)
    x = (batch.x @ p["layer0/weight"] + p["layer0/bias"]).reshape(-1, 2)
    grad = layout.views(loss_and_gradient(network, layout, vector, batch)[1])
    np.testing.assert_allclose(grad[mean] / 6, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(grad[variance] / 6, x.var(axis=0, ddof=1), rtol=1e-12)


@relu
def test_frozen_statistics_are_what_training_normalises_by(with_relu):
    """Then rows do not depend on each other, the loss is that of evaluation, and gradients are its slopes."""
    network = network_of(BatchNorm(with_relu), (5, 4, 3))
    assert network.mixes_rows
    network.freeze([f"layer1/running_{name}" for name in ("mean", "variance")])
    assert not network.mixes_rows and kernels.batch_statistics not in network.kernels
    check_slopes(network, 7, 60)
    layout, vector = parameters_of(network)
    layout.views(vector)["layer1/running_variance"][...] = (0.5, 2, 3)
    batch = batch_of(network, 5)
    loss, _ = loss_and_gradient(network, layout, vector, batch)
    assert loss == network.evaluate(layout.views(vector), batch, np.empty(5, np.int32))


def test_frozen_scales_leave_the_statistics_alone():
    """As ``requires_grad = False`` of weight and bias in torch: training still normalises by the batch."""
    network = network_of(BatchNorm(), (5, 4, 3))
    (layout, vector), batch = parameters_of(network), batch_of(network, 7)
    loss, gradient = loss_and_gradient(network, layout, vector, batch)
    network.freeze(["layer1/weight", "layer1/bias"])
    again, other = loss_and_gradient(network, layout, vector, batch)
    assert (loss, gradient.tobytes()) == (again, other.tobytes()) and network.mixes_rows
    with pytest.raises(ConfigurationError, match=r"--freeze: expected both running_mean and run"):
        network.freeze(["layer1/running_mean"])


def test_evaluation_goes_by_the_running_statistics():
    """A row's loss is the same alone and among others."""
    network = network_of(BatchNorm(relu=True), (4, 3))
    layout, vector = parameters_of(network)
    layout.views(vector)["layer1/running_variance"][...] = (0.5, 2, 3)
    batch = batch_of(network, 5)
    views = layout.views(vector)
    together = network.evaluate(views, batch, np.empty(5, np.int32))
    rows = [batch._replace(x=batch.x[i : i + 1], y=batch.y[i : i + 1]) for i in range(5)]
    alone = sum(network.evaluate(views, row, np.empty(1, np.int32)) for row in rows)
    np.testing.assert_allclose(together, alone, rtol=1e-13)
    layout.views(vector)["layer1/running_mean"][...] += 1
    assert network.evaluate(views, batch, np.empty(5, np.int32)) != together


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigurationError, match="in 4 groups: expected a divisor of 6 channels"):
        network_of(GroupNorm(4), (2, 6))
    with pytest.raises(ConfigurationError, match="batch normalisation: expected rows of numbers"):
        BatchNorm().parameters(Input("tokens", (3,), 10))
