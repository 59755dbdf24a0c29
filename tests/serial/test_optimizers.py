"""The optimizers against their twins, the published updates, and the machine code they should be."""

import platform
import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import njit

from lepton_mpi import optimizers
from tests import reference

DTYPES = [np.float32, np.float64]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["f4", "f8"])
lengths = pytest.mark.parametrize("count", [0, 1, 7, 64, 1009])


def _vectors(count: int, dtype, how_many: int) -> list[np.ndarray]:
    generator = np.random.default_rng(count)
    return [generator.standard_normal(count).astype(dtype) for _ in range(how_many)]


@dtypes
@lengths
def test_sgd_kernel_matches_its_twin(dtype, count):
    """One update of parameters and velocity, to a few roundings."""
    w, g, v = _vectors(count, dtype, 3)
    w2, v2 = w.copy(), v.copy()
    numbers = dtype(1 / 64), dtype(0.1), dtype(0.9)
    optimizers.sgd_kernel(w, g, v, *numbers)
    reference.sgd_kernel(w2, g, v2, *numbers)
    np.testing.assert_allclose([w, v], [w2, v2], rtol=0, atol=8 * np.finfo(dtype).eps * 4)


@dtypes
@lengths
def test_adam_kernel_matches_its_twin(dtype, count):
    """One update of parameters and both moments, to a few roundings."""
    w, g, m, v = _vectors(count, dtype, 4)
    v = np.abs(v)
    w2, m2, v2 = w.copy(), m.copy(), v.copy()
    numbers = [dtype(x) for x in (1 / 64, 0.9, 0.1, 0.999, 0.001, 1e-3, 1e-8)]
    optimizers.adam_kernel(w, g, m, v, *numbers)
    reference.adam_kernel(w2, g, m2, v2, *numbers)
    np.testing.assert_allclose([w, m, v], [w2, m2, v2], rtol=0, atol=8 * np.finfo(dtype).eps * 4)


def _run(optimizer, w: np.ndarray, gradients: list[np.ndarray], rows: int) -> np.ndarray:
    w = w.copy()
    for step, gradient in enumerate(gradients, start=1):
        optimizer.begin_step(step)
        optimizer.update(w, gradient * rows, 0, w.size, 1 / rows)
    return w


@dtypes
def test_adam_is_the_algorithm_of_its_paper(dtype):
    """100 steps give what Algorithm 1 of Kingma and Ba gives, written out with both bias corrections."""
    w, *gradients = _vectors(50, dtype, 101)
    mine = _run(optimizers.make_optimizer("adam", 50, dtype, 1e-2, 0.0), w, gradients, rows=16)
    theta, m, v = w.astype(np.float64), np.zeros(50), np.zeros(50)
    for t, g in enumerate(gradients, start=1):
        g = g.astype(np.float64)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        theta -= 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(mine, theta, rtol=0, atol=200 * np.finfo(dtype).eps)


def test_the_first_step_of_adam_has_the_length_of_the_learning_rate():
    """Whatever the gradient's size, the first step is ``learning_rate`` against its sign."""
    for size in (1e-3, 1.0, 1e3):
        w = _run(
            optimizers.make_optimizer("adam", 2, np.float64, 0.5, 0.0),
            np.zeros(2),
            [np.array([size, -size])],
            1,
        )
        np.testing.assert_allclose(w, [-0.5, 0.5], rtol=1e-4)


@dtypes
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_the_heavy_ball(dtype, momentum):
    """100 steps give ``v = momentum v - rate g``, ``w = w + v``; without momentum plain gradient descent."""
    w, *gradients = _vectors(50, dtype, 101)
    mine = _run(optimizers.make_optimizer("sgd", 50, dtype, 1e-2, momentum), w, gradients, rows=16)
    theta, v = w.astype(np.float64), np.zeros(50)
    for g in gradients:
        v = momentum * v - 1e-2 * g.astype(np.float64)
        theta += v
    np.testing.assert_allclose(mine, theta, rtol=0, atol=200 * np.finfo(dtype).eps)


@dtypes
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_slices_add_up_to_the_whole(dtype, name):
    """Updating three slices one after the other gives the bits of one update of the whole vector."""
    w, g = _vectors(100, dtype, 2)
    whole, cut = w.copy(), w.copy()
    one, other = (optimizers.make_optimizer(name, 100, dtype, 0.1, 0.9) for _ in range(2))
    for step in (1, 2):
        one.begin_step(step)
        one.update(whole, g, 0, 100, 0.5)
        other.begin_step(step)
        for start, stop in ((60, 100), (0, 1), (1, 60)):
            other.update(cut, g, start, stop, 0.5)
    np.testing.assert_array_equal(whole, cut)
    for state in one.state:
        np.testing.assert_array_equal(one.state[state], other.state[state])


@dtypes
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_slice_leaves_the_rest_alone(dtype, name):
    """Elements outside [start, stop) keep their bits, parameters and state."""
    w, g = _vectors(30, dtype, 2)
    before = w.copy()
    optimizer = optimizers.make_optimizer(name, 30, dtype, 0.1, 0.9)
    optimizer.begin_step(1)
    optimizer.update(w, g, 10, 20, 1.0)
    outside = np.r_[0:10, 20:30]
    np.testing.assert_array_equal(w[outside], before[outside])
    assert all(
        not state[outside].any() and state[10:20].any() for state in optimizer.state.values()
    )


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="looks for x86-64 instructions"
)
@pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx2"), reason="this processor has no wide vectors"
)
@pytest.mark.parametrize(
    ("kernel", "operation"), [(optimizers.adam_kernel, "vsqrtp"), (optimizers.sgd_kernel, "vmulp")]
)
def test_kernels_are_vectorised(kernel, operation):
    """The machine code of both types works on whole registers: 4 to 5 times slower if it does not."""
    options = {"error_model": kernel.targetoptions["error_model"]}
    fresh = njit(kernel.signatures, **options)(
        kernel.py_func
    )  # code from the cache cannot be inspected
    for code in fresh.inspect_asm().values():
        kind = "[sd]"
        assert re.search(rf"{operation}{kind}\s.*%[yz]mm", code)
