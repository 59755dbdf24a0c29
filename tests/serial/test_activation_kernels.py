"""Activations and dropout: kernels against their NumPy twins, to the last places, and what a mask depends on."""

import typing

import numpy as np
import pytest

from lepton_mpi.data.order import draws
from lepton_mpi.kernels import counter_random
from lepton_mpi.kernels.product_kernels import right_scratch_size
from lepton_mpi.layers import activation_kernels as kernels
from lepton_mpi.layers import dense_kernels as model_kernels
from lepton_mpi.options.config import Config
from tests import reference

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
kinds = pytest.mark.parametrize("kind", kernels.KINDS.values(), ids=kernels.KINDS)
RELU = kernels.KINDS["relu"]


def _inputs(dtype) -> np.ndarray:
    """Even steps, all orders of magnitude, and the largest numbers."""
    generator = np.random.default_rng(0)
    even = np.linspace(-100, 100, 200_001)
    sizes = generator.standard_normal(100_000) * 10.0 ** generator.uniform(-30, 1, 100_000)
    return np.concatenate([even, sizes, [0, -0.0, 1e30, -1e30, 3e38, -3e38]]).astype(dtype)


def _both(kind: int, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Activations and slopes of the kernel."""
    out, slope = z.copy(), np.full_like(z, np.nan)
    kernels.activate(kind, np.zeros_like(z), out, slope)
    return out, slope


@kinds
def test_float32_activations_are_right_to_four_units_in_the_last_place(kind):
    """Relative to the exact value, wherever that is not nearly 0: 1e-36; slopes relative to 1."""
    z = _inputs(np.float32)
    exact, exact_slope = reference.ACTIVATIONS[kind](z.astype(np.float64))
    out, slope = _both(kind, z)
    unit = np.finfo(np.float32).eps
    np.testing.assert_allclose(out, exact, rtol=4 * unit, atol=2e-36)
    np.testing.assert_allclose(slope, exact_slope, rtol=0, atol=4 * unit)


@kinds
def test_float64_activations_match_their_twin(kind):
    """To a few roundings of the largest intermediate number: the twin is rounded, too."""
    z = _inputs(np.float64)
    exact, exact_slope = reference.ACTIVATIONS[kind](z)
    out, slope = _both(kind, z)
    np.testing.assert_allclose(out, exact, rtol=1e-15, atol=4e-16)
    np.testing.assert_allclose(slope, exact_slope, rtol=0, atol=1e-15)


@dtypes
@kinds
def test_numbers_that_are_not_finite_are_not_hidden(dtype, kind):
    """NaN stays NaN, so that a run that diverges is noticed; +inf stays, or is 1 where the function ends there."""
    out, slope = _both(kind, np.array([np.nan, np.inf], dtype))
    assert np.isnan(out[0])
    assert kind == RELU or np.isnan(slope[0])
    assert out[1] == (1 if kind in (kernels.KINDS["tanh"], kernels.KINDS["sigmoid"]) else np.inf)


@dtypes
@kinds
def test_the_bits_of_a_unit_depend_on_its_input_alone(dtype, kind):
    """Not on its place in the row, nor on the row's length: neither vectors nor what is left of them differ."""
    z = np.random.default_rng(1).standard_normal(67).astype(dtype) * 3
    whole = np.stack(_both(kind, z))
    for start in (0, 1, 7, 33, 66):
        for stop in (start + 1, 67):
            part = np.stack(_both(kind, z[start:stop].copy()))
            assert part.tobytes() == whole[:, start:stop].tobytes(), (start, stop)


def dense_activation(kind, x, places, w, b, threaded, out, slope):
    """As its twin."""
    model_kernels.multiply(x, places, w, threaded, out)
    kernels.activate_rows(kind, b, out, slope)


def dense_dropout(kind, x, places, w, b, threaded, draw, layer, rows, dropped, numbers, out, slope):
    """As its twin."""
    model_kernels.multiply(x, places, w, threaded, out)
    kernels.activate_drop_rows(kind, b, draw, layer, rows, dropped, numbers, out, slope)


@pytest.mark.slow(but_every=5)
@dtypes
@kinds
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("m", "k"), [(1, 1), (3, 2), (30, 130)])
@pytest.mark.parametrize("threaded", [False, True])
def test_layers_match_their_twins(dtype, kind, rows, m, k, threaded):
    """Forward with and without dropout, and backward, to the roundings of their sums."""
    generator = np.random.default_rng(2)
    x, w, g, b = (
        generator.standard_normal(shape).astype(dtype)
        for shape in ((rows, m), (m, k), (rows, k), (k,))
    )
    numbers, row_numbers = np.empty(-(-k // 4), np.uint64), np.arange(rows) * 1000
    places = np.arange(rows) if threaded else np.arange(rows)[::-1].copy()
    tolerance = 8 * (m + k) * np.finfo(dtype).eps
    for layer, more in (
        (dense_activation, ()),
        (dense_dropout, (-5, 1, row_numbers, 20_000, numbers)),
    ):
        mine, exact = (np.full((2, rows, k), np.nan, dtype) for _ in range(2))
        layer(kind, x, places, w, b, threaded, *more, *mine)
        getattr(reference, layer.__name__)(kind, x, places, w, b, threaded, *more, *exact)
        if kind == RELU:  # the sign of a sum near 0 may be either
            near_0 = np.abs(x[places].astype(float) @ w + b) < tolerance
            mine[1][near_0] = exact[1][near_0] = 0
        np.testing.assert_allclose(mine, exact, rtol=0, atol=tolerance)
    mine, exact = (np.full((rows, m), np.nan, dtype) for _ in range(2))
    scratch = np.empty(right_scratch_size(rows, k, m), dtype)
    given = g, w, x, threaded, np.arange(max(rows, m)), scratch
    model_kernels.multiply_right(g, w, *given[3:], mine)
    kernels.slope_backward(x, mine)
    reference.dense_slope_backward(*given, exact)
    np.testing.assert_allclose(mine, exact, rtol=0, atol=tolerance)


def test_the_configuration_names_the_activations():
    """``--activation`` offers what there is."""
    assert typing.get_args(typing.get_type_hints(Config)["activation"]) == tuple(kernels.KINDS)


# -- dropout -----------------------------------------------------------------------------------------


def _masks(
    rows, width: int = 128, draw: int = 77, layer: int = 0, dropped: int = 6554
) -> np.ndarray:
    """True for units that are kept, shape (rows, width), by a layer whose activations are all 1."""
    rows = np.asarray(rows, np.int64)
    x, w, b = np.ones((rows.size, 1), np.float32), np.zeros((1, width), np.float32), np.ones(width)
    out, slope = (np.full((rows.size, width), np.nan, np.float32) for _ in range(2))
    numbers = np.empty(-(-width // 4), np.uint64)
    dense_dropout(
        *(RELU, x, np.arange(rows.size), w, b.astype(np.float32), False, draw, layer),
        *(rows, dropped, numbers, out, slope),
    )
    np.testing.assert_array_equal(out, slope)
    assert set(np.unique(out)) <= {np.float32(0), np.float32(65536 / (65536 - dropped))}
    return out > 0


@pytest.mark.parametrize("width", [1, 3, 4, 5, 128])
def test_masks_are_those_of_the_twin(width):
    """Bit for bit, for any width."""
    key = counter_random.chain(counter_random.chain(np.array([77], np.uint64), 2), 9)
    ones, numbers = np.ones((2, width)), np.empty(-(-width // 4), np.uint64)
    reference.drop(key[0], 30_000, numbers, *ones)
    np.testing.assert_array_equal(
        _masks([9], width, layer=2, dropped=30_000)[0], ones[0] > 0, strict=True
    )


def test_a_row_has_its_mask_wherever_it_stands():
    """The same row in another batch, at another place, gets the same mask in the same step."""
    alone = _masks([41])
    for batch, place in (([41, 3], 0), ([3, 5, 41], 2), (list(range(30, 94)), 11)):
        np.testing.assert_array_equal(_masks(batch)[place], alone[0])


def test_a_narrower_layer_has_the_beginning_of_the_mask():
    """A unit's number, not the layer's width, decides."""
    np.testing.assert_array_equal(_masks([8], 50)[0], _masks([8], 128)[0, :50])


@pytest.mark.parametrize("dropped", [0, 1, 6554, 32_768, 58_982, 65_535])
def test_the_share_that_is_dropped_is_that_asked_for(dropped):
    """Over 2**20 units within 5 standard errors; so also the mean of what is left."""
    kept = _masks(np.arange(8192), dropped=dropped)
    rate = dropped / 65_536
    assert abs((~kept).mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / kept.size)


@pytest.mark.parametrize("other", ["row", "unit", "layer", "step", "seed"])
def test_masks_are_independent(other):
    """Masks of other rows, neighbouring units, layers, steps and seeds are uncorrelated within 5 standard errors."""
    rows, dropped = np.arange(4096), 32_768
    first, second = draws(0, 10, 2)
    mask = _masks(rows, draw=first, dropped=dropped)
    shifted = {
        "row": lambda: (mask[1:], mask[:-1]),
        "unit": lambda: (mask[:, 1:], mask[:, :-1]),
        "layer": lambda: (mask, _masks(rows, draw=first, layer=1, dropped=dropped)),
        "step": lambda: (mask, _masks(rows, draw=second, dropped=dropped)),
        "seed": lambda: (mask, _masks(rows, draw=draws(1, 10, 1)[0], dropped=dropped)),
    }
    a, b = shifted[other]()
    correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(a.size)


def test_draws_are_a_function_of_seed_and_step():
    """Whatever the number of steps of an epoch: any run of steps has the same; and these never change."""
    assert draws(3, 5, 4) == draws(3, 0, 9)[5:]
    assert len({*draws(3, 0, 1000), *draws(4, 0, 1000)}) == 2000
    assert draws(0, 0, 2) == [2176460304798902213, -7100368454207878246]
