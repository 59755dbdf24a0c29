"""The optimizers against their twins, the published updates, and the machine code they should be."""

import math
import platform
import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import njit

from lepton_mpi.commands.train import COMMAND
from lepton_mpi.optimizers import rule_kernels as kernels
from lepton_mpi.optimizers.learning_rate import Schedule
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import OPTIMIZERS, rule_of
from lepton_mpi.optimizers.rule_texts import TEXTS
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options.names import OPTIMIZERS as names_of_optimizers
from lepton_mpi.options.sources import from_command_line
from lepton_mpi.strategies.clipping import clipped_scale
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.vectors import Layout
from tests import reference

DTYPES = [np.float32, np.float64]
NAMES = list(OPTIMIZERS.built_in)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["f4", "f8"])
lengths = pytest.mark.parametrize("count", [0, 1, 7, 64, 1009])
names = pytest.mark.parametrize("name", NAMES)


def _vectors(count: int, dtype, how_many: int) -> list[np.ndarray]:
    generator = np.random.default_rng(count)
    return [generator.standard_normal(count).astype(dtype) for _ in range(how_many)]


@names
@dtypes
@lengths
@pytest.mark.parametrize("clip", [math.inf, 0.01])
@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_kernels_match_their_twins(name, dtype, count, clip, decay):
    """One update of parameters and state, to a few roundings."""
    w, g, m, v = _vectors(count, dtype, 4)
    m, v = (np.abs(m), np.abs(v)) if name in ("adagrad", "rmsprop") else (m, np.abs(v))
    tiny = np.finfo(dtype).tiny
    numbers = np.array(
        [1 / 64, clip, 0.1, 0.9, 0.1, 0.999, 0.001, 1e-8, tiny, 1 / 64, 0.001], dtype
    )
    assert len(numbers) == kernels.NUMBER_COUNT
    mine, twins = [w.copy(), m.copy(), v.copy()], [w.copy(), m.copy(), v.copy()]
    getattr(kernels, name)(mine[0], g, *mine[1:], dtype(decay), numbers)
    getattr(reference, name)(twins[0], g, *twins[1:], dtype(decay), numbers)
    # Adaptive steps divide by small roots, which magnifies a rounding of what is under the root.
    np.testing.assert_allclose(
        mine, twins, rtol=1e2 * np.finfo(dtype).eps, atol=32 * np.finfo(dtype).eps
    )


@pytest.mark.slow(but_every=3)
@dtypes
@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("beta_2", [1.0, 0.999])
def test_a_frozen_variance_has_a_least(name, dtype, beta_2):
    """Where no gradient was before the variance froze, the square of the first one stands in for it; else nothing is other than in Adam."""
    w, g, m, v = _vectors(1009, dtype, 4)
    v = np.abs(v)
    v[::3] = 0
    tiny = np.finfo(dtype).tiny
    numbers = np.array(
        [1 / 64, math.inf, 0.1, 0.9, 0.1, beta_2, 0, 1e-8, tiny, 1 / 64, 0.001], dtype
    )
    if beta_2 < 1:
        numbers[kernels.D] = numbers[kernels.F]
    mine, twins, plain = ([array.copy() for array in (w, m, v)] for _ in range(3))
    getattr(kernels, f"{name}_least")(mine[0], g, *mine[1:], dtype(0.25), numbers)
    getattr(reference, name)(twins[0], g, *twins[1:], dtype(0.25), numbers)
    getattr(kernels, name)(plain[0], g, *plain[1:], dtype(0.25), numbers)
    np.testing.assert_allclose(
        mine, twins, rtol=1e2 * np.finfo(dtype).eps, atol=32 * np.finfo(dtype).eps
    )
    assert np.array_equal(mine, plain) == (beta_2 < 1)
    assert (mine[2][::3] > 0).all()


def _optimizer(name: str, count: int, dtype, rate: float = 1e-2, **options) -> Optimizer:
    settings = Settings(name, lambda step: rate, **options)
    state = np.zeros((len(rule_of(settings).state), count), dtype)
    return Optimizer(settings, Layout({"w": (count, 1)}), dtype, state)


def _run(optimizer: Optimizer, w: np.ndarray, gradients: list[np.ndarray], rows: int) -> np.ndarray:
    w = w.copy()
    for step, gradient in enumerate(gradients, start=1):
        optimizer.begin_step(step, 1 / rows)
        optimizer.update(w, gradient * rows, 0, w.size)
    return w


