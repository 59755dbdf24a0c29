"""Convolutions: kernels against their twins, the layer against its formula, gradients against finite differences."""

import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import convolution_kernels as kernels
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.layer import Arrays, When
from lepton_mpi.layers.windows import Window, along, backward_tables, forward_tables, square
from tests import reference_images
from tests.serial.slopes import check_slopes, network_of

# Window, groups, shape of an image, outputs: odd sizes, one of everything, several phases and images at a time.
CASES = {
    "one of everything": (square(1), 1, (1, 1, 1), 1),
    "one channel and output": (square(3, padding=1), 1, (4, 5, 1), 1),
    "one output": (square(3, padding=1), 1, (4, 5, 2), 1),
    "1x1": (square(1), 1, (5, 4, 3), 7),
    "1x1, stride 2": (square(1, stride=2), 1, (5, 6, 3), 4),
    "3x3": (square(3, padding=1), 1, (5, 4, 3), 17),
    "3x3, no padding": (square(3), 1, (5, 3, 2), 4),
    "3x3, stride 2": (square(3, stride=2, padding=1), 1, (7, 6, 5), 4),
    "3x3, dilation 2": (square(3, padding=2, dilation=2), 1, (6, 5, 2), 4),
    "2x2, stride 3, dilation 2": (square(2, stride=3, padding=1, dilation=2), 1, (6, 7, 3), 4),
    "stride beyond the image": (square(1, stride=5), 1, (3, 2, 2), 3),
    "each axis its own": (Window((3, 2), (1, 2), ((0, 2), (1, 0)), (2, 1)), 1, (6, 5, 3), 4),
    "padding beyond the window": (square(2, padding=3), 1, (2, 3, 2), 4),
    "7x7 over 3 channels": (square(7, stride=2, padding=3), 1, (11, 12, 3), 18),
    "2 groups": (square(3, padding=1), 2, (4, 5, 6), 8),
    "3 groups of 1 channel": (square(3, stride=2, padding=1), 3, (5, 4, 3), 6),
    "3 groups of 1 output": (square(3, padding=1), 3, (4, 5, 6), 3),
    "depthwise": (square(3, padding=1), 5, (4, 6, 5), 5),
    "depthwise, stride 2": (square(3, stride=2, padding=1), 18, (7, 6, 18), 18),
    "depthwise, dilation 2": (square(2, dilation=2), 4, (4, 5, 4), 4),
    "deep": (square(3, padding=1), 1, (3, 2, 60), 33),
}
cases = pytest.mark.parametrize(("window", "groups", "shape", "outputs"), CASES.values(), ids=CASES)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
row_counts = pytest.mark.parametrize("rows", [0, 1, 5])


