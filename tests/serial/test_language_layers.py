"""Layers of language models: kernels against their NumPy twins, gradients against finite differences, at odd shapes and row counts."""

import tracemalloc

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import (
    attention_kernels,
    embedding_kernels,
    gated_kernels,
    norm_kernels,
    rotary_kernels,
    token_loss_kernels,
)
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.compose import Graph, Residual, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.embedding import Embedding, Positions
from lepton_mpi.layers.gated import SwiGlu
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.layers.norm import LayerNorm, RmsNorm
from lepton_mpi.layers.plan import make_plan
from lepton_mpi.layers.rotary import Rotary
from lepton_mpi.layers.token_loss import TokenLoss
from lepton_mpi.models.network import Network
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests import reference_layers as reference
from tests.serial.slopes import check_slopes, loss_and_gradient, parameters_of

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])


def _normal(seed: int, *shape: int, dtype=np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _nan(*shape: int, dtype=np.float64) -> np.ndarray:
    return np.full(shape, np.nan, dtype)


def _check(kernel, twin, given: tuple, outs: tuple, terms: int) -> None:
    """Both fill copies of ``outs``, which may differ by so many roundings of the largest element; so may what they return."""
    mine, exact = [a.copy() for a in outs], [a.copy() for a in outs]
    results = kernel(*given, *mine), twin(*given, *exact)
    eps = np.finfo(outs[-1].dtype).eps if outs[-1].dtype.kind == "f" else np.finfo(np.float32).eps
    for a, b in zip(mine, exact, strict=True):
        assert not (a.dtype.kind == "f" and np.isnan(a).any()), (
            "a part of the output was not filled"
        )
        tolerance = (terms + 16) * eps * max(1, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    if results[0] is not None:
        np.testing.assert_allclose(*results, rtol=(terms + 16) * eps)


# -- kernels -----------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize(
    ("count", "columns", "width"), [(0, 1, 3), (1, 1, 1), (9, 1, 5), (4, 3, 17)]
)
def test_tables_match_their_twins(dtype, count, columns, width):
    """Of tokens and of columns of categories; a code may stand twice, or nowhere."""
    codes = np.random.default_rng(1).integers(0, 5, (count, columns)).astype(np.int32)
    offsets, n = np.arange(columns) * 5, count * columns
    weight, g = _normal(2, 5 * columns, width, dtype=dtype), _normal(3, n, width, dtype=dtype)
    given, out = (codes, offsets), _nan(n, width, dtype=dtype)
    _check(embedding_kernels.look_up, reference.look_up, (*given, weight), (out,), 0)
    outs = np.ones(5 * columns, bool), _nan(5 * columns, width, dtype=dtype)
    _check(embedding_kernels.look_up_gradient, reference.look_up_gradient, (*given, g), outs, n)
    x, table = _normal(4, count, 6, dtype=dtype), _normal(5, 8, dtype=dtype)
    out = _nan(count, 6, dtype=dtype)
    _check(embedding_kernels.add_to_rows, reference.add_to_rows, (x, table), (out,), 0)
    _check(
        embedding_kernels.sum_of_rows, reference.sum_of_rows, (x,), (_nan(8, dtype=dtype),), count
    )


@dtypes
@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize(("rows", "k"), [(0, 3), (1, 1), (5, 16), (7, 37)])
def test_norms_match_their_twins(dtype, centred, rows, k):
    """A mean that is large beside the deviation costs its digits and no more."""
    x, g = 3 + _normal(1, rows, k, dtype=dtype), _normal(2, rows, k, dtype=dtype)
    w, b = _normal(3, k, dtype=dtype), _normal(4, k if centred else 0, dtype=dtype)
    place, one = np.ones(1, np.int64), _nan(k, dtype=dtype)
    total, work = _nan(1, dtype=dtype), _nan(3, k, dtype=dtype)
    stats, out = _nan(rows, 2, dtype=dtype), _nan(rows, k, dtype=dtype)
    given = x, w, b, 1e-5, centred, place, one, total
    scale = (
        400 if k == 1 else 1
    )  # one number is its own mean: 1 / sqrt(epsilon) enlarges what is left
    _check(norm_kernels.normalise, reference.normalise, given, (stats, out), 8 * k * scale)
    reference.normalise(*given, stats, out)
    for grad_x in (_nan(rows, k, dtype=dtype), _nan(0, k, dtype=dtype)):
        outs = _nan(k, dtype=dtype), _nan(len(b), dtype=dtype), grad_x
        given = x, g, w, centred, stats, place, total, work
        twin = reference.normalise_gradient
        _check(norm_kernels.normalise_gradient, twin, given, outs, (8 * k + rows) * scale**2)


SHAPES = [  # rows, heads, heads that share, size, queries
    (0, 2, 1, 4, 3), (1, 1, 1, 1, 1), (2, 2, 1, 8, 5), (1, 4, 2, 3, 33), (2, 3, 3, 16, 70), (1, 2, 1, 17, 131),
]  # fmt: skip


@dtypes
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(("rows", "heads", "groups", "size", "length"), SHAPES)
def test_attention_matches_its_twin(dtype, causal, rows, heads, groups, size, length):
    """Blocks that are whole and not, one position, no rows; scores that are far apart."""
    shared = heads // groups
    width = (heads + 2 * shared) * size
    x = 2 * _normal(1, rows * length, width, dtype=dtype)
    shape = np.array([rows, heads, groups, size, length, 0, length, length, causal])
    numbers = np.full(attention_kernels.KEYS, -1)
    scratch = _nan(attention_kernels.scratch_size(size), dtype=dtype)
    out = _nan(rows * length, heads * size, dtype=dtype)
    log_sums = _nan(rows * heads, length, dtype=dtype)
    columns = 0, x, heads * size, x, (heads + shared) * size
    given = shape, x, *columns, numbers, scratch
    terms = 8 * (size + length)
    _check(attention_kernels.attention, reference.attention, given, (out, log_sums), terms)
    reference.attention(*given, out, log_sums)
    g = _normal(2, *out.shape, dtype=dtype)
    given = shape, x, out, g, log_sums, numbers, scratch
    twin, grad = reference.attention_gradient, _nan(*x.shape, dtype=dtype)
    _check(attention_kernels.attention_gradient, twin, given, (grad,), terms)


@pytest.mark.slow(but_every=3)
@dtypes
@pytest.mark.parametrize(
    ("count", "width", "values"), [(0, 3, 4), (1, 1, 1), (9, 5, 3), (130, 16, 1100)]
)
def test_token_losses_match_their_twins(dtype, count, width, values):
    """In one block and several; some targets do not count."""
    x, w = _normal(1, count, width, dtype=dtype), _normal(2, values, width, dtype=dtype)
    targets = np.random.default_rng(3).integers(-1, values, count).astype(np.int32)
    block = token_loss_kernels.block_positions(count, values)
    scratch = (
        np.full(max(values, block), -1),
        *(_nan(n * block, dtype=dtype) for n in (width, values, 5)),
    )
    outs, terms = (
        (_nan(values, width, dtype=dtype), _nan(count, width, dtype=dtype)),
        4 * (width + count + values),
    )
    given = x, targets, w, *scratch
    _check(token_loss_kernels.loss_and_gradient, reference.loss_and_gradient, given, outs, terms)
    predicted = np.full(count, -1, np.int32)
    _check(token_loss_kernels.predict_tokens, reference.predict_tokens, given, (predicted,), 64)
    out = _nan(count, values, dtype=dtype)
    twin = reference.token_probabilities
    _check(token_loss_kernels.token_probabilities, twin, (x, w, *scratch), (out,), 4 * width)


@dtypes
@pytest.mark.parametrize(("rows", "k"), [(0, 2), (1, 1), (7, 19)])
def test_pointwise_kernels_match_their_twins(dtype, rows, k):
    x, g = 3 * _normal(1, rows, 2 * k, dtype=dtype), _normal(2, rows, k, dtype=dtype)
    out, grad_x = _nan(rows, k, dtype=dtype), _nan(rows, 2 * k, dtype=dtype)
    _check(gated_kernels.swiglu, reference.swiglu, (x,), (out,), 8)
    _check(gated_kernels.swiglu_gradient, reference.swiglu_gradient, (x, g), (grad_x,), 8)
    angles = _normal(3, 9, 2)
    tables = np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
    x = _normal(4, 6, 13, dtype=dtype)
    for sign in (1, -1):
        given = x, *tables, 2, 3, 3, sign
        _check(rotary_kernels.rotate, reference.rotate, given, (_nan(6, 13, dtype=dtype),), 2)


# -- gradients ---------------------------------------------------------------------------------------------

# Parts between an embedding of 6 numbers and a loss for tokens; and the positions of a row.
PARTS = {
    "positions": (Positions(4), 4),
    "fewer positions than there are": (Positions(9), 3),
    "layer norm": (LayerNorm(), 3),
    "rms norm": (RmsNorm(), 3),
    "norm beside": (Residual(LayerNorm()), 2),
    "swiglu": (Sequential([Dense(8), SwiGlu()]), 3),
    "gelu of GPT-2": (Dense(4, "gelu_tanh"), 3),
    "attention": (Sequential([Dense(12), Attention(2)]), 5),
    "attention, full": (Sequential([Dense(12), Attention(2, is_causal=False)]), 5),
    "attention, grouped": (Sequential([Dense(12), Attention(4, 1)]), 3),
    "attention, in blocks": (Sequential([Dense(3), Attention(1)]), 67),
    "attention of one position": (Sequential([Dense(6), Attention(2)]), 1),
    "rotary": (Sequential([Dense(12), Rotary(4, 2, 5), Attention(2)]), 4),
}  # fmt: skip


def _network(part, length: int, head=None) -> Network:
    body = Sequential({"embedding": Embedding(5, 6), "part": part})
    return Network("test", body, {"tokens": Input("tokens", (length,), 5)}, head or TokenLoss(5))


def _batch(network: Network, rows: int) -> Batch:
    (spec,) = network.inputs.values()
    generator = np.random.default_rng(rows)
    x = generator.integers(0, 5, (rows, *spec.shape)).astype(np.int32)
    y = generator.integers(-1, 5, (rows, *spec.shape)).astype(np.int32)
    return Batch(x, y, np.arange(rows) + 10, 99)


def _check_gradient(network: Network, rows: int) -> None:
    check_slopes(network, rows, 1_000_000, _batch(network, rows), moved=0.4, step=1e-4)


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize(("part", "length"), PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_gradients_are_the_slopes_of_the_loss(part, length, rows):
    """To 1e-6 of the largest; without rows they are 0."""
    _check_gradient(_network(part, length), rows)


def test_gradients_of_a_weight_that_embedding_and_loss_share():
    network = _network(LayerNorm(), 3, TokenLoss(5, tied="embedding/weight"))
    assert list(network.shapes) == ["embedding/weight", "part/weight", "part/bias"]
    _check_gradient(network, 4)


def test_evaluation_and_prediction_go_with_the_loss():
    """The same loss; likeliest tokens everywhere, probabilities of the token behind the row."""
    network = _network(LayerNorm(), 3)
    (layout, vector), batch = parameters_of(network, 0.4), _batch(network, 6)
    predicted, outputs = np.full_like(batch.y, -1), _nan(6, 5)
    loss = network.evaluate(layout.views(vector), batch, predicted)
    network.predict(layout.views(vector), batch, outputs)
    trained, _ = loss_and_gradient(network, layout, vector, batch)
    np.testing.assert_allclose(loss, trained, rtol=1e-13)
    np.testing.assert_array_equal(outputs.argmax(axis=1), predicted[:, -1])
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-14)


@pytest.mark.parametrize("is_rotary", [False, True], ids=["learned", "rotary"])
def test_a_cache_of_keys_and_values_gives_what_the_whole_row_gives(is_rotary):
    """Token by token, and some at a time: each batch goes on where the last one ended."""

    def network(length: int, cache: int) -> Network:
        goes_on = {"continues": cache > 0}
        places = Rotary(3, 2, 9, **goes_on) if is_rotary else Positions(9, **goes_on)
        inner = [Dense(8), places, Attention(2, 1, cache=cache), Dense(6)]
        return _network(Residual(Sequential(inner)), length)

    whole = network(7, 0)
    layout, vector = parameters_of(whole, 0.4)
    batch, expected = _batch(whole, 3), _nan(3, 5)
    whole.predict(layout.views(vector), batch, expected)
    for step in (1, 7):
        parts, views, outputs = network(step, 9), layout.views(vector), _nan(3, 5)
        for first in range(0, 7, step):
            x = np.ascontiguousarray(batch.x[:, first : first + step])
            parts.predict(views, Batch(x, batch.y[:, :step]), outputs)
        np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="expected at most 9 positions, got 14"):
        parts.predict(views, Batch(batch.x, batch.y), outputs)