_DEFAULTS = {
    "adam": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
    "adamw": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
    "lion": {"beta_1": 0.9, "beta_2": 0.99},
    "adagrad": {"epsilon": 1e-10},
    "rmsprop": {"rho": 0.99, "epsilon": 1e-8},
}


def _published(
    name: str, w: np.ndarray, gradients, rate: float, decay: float, own: dict[str, float]
) -> np.ndarray:
    """The algorithms as their papers or PyTorch's documentation write them, in float64."""
    w, m, v = w.astype(np.float64), 0.0, 0.0
    b1, b2 = own.get("beta_1", 0.0), own.get("beta_2", 0.0)
    epsilon, rho = own.get("epsilon", 0.0), own.get("rho", 0.0)
    for t, g in enumerate(gradients, start=1):
        g = g.astype(np.float64)
        if name not in ("adamw", "lion"):
            g = g + decay * w
        if name == "sgd":
            w = w - rate * g
        elif name == "momentum":
            m = 0.9 * m + g
            w = w - rate * m
        elif name == "nesterov":
            m = 0.9 * m + g
            w = w - rate * (g + 0.9 * m)
        elif name in ("adam", "adamw"):
            w = w - rate * decay * w * (name == "adamw")
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            w = w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
        elif name == "lion":
            w = w - rate * (np.sign(b1 * m + (1 - b1) * g) + decay * w)
            m = b2 * m + (1 - b2) * g
        elif name == "adagrad":
            v = v + g**2
            w = w - rate * g / (np.sqrt(v) + epsilon)
        else:
            v = rho * v + (1 - rho) * g**2
            w = w - rate * g / (np.sqrt(v) + epsilon)
    return w


@dtypes
@names
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_hundred_steps_are_the_published_algorithm(name, dtype, decay):
    """Started from 0 state, with rows summed and divided again."""
    w, *gradients = _vectors(50, dtype, 101)
    asked = "sgd" if name == "momentum" else name
    momentum = 0.0 if name == "sgd" else 0.9
    mine = _optimizer(asked, 50, dtype, momentum=momentum, weight_decay=decay)
    result = _run(mine, w, gradients, rows=16)
    expected = _published(name, w, gradients, 1e-2, decay, _DEFAULTS.get(name, {}))
    np.testing.assert_allclose(result, expected, rtol=0, atol=400 * np.finfo(dtype).eps)


@dtypes
@pytest.mark.parametrize("name", _DEFAULTS)
def test_options_are_the_numbers_of_the_published_algorithm(name, dtype):
    """Betas, rho and epsilon, each far from its default, as a command line gives them."""
    other = {"beta_1": 0.5, "beta_2": 0.75, "rho": 0.5, "epsilon": 0.25}
    options = {key: other[key] for key in _DEFAULTS[name]}
    words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    chosen = from_command_line(["--optimizer", name, *words])
    w, *gradients = _vectors(50, dtype, 21)
    mine = _optimizer(name, 50, dtype, weight_decay=0.1, own=chosen.config.own["optimizer"])
    result = _run(mine, w, gradients, rows=16)
    expected = _published(name, w, gradients, 1e-2, 0.1, options)
    np.testing.assert_allclose(result, expected, rtol=0, atol=400 * np.finfo(dtype).eps)
    defaults = _published(name, w, gradients, 1e-2, 0.1, _DEFAULTS[name])
    assert np.abs(expected - defaults).max() > 1e-3


@pytest.mark.slow(but_every=3)
@dtypes
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_frozen_variance_is_that_of_its_last_step(name, dtype):
    """The mean goes on, and rates; v and its correction stay, but for elements that v would let leap: those of v = 0."""
    w, *gradients = _vectors(50, dtype, 31)
    for gradient in gradients[:10]:
        gradient[:5] = 0
    chosen = from_command_line(["--optimizer", name, "--freeze-variance-after", "10"])
    mine = _optimizer(name, 50, dtype, own=chosen.config.own["optimizer"])
    result = _run(mine, w, gradients, rows=16)
    expected, m, v = w.astype(np.float64), np.zeros(50), np.zeros(50)
    for t, g in enumerate((each.astype(np.float64) for each in gradients), start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2 if t <= 10 else np.maximum(v, 0.001 * g**2)
        corrected = v / (1 - 0.999 ** min(t, 10))
        step = 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(corrected) + 1e-8)
        assert np.abs(step).max() < 0.04
        expected = expected - step
    np.testing.assert_allclose(result, expected, rtol=0, atol=1000 * np.finfo(dtype).eps)
    np.testing.assert_allclose(mine.state[1], v, rtol=1e-5)
    never = _run(_optimizer(name, 50, dtype), w, gradients, rows=16)
    assert np.abs(never - result).max() > 1e-3