def _random(seed: int, *shape: int, dtype=np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _check(kernel, twin, given: tuple, out: np.ndarray, terms: int) -> None:
    """Both fill copies of ``out``, which may differ by so many roundings of the largest element."""
    mine, exact = out.copy(), out.copy()
    kernel(*given, mine)
    twin(*given, exact)
    assert not np.isnan(mine).any(), "a part of the output was not filled"
    tolerance = (terms + 16) * np.finfo(out.dtype).eps * max(1, np.abs(exact).max(initial=0))
    np.testing.assert_allclose(mine, exact, rtol=0, atol=tolerance)


def _tables(window, groups, shape, outputs):
    *image, channels = shape
    size = window, tuple(image), channels
    there = forward_tables(*size, channels // groups, outputs)
    return there, backward_tables(*size, outputs // groups, outputs)


def _is_depthwise(groups, shape, outputs) -> bool:
    return groups == shape[2] == outputs


@dtypes
@row_counts
@cases
def test_kernels_match_their_twins(dtype, rows, window, groups, shape, outputs):
    """Products over windows both ways, and the gradient of the weights; frames begin as NaN."""
    there, back = _tables(window, groups, shape, outputs)
    height, width = window.out(shape[:2])
    taps, in_group = window.size[0] * window.size[1], shape[2] // groups
    x = _random(1, rows, int(np.prod(shape)), dtype=dtype)
    grad_out = _random(2, rows, height * width * outputs, dtype=dtype)
    weight = _random(3, taps * in_group, outputs, dtype=dtype)
    turned = np.full((back.taps.size * (outputs // groups), shape[2]), np.nan, dtype)
    _check(kernels.turn, reference_images.turn, (weight, back.taps, groups), turned, 0)
    kernels.turn(weight, back.taps, groups, turned)
    convolves, gradients = [kernels.convolve], [kernels.weight_gradient]
    if _is_depthwise(groups, shape, outputs):
        convolves.append(kernels.convolve_depthwise)
        gradients.append(kernels.weight_gradient_depthwise)
    nan = np.nan
    for kernel in convolves:
        for tables, a, factors, out in ((there, x, weight, grad_out), (back, grad_out, turned, x)):
            frame = tables.frame, np.full(tables.frame_size, nan, dtype)
            given = a, *frame, *tables[1:5], factors, groups
            terms = len(factors)
            _check(kernel, reference_images.convolve, given, np.full_like(out, nan), terms)
    for kernel in gradients:
        frame = there.frame, np.full(there.frame_size, nan, dtype)
        given = x, *frame, there.places, there.shifts[::in_group].copy(), in_group, groups, grad_out
        out = np.full_like(weight, nan)
        _check(kernel, reference_images.weight_gradient, given, out, rows * height * width)


@dtypes
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 19)])
def test_bias_kernels_match_their_twins(dtype, shape):
    rows, bias = _random(1, *shape, dtype=dtype), _random(2, shape[1], dtype=dtype)
    _check(kernels.add_to_rows, reference_images.add_to_rows, (bias,), rows, 0)
    out = np.full(shape[1], np.nan, dtype)
    _check(kernels.add_up_rows, reference_images.add_up_rows, (rows,), out, shape[0])


def _forward(layer, x: np.ndarray, p: dict) -> np.ndarray:
    """What a layer gives, in memory that begins as NaN."""
    spec = Input("numbers", x.shape[1:])
    at = Arrays((x,), np.full((len(x), *layer.out_shape(spec)), np.nan, x.dtype), 0)
    for name, memory in layer.memory(len(x), spec).items():
        if memory.lives == "scratch":
            at.memory[name] = np.full(memory.shape, np.nan, x.dtype)
    layer.forward(p, at, When(False))
    return at.out


@row_counts
@cases
def test_the_layer_gives_what_its_formula_says(rows, window, groups, shape, outputs):
    layer = Conv2d(outputs, window, groups)
    x = _random(4, rows, *shape)
    weight = _random(5, *window.size, shape[2] // groups, outputs)
    bias = _random(6, outputs)
    exact = reference_images.convolution(x, weight, window, groups) + bias
    np.testing.assert_allclose(
        _forward(layer, x, {"weight": weight, "bias": bias}), exact, rtol=0, atol=1e-12
    )


def test_a_sequence_is_an_image_of_height_1():
    """A causal window: no output depends on what comes later."""
    window = along(3, padding=(4, 0), dilation=2)
    layer, x = Conv1d(6, window, bias=False), _random(7, 2, 9, 4)
    weight = _random(8, 3, 4, 6)
    out = _forward(layer, x, {"weight": weight})
    exact = reference_images.convolution(x[:, None], weight[None], window, 1)[:, 0]
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-13)
    later = x.copy()
    later[:, 5:] += 1
    changed = _forward(layer, later, {"weight": weight})
    np.testing.assert_array_equal(changed[:, :5], out[:, :5])
    assert (changed[:, 5:] != out[:, 5:]).all()


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("rows", [0, 1, 4])
@cases
def test_gradients_are_the_slopes_of_the_loss(rows, window, groups, shape, outputs):
    """To 1e-6 of the largest; without rows they are 0."""
    check_slopes(network_of(Conv2d(outputs, window, groups), shape), rows, 50)


@pytest.mark.parametrize(("groups", "bias"), [(1, True), (4, False)])
def test_gradients_over_sequences(groups, bias):
    layer = Conv1d(4, along(3, stride=2, padding=(2, 1)), groups, bias)
    check_slopes(network_of(layer, (7, 4)), 3)


def test_rows_do_not_depend_on_the_batch():
    """The bits of a row's output are those that it has alone."""
    layer, x = Conv2d(9, square(3, stride=2, padding=1)), _random(1, 23, 6, 6, 4, dtype=np.float32)
    p = {"weight": _random(2, 3, 3, 4, 9, dtype=np.float32), "bias": np.ones(9, np.float32)}
    together = _forward(layer, x, p)
    alone = np.concatenate([_forward(layer, x[i : i + 1], p) for i in range(len(x))])
    assert together.tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Conv2d(4, square(3)), (5, 4), "expected rows of numbers with 3 dimensions"),
        (Conv1d(4, along(3)), (5, 4, 3), "expected rows of numbers with 2 dimensions"),
        (Conv2d(4, square(3)), (2, 5, 1), "expected an image of at least 3x3 with its padding, got 2x5"),
        (Conv2d(4, square(1), groups=3), (2, 5, 3), "in 3 groups: expected a divisor of the channels, 3, and of the outputs, 4"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(layer, shape, message):
    with pytest.raises(ConfigurationError, match=message):
        network_of(layer, shape)
