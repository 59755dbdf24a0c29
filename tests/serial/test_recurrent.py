"""The gated recurrent unit: kernels against their twins, the layer against torch's stored values, gradients against finite differences."""

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import gru_kernels as kernels
from lepton_mpi.layers.compose import Part, Sequential
from lepton_mpi.layers.gru import Gru, bidirectional
from lepton_mpi.layers.layer import Arrays, When
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.models.network import Network
from tests import reference_layers as reference
from tests.serial.slopes import check_slopes, network_of

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
# Rows, steps, features, width: none, one of everything, odd ones, and more than a tile of products has.
SIZES = [(0, 3, 2, 4), (1, 1, 1, 1), (5, 1, 3, 2), (3, 7, 2, 5), (9, 4, 5, 37)]
sizes = pytest.mark.parametrize(("rows", "steps", "features", "width"), SIZES)


def _normal(seed: int, *shape: int, dtype=np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _check(kernel, twin, given: tuple, filled: list[np.ndarray], steps: int) -> list[np.ndarray]:
    """Both fill copies of ``filled``, NaN before, or change them; they may differ by roundings, more of them with each step."""
    mine, exact = ([a.copy() for a in filled] for _ in range(2))
    kernel(*given, *mine)
    twin(*given, *exact)
    for a, b in zip(mine, exact, strict=True):
        if a.dtype.kind == "f":
            assert not np.isnan(a).any(), "a part of the output was not filled"
            tolerance = 64 * steps * np.finfo(a.dtype).eps * max(1, np.abs(b).max(initial=0))
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)
    return mine


@dtypes
@pytest.mark.parametrize("returns", ["last", "all"])
@pytest.mark.parametrize("is_reversed", [False, True], ids=["forwards", "reversed"])
@sizes
def test_kernels_match_their_twins(dtype, returns, is_reversed, rows, steps, features, width):
    """Tables, all steps, and their gradients from what the steps kept."""
    count = rows * steps
    tables = [np.full(count, -1), np.full(count, -1)]
    order, twin = kernels.order_by_time, reference.order_by_time
    there, _ = _check(order, twin, (rows, steps, is_reversed), tables, 1)
    numbers, weight = np.full(count, -1), _normal(1, width, 3 * width, dtype=dtype)
    gates, nan = 2 * _normal(2, count, 3 * width, dtype=dtype), np.full(1, np.nan, dtype)
    shapes = (count, width), (count + rows, width), (rows, 3 * width)
    out_shape = (count if returns == "all" else rows, width)
    empty = [np.resize(nan, shape) for shape in (*shapes, out_shape)]
    bias = _normal(3, 3 * width, dtype=dtype)
    # Of what is scratch no twin fills anything.
    products = np.zeros((rows, 3 * width), dtype)

    def by(kernel):
        def run(*arrays):
            kernel(numbers, there, weight, bias, *arrays[:3], products, arrays[3])

        return run

    filled = [gates, empty[0], empty[1], empty[3]]
    both = by(kernels.recur), by(reference.recur)
    gates, candidates, states, _ = _check(*both, (), filled, steps)
    turned, slope = np.ascontiguousarray(weight.T), _normal(4, *out_shape, dtype=dtype)
    kept = numbers, there, turned

    def back(kernel):
        def run(gates, of_state):
            scratch = np.resize(nan, (rows, width)), np.resize(nan, (rows, width))
            kernel(*kept, gates, candidates, states, slope, *scratch, of_state)

        return run

    both = back(kernels.recur_gradient), back(reference.recur_gradient)
    _check(*both, (), [gates, np.resize(nan, gates.shape)], 8 * steps * width)


PARTS = {
    "last": Gru(4),
    "all": Gru(3, "all"),
    "reversed": Gru(2, is_reversed=True),
    "all, reversed": Gru(3, "all", is_reversed=True),
    "bidirectional": bidirectional(2),
    "two layers": Sequential([bidirectional(2, "all"), Gru(5)]),
    "wide": Gru(35),
}


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("shape", [(1, 3), (5, 2)], ids=["one step", "five steps"])
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_gradients_are_the_slopes_of_the_loss(part, shape, rows):
    """To 1e-6 of the largest; without rows they are 0."""
    check_slopes(network_of(part, shape), rows, 60)


def test_gradients_where_activations_are_computed_again():
    """Backward writes over what forward kept."""
    check_slopes(network_of(Sequential([Gru(3, "all"), Gru(4)]), (5, 2), recompute=1), 3)


def _states(part: Part, x: np.ndarray) -> np.ndarray:
    """What a network of the part predicts: softmax of its last states, with parameters that are a function of their names."""
    network = Network("test", part, {"x": Input("numbers", x.shape[1:])}, CrossEntropy())
    views = {
        name: 0.5 * _normal(n, *shape, dtype=x.dtype)
        for n, (name, shape) in enumerate(network.shapes.items())
    }
    (width,) = {shape[-1] // 3 for shape in network.shapes.values()}
    outputs = np.full((len(x), width), np.nan, x.dtype)
    network.predict(views, Batch(x, np.zeros(len(x), np.int32)), outputs)
    return outputs


def test_rows_do_not_depend_on_the_batch():
    """The bits of a row's output are those that it has alone."""
    x = _normal(1, 23, 6, 5, dtype=np.float32)
    together = _states(Gru(19), x)
    alone = np.concatenate([_states(Gru(19), x[i : i + 1]) for i in range(len(x))])
    assert together.tobytes() == alone.tobytes()


def test_a_reversed_layer_reads_the_sequence_from_its_end():
    x = _normal(1, 4, 6, 5)
    turned = np.ascontiguousarray(x[:, ::-1])
    assert _states(Gru(7, is_reversed=True), x).tobytes() == _states(Gru(7), turned).tobytes()
    assert _states(Gru(7, is_reversed=True), x).tobytes() != _states(Gru(7), x).tobytes()


def test_all_states_end_with_the_last():
    """Each at the position that it was made at."""
    x, spec = _normal(1, 3, 5, 2), Input("numbers", (5, 2))
    p = {
        name: _normal(n, *parameter.shape)
        for n, (name, parameter) in enumerate(Gru(4).parameters(spec).items())
    }
    for is_reversed, last in ((False, -1), (True, 0)):
        found = []
        for returns in ("last", "all"):
            layer = Gru(4, returns, is_reversed)
            at = Arrays((x,), np.full((3, *layer.out_shape(spec)), np.nan), 0)
            at.memory = {
                name: np.zeros(memory.shape, memory.dtype or np.float64)
                for name, memory in layer.memory(3, spec).items()
            }
            layer.forward(p, at, When(False))
            found.append(at.out)
        np.testing.assert_array_equal(found[1][:, last], found[0])


@pytest.mark.parametrize("x", [Input("numbers", (5,)), Input("numbers", (0, 3)), Input("tokens", (5, 3), 9)])  # fmt: skip
def test_what_does_not_fit_is_refused(x):
    with pytest.raises(ConfigurationError, match="a GRU: expected rows of numbers of shape"):
        Gru(3).parameters(x)
