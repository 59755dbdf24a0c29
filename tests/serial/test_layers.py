"""Layers and heads: kernels against their NumPy twins, gradients against finite differences, at odd shapes and row counts."""

import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.product_kernels import right_scratch_size
from lepton_mpi.layers import dense_layer_kernels, loss_kernels, pointwise_kernels
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.activation_kernels import KINDS
from lepton_mpi.layers.compose import Concatenate, Identity, Parallel, Reshape, Sequential, Sum
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.losses import CrossEntropy, Huber, SquaredError
from lepton_mpi.models import logistic_kernels
from lepton_mpi.models.network import Network
from tests import reference
from tests.serial.slopes import batch_of, check_slopes, loss_and_gradient, network_of, parameters_of

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
kinds = pytest.mark.parametrize("kind", KINDS)


def _normal(seed: int, *shape: int, dtype=np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _check(kernel, twin, given: tuple, outs: tuple, terms: int) -> None:
    """Both fill copies of ``outs``, which may differ by so many roundings of the largest element."""
    mine, exact = [a.copy() for a in outs], [a.copy() for a in outs]
    kernel(*given, *mine)
    twin(*given, *exact)
    for a, b in zip(mine, exact, strict=True):
        assert not np.isnan(a).any(), "a part of the output was not filled"
        tolerance = (terms + 16) * np.finfo(a.dtype).eps * max(1, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


# -- kernels -----------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize(("rows", "m", "k"), [(0, 3, 2), (1, 1, 1), (7, 5, 3), (33, 17, 9)])
def test_dense_kernels_match_their_twins(dtype, kind, rows, m, k):
    """In order and by places, with and without bias."""
    number = KINDS[kind] if kind else dense_layer_kernels.NO_ACTIVATION
    x, w, b = (
        _normal(s, *shape, dtype=dtype) for s, shape in enumerate([(rows + 4, m), (m, k), (k,)])
    )
    nan = np.full((rows, k), np.nan, dtype)
    slope = nan if number > 0 else nan[:0]
    places = np.random.default_rng(5).integers(0, rows + 4, rows)
    for given in ((x, places, False), (x[:rows], np.full(max(rows, m), -1), True)):
        for bias in (b, *([b[:0]] if kind is None else [])):
            arguments = *given, w, bias, number
            _check(dense_layer_kernels.dense, reference.layer_dense, arguments, (nan, slope), m)
        g = _normal(6, rows, k, dtype=dtype)
        filled = np.full((m, k), np.nan, dtype), np.full(k, np.nan, dtype)
        twin = reference.layer_dense_gradient
        _check(dense_layer_kernels.dense_gradient, twin, (*given, g), filled, rows)
    scratch = np.empty(right_scratch_size(rows, k, m), dtype)
    given = g, w, np.full(max(rows, m), -1), scratch
    grad_x = np.full((rows, m), np.nan, dtype)
    _check(dense_layer_kernels.dense_backward, reference.layer_dense_backward, given, (grad_x,), k)


@dtypes
@pytest.mark.parametrize("count", [0, 1, 1023, 1025])
def test_pointwise_kernels_match_their_twins(dtype, count):
    """ReLU and its gradient, every activation in parts of 1024, products."""
    x, g = _normal(1, count, dtype=dtype), _normal(2, count, dtype=dtype)
    nan, zeros = np.full(count, np.nan, dtype), np.zeros(1024, dtype)
    _check(pointwise_kernels.relu, reference.relu, (x,), (nan,), 0)
    _check(dense_layer_kernels.relu_gradient, reference.relu_gradient, (x, g), (nan,), 0)
    _check(pointwise_kernels.multiply, reference.multiply, (x, g), (nan,), 0)
    for kind in KINDS.values():
        given = kind, zeros, x
        _check(pointwise_kernels.activation, reference.activation, given, (nan, nan), 8)


@dtypes
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (6, 13)])
def test_dropout_matches_its_twin_bit_for_bit(dtype, shape):
    """Which elements are dropped is exact; a negative draw wraps around."""
    x, rows = _normal(3, *shape, dtype=dtype), np.arange(shape[0]) * 7 + 1
    out, exact = np.full(shape, np.nan, dtype), np.full(shape, np.nan, dtype)
    given = -5, 3, rows, 20_000, np.empty(-(-shape[1] // 4), np.uint64), x
    pointwise_kernels.dropout(*given, out)
    reference.dropout(*given, exact)
    np.testing.assert_array_equal(out == 0, exact == 0)
    np.testing.assert_allclose(out, exact, rtol=4 * np.finfo(dtype).eps)


@dtypes
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (9, 7)])
def test_probabilities_match_their_twins(dtype, shape):
    """Softmax, also of extreme logits and in place; the two of logistic regression."""
    z = 40 * _normal(4, *shape, dtype=dtype)
    out = np.full(shape, np.nan, dtype)
    _check(loss_kernels.softmax, reference.softmax, (z,), (out,), shape[1] + 200)
    copy = z.copy()
    loss_kernels.softmax(z, out)
    loss_kernels.softmax(copy, copy)
    np.testing.assert_array_equal(copy, out)
    w, b, places = _normal(5, shape[1], dtype=dtype), np.array([0.3], dtype), np.arange(shape[0])
    given = z / 40, places, w, b, np.empty(shape[0], dtype)
    two = np.full((shape[0], 2), np.nan, dtype)
    twin = reference.logistic_probabilities
    _check(logistic_kernels.logistic_probabilities, twin, given, (two,), 4 * shape[1])