def test_the_first_step_of_adam_has_the_length_of_the_learning_rate():
    """Whatever the gradient's size, the first step is ``learning_rate`` against its sign."""
    for size in (1e-3, 1.0, 1e3):
        gradient = np.array([size, -size])
        w = _run(_optimizer("adam", 2, np.float64, 0.5), np.zeros(2), [gradient], 1)
        np.testing.assert_allclose(w, [-0.5, 0.5], rtol=1e-4)


@dtypes
@names
def test_slices_add_up_to_the_whole(dtype, name):
    """Updating three slices one after the other gives the bits of one update of the whole vector."""
    w, g = _vectors(100, dtype, 2)
    whole, cut = w.copy(), w.copy()
    one, other = (_optimizer(name, 100, dtype, 0.1, weight_decay=0.1) for _ in range(2))
    for step in (1, 2):
        for optimizer in (one, other):
            optimizer.begin_step(step, 0.5)
        one.update(whole, g, 0, 100)
        for start, stop in ((60, 100), (0, 1), (1, 60)):
            other.update(cut, g, start, stop)
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_array_equal(one.state, other.state)


@dtypes
@names
def test_a_slice_leaves_the_rest_alone(dtype, name):
    """Elements outside [start, stop) keep their bits, parameters and state."""
    w, g = _vectors(30, dtype, 2)
    before = w.copy()
    optimizer = _optimizer(name, 30, dtype, 0.1)
    optimizer.begin_step(1, 1.0)
    optimizer.update(w, g, 10, 20)
    outside = np.r_[0:10, 20:30]
    np.testing.assert_array_equal(w[outside], before[outside])
    for state in optimizer.named_state.values():
        assert not state[outside].any()
        assert state[10:20].any()


@names
def test_weight_decay_leaves_biases_alone(name):
    """Only arrays of two dimensions shrink; regions end where the parameters do."""
    layout = Layout({"a": (2, 3), "b": (3,), "none": (0, 2), "c": (4, 1), "d": (1, 1), "e": ()})
    settings = Settings(name, lambda step: 0.1, weight_decay=0.5)
    state = np.zeros((len(rule_of(settings).state), layout.size))
    optimizer = Optimizer(settings, layout, np.dtype(np.float64), state)
    w = np.ones(layout.size)
    optimizer.begin_step(1, 1.0)
    optimizer.update(w, np.zeros(layout.size), 0, layout.size)
    shrinks = {name: bool((view < 1).all()) for name, view in layout.views(w).items() if view.size}
    assert shrinks == {"a": True, "b": False, "c": True, "d": True, "e": False}
    assert optimizer.bounds.tolist() == [0, 6, 9, 14, 15]


@dtypes
@names
def test_weight_decay_acts_on_what_is_named(name, dtype):
    """By the parameter's part in the model, whatever its dimensions: a step without gradient shrinks it, and nothing else."""
    layout = Layout({"vector": (3,), "bias": (3,), "number": (), "matrix": (2, 2), "table": (2, 1)})
    settings = Settings(name, lambda step: 0.125, momentum=0.0, weight_decay=0.5)
    state = np.zeros((len(rule_of(settings).state), layout.size), dtype)
    decayed = ("vector", "number", "table")
    optimizer = Optimizer(settings, layout, np.dtype(dtype), state, decayed=decayed)
    w = np.ones(layout.size, dtype)
    optimizer.begin_step(1, 1.0)
    optimizer.update(w, np.zeros(layout.size, dtype), 0, layout.size)
    # Decay apart from the gradient, or the first step of rules that divide the gradient by its size; rmsprop divides by its root.
    expected = {
        "sgd": 0.9375,
        "momentum": 0.9375,
        "nesterov": 0.9375,
        "adamw": 0.9375,
        "lion": 0.9375,
    }
    shrunk = expected.get(name, 1 - 0.125 * 10 if name == "rmsprop" else 0.875)
    for key, view in layout.views(w).items():
        np.testing.assert_allclose(view, shrunk if key in decayed else 1, rtol=1e-6)