# -- memory ------------------------------------------------------------------------------------------------


def test_memory_of_attention_grows_with_the_length_and_not_with_its_square():
    """At 4096 positions, by the plan: less than an eighth of a T x T matrix of one head."""
    sizes = {}
    for length in (2048, 4096):
        body = Sequential(
            {"embedding": Embedding(5, 6), "qkv": Dense(48), "attention": Attention(4)}
        )
        graph = Graph(body, {"tokens": Input("tokens", (length,), 5)}, TokenLoss(5))
        sizes[length] = make_plan(graph, 1, np.dtype(np.float32)).byte_count
    assert sizes[4096] <= 2.02 * sizes[2048]
    assert sizes[4096] < 4096 * 4096 * 4 / 8


def test_a_step_over_4096_positions_allocates_what_the_plan_says():
    """As Python and NumPy count it; kernels have no memory but what they are given."""
    body = Sequential({"embedding": Embedding(5, 6), "qkv": Dense(12), "attention": Attention(1)})
    network = Network("long", body, {"tokens": Input("tokens", (4096,), 5)}, TokenLoss(5))
    layout = Layout(network.shapes)
    vector, gradient = np.zeros(layout.size, np.float32), np.zeros(layout.size, np.float32)
    given = layout.views(vector), _batch(network, 1), layout.views(gradient), NO_SYNC
    plan = make_plan(network._graph, 1, np.dtype(np.float32)).byte_count
    # Compiling allocates, too: a short row has the same kernels.
    short = Network("short", body, {"tokens": Input("tokens", (2,), 5)}, TokenLoss(5))
    short.loss_and_gradient(given[0], _batch(short, 1), given[2], NO_SYNC)
    tracemalloc.start()
    try:
        network.loss_and_gradient(*given)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan <= peak <= 1.05 * plan + 200_000
    assert peak < 4096 * 4096 * 4 / 16


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Embedding(4, 2), "an embedding: expected tokens or categories of 4 values, got tokens of 10"),
        (Positions(3), "positions: expected numbers of shape"),
        (LayerNorm(), "normalisation: expected rows of numbers, got tokens"),
        (SwiGlu(), "swiglu: expected numbers in two halves, got tokens"),
        (Attention(2), r"attention: expected numbers of shape \(positions, a multiple of 6\), got tokens"),
        (Rotary(1, 2, 9), "rotary positions: expected numbers of shape"),
    ],
)  # fmt: skip
def test_layers_refuse_what_they_cannot_take(part, message):
    with pytest.raises(ConfigurationError, match=message):
        Network("test", part, {"x": Input("tokens", (3,), 10)}, CrossEntropy())


def test_numbers_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigurationError, match="expected a divisor of 4 heads"):
        Attention(4, 3)
    with pytest.raises(ConfigurationError, match="an even number of columns, got 3"):
        Rotary(1, 3, 9)
    with pytest.raises(ConfigurationError, match="expected 1 to"):
        TokenLoss(0)
