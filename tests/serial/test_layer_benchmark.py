"""What ``benchmarks/layers.py`` and ``benchmarks/memory.py`` decide without torch and without ranks, and that this engine has every layer."""

import numpy as np
import pytest

from benchmarks.engines.layer_cases import CASES, LayerCase, layer_row, sample
from benchmarks.engines.layer_lepton import Layers, TokenLosses
from benchmarks.layers import difference, find_problems, joined_rows
from benchmarks.memory import completed
from benchmarks.memory import find_problems as problems_of_memory

NORM = next(case for case in CASES if case.name == "LayerNorm")
DROPOUT = next(case for case in CASES if case.is_random)


def _small(case: LayerCase) -> LayerCase:
    """With two rows."""
    return case._replace(shape=(2, *case.shape[1:]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_this_engine_fills_everything_that_is_compared(case):
    """Forward and backward, with values that are not all the same."""
    made = TokenLosses(_small(case)) if case.kind == "token_loss" else Layers(_small(case))
    results = made.results()
    assert len(results) >= 2
    for array in results:
        assert np.isfinite(array).all()
        assert array.any()


def test_a_dense_layer_s_results_are_its_formula_s():
    """In the order of the input and the parameters."""
    case = LayerCase("dense", "dense", (5, 7), {"outputs": 3})
    x, slope = case.values(0, (5, 7)), case.values(1, (5, 3))
    weight, bias = case.parameter(0, (7, 3)), case.parameter(1, (3,))
    expected = [x @ weight + bias, slope @ weight.T, x.T @ slope, slope.sum(axis=0)]
    for mine, right in zip(Layers(case).results(), expected, strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-5, atol=1e-5)


def test_values_of_cases_differ():
    """By case and by array, all within the limit."""
    shape = (1000,)
    arrays = [case.values(number, shape) for case in CASES[:3] for number in (0, 1)]
    assert len({array.tobytes() for array in arrays}) == 6
    assert all(0.9 < np.abs(array).max() <= 1 for array in arrays)
    assert NORM.parameter(0, (300, 4)).max() <= 0.1
    assert set(NORM.codes(0, (1000,), 7)) == set(range(7))


def test_large_arrays_are_compared_in_part():
    """At even distances over all of it."""
    array = np.arange(1_000_000)
    assert sample(array[:100]).tolist() == list(range(100))
    assert sample(array)[-1] > 990_000
    assert len(sample(array)) <= 250_000


def _values(out: np.ndarray, name: str = NORM.name) -> dict[str, np.ndarray]:
    return {f"{name}|0": out, f"{name}|1": np.ones(3, np.float32)}


def test_the_difference_is_relative_to_the_largest_element():
    """NaN, other lengths and nothing at all are no agreement."""
    right = np.array([1.0, -4.0, 2.0], np.float32)
    assert difference(NORM, _values(right), _values(right)) == 0
    off = right + np.array([0, 0, 0.004], np.float32)
    assert difference(NORM, _values(off), _values(right)) == pytest.approx(1e-3, rel=1e-3)
    assert np.isnan(difference(NORM, _values(right * np.nan), _values(right)))
    assert difference(NORM, _values(right[:2]), _values(right)) == np.inf
    assert difference(NORM, {}, _values(right)) == np.inf
    assert difference(NORM, _values(right), {}) == np.inf


def test_of_random_values_the_shares_of_zeros_are_compared():
    """Up to a hundredth."""
    zeros = np.ones(10_000)
    zeros[:1000] = 0
    more, many = zeros.copy(), zeros.copy()
    more[:1080], many[:1200] = 0, 0
    name = DROPOUT.name
    near = difference(DROPOUT, {f"{name}|0": more}, {f"{name}|0": zeros})
    far = difference(DROPOUT, {f"{name}|0": many}, {f"{name}|0": zeros})
    assert near < 1e-4 < far


def test_rows_hold_both_engines_medians():
    """And ratios of them, where both passes were timed."""
    measured = [layer_row(NORM, "lepton_mpi", 10.0 + n, 20.0) for n in (0, 1, 5)]
    measured += [layer_row(NORM, "torch", 22.0, 30.0, way="")]
    (row,) = joined_rows([NORM], measured, {})
    assert (row["forward_us"], row["torch_backward_us"]) == (11.0, 30.0)
    assert (row["forward_ratio"], row["backward_ratio"]) == (2.0, 1.5)
    assert row["gflops"] is None
    loss = next(case for case in CASES if case.kind == "token_loss")
    both = [layer_row(loss, engine, None, 50.0) for engine in ("lepton_mpi", "torch")]
    (row,) = joined_rows([loss], both, {})
    assert "forward_ratio" not in row
    assert row["backward_ratio"] == 1.0
    assert row["gflops"] == pytest.approx(3 * 2 * 1024 * 384 * 4096 / 50e-6 / 1e9)


@pytest.mark.parametrize("far", [1.1e-4, np.nan, np.inf, None])
def test_another_result_is_a_problem(far):
    """And one that was not compared, and a layer that this engine has no time of."""
    row = {"layer": NORM.name} | ({} if far is None else {"difference": far})
    (problem,) = find_problems([NORM], [row], ["lepton_mpi", "torch"])
    assert problem.startswith("LayerNorm: expected values")
    assert list(find_problems([NORM], [row], ["lepton_mpi"])) == []
    assert list(find_problems([NORM], [{**row, "difference": 9e-5}], ["lepton_mpi", "torch"])) == []
    (problem,) = find_problems([NORM], [], ["lepton_mpi"])
    assert "could not be measured" in problem


def _memory_row(predicted: int, measured: int) -> dict:
    row = {"model": "mlp-10m", "ranks": 2, "predicted": predicted, "measured": measured}
    return completed({**row, "predicted_host": 1 << 20, "measured_host": 2 << 20})


def test_predictions_of_large_cases_are_checked():
    """To 5 %, from 100 MiB on, in both directions."""
    mib = 1 << 20
    good = [_memory_row(200 * mib, 209 * mib), _memory_row(50 * mib, 90 * mib)]
    assert list(problems_of_memory(good)) == []
    for predicted, measured in ((200, 211), (200, 189), (90, 120), (120, 90)):
        (problem,) = problems_of_memory([_memory_row(predicted * mib, measured * mib)])
        assert f"expected {predicted}.0 MiB, got {measured}.0" in problem