@dtypes
@names
def test_state_that_no_gradient_feeds_fades_to_zero(name, dtype):
    """It never is a subnormal number, which would make every later update slow; it stays where nothing fades."""
    w, g = _vectors(40, dtype, 2)
    optimizer = _optimizer(name, 40, dtype)
    tiny = np.finfo(dtype).tiny
    optimizer.state[:] = 4 * tiny
    optimizer.begin_step(1, 1.0)
    for _ in range(3_000):
        optimizer.update(w, np.zeros_like(g), 0, 40)
        assert not ((optimizer.state != 0) & (np.abs(optimizer.state) < tiny)).any()
    assert (optimizer.state == 0).all() == (name != "adagrad") or not optimizer.state.size
    optimizer.update(w, np.full_like(g, np.nan), 0, 40)
    assert np.isnan(w).all()


def test_clipping_by_value():
    """The mean counts, not the sum; NaN is not hidden."""
    optimizer = _optimizer("sgd", 4, np.float64, 1.0, momentum=0.0, clip_value=2.0)
    w = np.zeros(4)
    optimizer.begin_step(1, 1 / 10)
    optimizer.update(w, np.array([10.0, 100.0, -100.0, np.nan]), 0, 4)
    np.testing.assert_array_equal(w, [-1, -2, 2, np.nan])


@dtypes
@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_momentum_has_the_rate_inside_of_the_velocity(name, dtype):
    """As ``--help`` says: what the velocity holds keeps the rates of its time. With the rate outside, as in torch, it does not."""
    rates, (w, *gradients) = [0.5, 0.5, 0.05, 0.2], _vectors(20, dtype, 5)
    settings = Settings(name, lambda step: rates[step - 1], momentum=0.75)
    optimizer = Optimizer(settings, Layout({"w": (20,)}), np.dtype(dtype), np.zeros((1, 20), dtype))
    mine = _run(optimizer, w, gradients, rows=1)
    inside = outside = w.astype(np.float64)
    v = u = np.zeros(20)
    for rate, g in zip(rates, gradients, strict=True):
        v = 0.75 * v - rate * g
        u = 0.75 * u + g
        inside = inside + (v if name == "sgd" else 0.75 * v - rate * g)
        outside = outside - rate * (u if name == "sgd" else g + 0.75 * u)
    np.testing.assert_allclose(mine, inside, rtol=0, atol=100 * np.finfo(dtype).eps)
    assert np.abs(inside - outside).max() > 0.1


def test_clipping_comes_before_the_decay_and_by_norm_before_by_value():
    """In the order that ``--help`` says; of the mean gradient (6, 8, 0), whose norm is 10."""
    settings = Settings("sgd", lambda step: 1.0, 0.0, weight_decay=0.5, clip_value=3.5)
    layout = Layout({"w": (3, 1)})
    optimizer = Optimizer(settings, layout, np.dtype(np.float64), np.zeros((0, 3)))
    w, summed = np.array([1.0, 1.0, 10.0]), np.array([24.0, 32.0, 0.0])
    optimizer.begin_step(1, clipped_scale(1 / 4, math.sqrt(sum_of_squares(summed)), 5.0))
    optimizer.update(w, summed, 0, 3)
    # By norm (3, 4, 0), by value (3, 3.5, 0), and the decay of half of w, which nothing bounds.
    np.testing.assert_allclose(w, [1 - 3 - 0.5, 1 - 3.5 - 0.5, 10 - 5], rtol=1e-15)


def test_help_has_the_rule_of_every_optimizer():
    """Also behind its name alone."""
    assert TEXTS.keys() == names_of_optimizers.keys()
    text = " ".join(COMMAND.help().split())
    for name, rule in TEXTS.items():
        assert f"--optimizer {name}: {rule}" in text
        assert rule in " ".join(COMMAND.help(name).split())
        assert "Keras" in rule or "torch" in rule or name == "momentum"


@dtypes
@lengths
def test_sum_of_squares_matches_its_twin(dtype, count):
    """In float64 whatever the type."""
    (vector,) = _vectors(count, dtype, 1)
    assert sum_of_squares(vector) == pytest.approx(reference.sum_of_squares(vector), rel=1e-14)


# What torch 2.8 documents, its step t counted from 0. LinearLR is written as closed_form there.
def _linear_lr(t: int, start_factor: float, total_iters: int) -> float:
    return start_factor + (1 - start_factor) * min(1, t / max(1, total_iters))