# -- gradients ---------------------------------------------------------------------------------------------

# Parts between a dense layer and another, so that their gradients by what comes in are seen, too; and the shape of a row.
PARTS = {
    "dense": (Dense(4), (3,)),
    "dense, no bias": (Dense(4, bias=False), (3,)),
    **{f"dense, {kind}": (Dense(4, kind), (3,)) for kind in KINDS},
    "dense, positions": (Dense(2, "gelu"), (3, 5)),
    "dense, one unit": (Dense(1), (1,)),
    **{kind: (Activation(kind), (5,)) for kind in KINDS},
    "activation, positions": (Activation("tanh"), (2, 3, 1)),
    "dropout": (Dropout(0.4), (9,)),
    "dropout, positions": (Dropout(0.4), (3, 5)),
    "in place twice": (Sequential([Activation("silu"), Dropout(0.3), Activation("relu")]), (6,)),
    "sum": (Parallel([Identity(), Activation("gelu"), Dense(5)], Sum()), (5,)),
    "sum of the same": (Parallel([Identity(), Identity()], Sum()), (5,)),
    "sum of one": (Parallel([Activation("tanh")], Sum()), (5,)),
    "concatenate": (Parallel([Identity(), Dense(2), Activation("tanh")], Concatenate()), (3, 4)),
    "reshape": (Sequential([Reshape(2, 6), Dense(3), Reshape(3, 2)]), (3, 4)),
}  # fmt: skip
# Elements of a gradient.
_ALL = 1_000_000
HEADS = {"cross entropy": CrossEntropy(), "squared error": SquaredError(), "huber": Huber(0.7)}


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize(("part", "shape"), PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_gradients_are_the_slopes_of_the_loss(part, shape, rows):
    """To 1e-6 of the largest; without rows they are 0."""
    check_slopes(network_of(part, shape), rows, _ALL)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_gradients_of_losses(head):
    check_slopes(network_of(Activation("tanh"), (4,), head=head), 5, _ALL)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_evaluation_and_prediction_go_with_the_loss(head):
    """The same loss without dropout; predictions are the likeliest classes, or the outputs."""
    network = network_of(Activation("tanh"), (4,), head=head)
    (layout, vector), batch = parameters_of(network), batch_of(network, 6)
    predicted, outputs = np.full_like(batch.y, -1), np.full((6, 3), np.nan)
    loss = network.evaluate(layout.views(vector), batch, predicted)
    network.predict(layout.views(vector), batch, outputs)
    np.testing.assert_allclose(
        loss, loss_and_gradient(network, layout, vector, batch)[0], rtol=1e-13
    )
    if network.task == "classes":
        np.testing.assert_array_equal(outputs.argmax(axis=1), predicted)
        np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-14)
        np.testing.assert_allclose(-np.log(outputs[np.arange(6), batch.y]).sum(), loss, rtol=1e-12)
    else:
        np.testing.assert_array_equal(outputs, predicted)


def test_dropout_is_left_out_in_evaluation():
    """Its mask depends on draw, row and layer."""
    network, plain = network_of(Dropout(0.9), (9,)), network_of(Identity(), (9,))
    layout, vector = parameters_of(network)
    batch, predicted = batch_of(network, 5), np.empty(5, np.int32)
    losses = [each.evaluate(layout.views(vector), batch, predicted) for each in (network, plain)]
    assert losses[0] == losses[1]
    trained = [
        loss_and_gradient(network, layout, vector, batch._replace(draw=d))[0] for d in (1, 2, 1)
    ]
    assert trained[0] == trained[2] != trained[1] and trained[0] != losses[0]
    twice = network_of(Sequential([Dropout(0.5), Dropout(0.5)]), (9,))
    halves = [
        loss_and_gradient(each, layout, vector, batch)[0]
        for each in (twice, network_of(Dropout(0.5), (9,)))
    ]
    assert halves[0] != halves[1], "both layers dropped the same elements"
    with pytest.raises(ValueError, match=r"expected Batch\.rows"):
        loss_and_gradient(network, layout, vector, batch._replace(rows=None))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Dense(3), "a dense layer: expected rows of numbers, got tokens"),
        (Parallel([Identity(), Identity()]), "branches side by side: expected numbers"),
        (Parallel([Identity(), Identity()], Sum()), "a sum of branches: expected numbers"),
    ],
)  # fmt: skip
def test_layers_refuse_what_they_cannot_take(part, message):
    with pytest.raises(ConfigurationError, match=message):
        Network("test", part, {"x": Input("tokens", (3,), 10)}, CrossEntropy())