def _step_lr(t: int, step_size: int, gamma: float) -> float:
    return gamma ** (t // step_size)


def _cosine_annealing_lr(t: int, t_max: int) -> float:
    return (1 + math.cos(math.pi * t / t_max)) / 2


def _torch_rates(kind: str, warmup: int, total: int, period: int, factor: float) -> list[float]:
    """SequentialLR of LinearLR and the other, with the warm-up's steps as milestone."""
    rates = [_linear_lr(t, 1 / warmup, warmup - 1) for t in range(warmup)]
    for t in range(total - warmup):
        rates.append(
            {
                "constant": lambda t: 1.0,
                "step": lambda t: _step_lr(t, period, factor),
                "cosine": lambda t: _cosine_annealing_lr(t, total - warmup),
            }[kind](t)
        )
    return rates


@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 2, 5])
@pytest.mark.parametrize("total", [1, 2, 6, 41])
@pytest.mark.parametrize("period", [1, 3, 10])
def test_schedules_are_those_of_torch(kind, warmup, total, period):
    """Step for step; none has rate 0, so every step trains."""
    warmup = min(warmup, total)
    schedule = Schedule(0.25, kind, warmup, total, period, 0.1)
    rates = [schedule(step) for step in range(1, total + 1)]
    expected = [0.25 * rate for rate in _torch_rates(kind, warmup, total, period, 0.1)]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert min(rates) > 0


def test_schedules():
    """Values by hand: warm-up, steps that drop after whole periods, and a cosine that would be 0 behind the last step."""
    constant = Schedule(2.0, warmup=4)
    assert [constant(step) for step in (1, 2, 4, 5, 1000)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    steps = Schedule(1.0, "step", period=3, factor=0.5)
    assert [steps(step) for step in range(1, 8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    steps = Schedule(1.0, "step", warmup=2, period=2, factor=0.5)
    assert [steps(step) for step in range(1, 8)] == [0.5, 1, 1, 1, 0.5, 0.5, 0.25]
    cosine = Schedule(1.0, "cosine", warmup=10, total=110)
    assert cosine(10) == cosine(11) == 1.0
    assert cosine(61) == pytest.approx(0.5)
    assert cosine(110) == pytest.approx((1 - math.cos(math.pi / 100)) / 2)
    assert cosine(111) == cosine(200) == 0
    rates = [cosine(step) for step in range(11, 112)]
    assert rates == sorted(rates, reverse=True)
    assert Schedule(1.0, "cosine", total=1)(1) == 1.0


def test_schedules_of_runs_that_an_earlier_version_began():
    """Step and cosine are one step ahead, as they were; warm-up and constant rate are the same."""
    old = {"counts_from_1": True}
    steps = Schedule(1.0, "step", period=3, factor=0.5, **old)
    assert [steps(step) for step in range(1, 7)] == [1, 1, 0.5, 0.5, 0.5, 0.25]
    cosine = Schedule(1.0, "cosine", warmup=10, total=110, **old)
    assert cosine(10) == 1.0 and cosine(60) == pytest.approx(0.5)
    assert cosine(110) == cosine(200) == 0
    for kind in ("step", "cosine"):
        one = Schedule(1.0, kind, warmup=4, total=50, period=7)
        before = Schedule(1.0, kind, warmup=4, total=50, period=7, **old)
        assert [one(step) for step in range(1, 5)] == [before(step) for step in range(1, 5)]
        assert [one(step + 1) for step in range(5, 50)] == [before(step) for step in range(5, 50)]


@pytest.mark.slow(but_every=6)
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="looks for x86-64 instructions"
)
@pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx2"), reason="this processor has no wide vectors"
)
@pytest.mark.parametrize(
    ("name", "operation"),
    [
        (name, "vsqrtp" if "ad" in name or name == "rmsprop" else "vmulp")
        for name in (*NAMES, "adam_least", "adamw_least")
    ],
)
def test_kernels_are_vectorised(name, operation):
    """The machine code of both types works on whole registers: 4 to 5 times slower if it does not."""
    kernel = getattr(kernels, name)
    options = {"error_model": kernel.targetoptions["error_model"]}
    types = [types for dtype in ("f4", "f8") for types in kernel.signatures_for(np.dtype(dtype))]
    # Code from the cache cannot be inspected.
    fresh = njit(types, **options)(kernel.py_func)
    for code in fresh.inspect_asm().values():
        assert re.search(rf"{operation}[sd]\s.*%[yz]mm", code)
