"""The models' gradients against finite differences in float64."""

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.layers.initial import initialise_uniform
from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout

MODELS = [
    pytest.param(Mlp((5, 3)), id="no hidden layer"),
    pytest.param(Mlp((5, 7, 3)), id="one hidden layer"),
    pytest.param(Mlp((5, 7, 6, 3)), id="two hidden layers"),
    pytest.param(Mlp((1, 1, 2)), id="narrow"),
    *(
        pytest.param(Mlp((5, 7, 6, 3), activation=name), id=name)
        for name in ("gelu", "tanh", "sigmoid", "silu")
    ),
    pytest.param(Mlp((5, 7, 6, 3), dropout=0.4), id="relu, dropout"),
    pytest.param(Mlp((5, 7, 6, 3), activation="gelu", dropout=0.4), id="gelu, dropout"),
    pytest.param(Mlp((5, 2), loss="mse"), id="linear regression"),
    pytest.param(Mlp((5, 7, 1), activation="tanh", loss="mse"), id="mse"),
    pytest.param(Mlp((5, 7, 3), loss="huber", huber_delta=0.7), id="huber"),
    pytest.param(Mlp((5, 7, 3), activation="silu", dropout=0.2, loss="huber"), id="huber, dropout"),
    pytest.param(Logistic(5), id="logistic"),
    pytest.param(Logistic(1), id="two parameters"),
]


def _batch(model, rows: int) -> Batch:
    generator = np.random.default_rng(4)
    features = model.shapes[next(iter(model.shapes))][0]
    outputs = model.widths[-1] if isinstance(model, Mlp) else 2
    y = np.resize(np.arange(outputs, dtype=np.int32), rows)
    x, y = generator.standard_normal((rows, features)), generator.permutation(y)
    if _is_regression(model):
        y = generator.standard_normal((rows, outputs))
    return Batch(x, y, np.arange(rows) + 100, 12345)


def _is_regression(model) -> bool:
    return getattr(model, "loss", "") in ("mse", "huber")


def _rows_of(batch: Batch, start: int, stop: int) -> Batch:
    parts = (values[start:stop] for values in batch[:3])
    return Batch(*parts, batch.draw)


def _parameters(model, seed: int = 1) -> tuple[Layout, np.ndarray]:
    layout = Layout(model.shapes)
    vector = np.zeros(layout.size)
    initialise_uniform(layout.views(vector), seed)
    # Biases away from 0, so that their gradients depend on them and no unit sits on the kink of its ReLU.
    return layout, vector + 0.1 * np.random.default_rng(seed).standard_normal(layout.size)


def _loss_and_gradient(model, layout, vector, batch) -> tuple[float, np.ndarray]:
    gradient = np.full(layout.size, np.nan)
    views = layout.views(vector), batch, layout.views(gradient)
    return model.loss_and_gradient(*views, NO_SYNC)[0], gradient


def _numerical_gradient(model, layout, vector, batch, step: float = 1e-5) -> np.ndarray:
    """Central differences of fourth order: error of order ``step**4`` and ``1e-16 / step``."""
    result = np.empty(layout.size)
    for i in range(layout.size):
        losses = []
        for shift in (-2, -1, 1, 2):
            moved = vector.copy()
            moved[i] += shift * step
            losses.append(_loss_and_gradient(model, layout, moved, batch)[0])
        result[i] = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)
    return result


@pytest.mark.slow(but_every=8)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rows", [1, 13])
def test_gradients_are_the_slopes_of_the_loss(model, rows):
    """Each parameter's gradient differs from the finite difference by at most 1e-6 of its largest element."""
    layout, vector = _parameters(model)
    batch = _batch(model, rows)
    _, gradient = _loss_and_gradient(model, layout, vector, batch)
    slopes = _numerical_gradient(model, layout, vector, batch)
    for name, exact in layout.views(slopes).items():
        mine = layout.views(gradient)[name]
        assert np.abs(mine - exact).max() <= 1e-6 * np.abs(exact).max(), name


@pytest.mark.parametrize("model", MODELS)
def test_losses_and_gradients_are_sums_over_rows(model):
    """The loss and gradient of a batch are the sums of those of its rows: nothing is averaged."""
    layout, vector = _parameters(model)
    batch = _batch(model, 9)
    loss, gradient = _loss_and_gradient(model, layout, vector, batch)
    parts = [_loss_and_gradient(model, layout, vector, _rows_of(batch, i, i + 1)) for i in range(9)]
    np.testing.assert_allclose(loss, sum(part[0] for part in parts), rtol=1e-13)
    np.testing.assert_allclose(
        gradient, sum(part[1] for part in parts), rtol=0, atol=1e-13 * np.abs(gradient).max()
    )


@pytest.mark.parametrize("model", MODELS)
def test_evaluation_gives_the_loss_of_training_without_dropout(model):
    """``evaluate`` and ``loss_and_gradient`` agree on the loss and on the number of correct rows."""
    layout, vector = _parameters(model)
    batch = _batch(model, 40)
    parameters = layout.views(vector)
    predicted = np.full_like(batch.y, -1)
    loss = model.evaluate(parameters, Batch(batch.x, batch.y), predicted)
    if getattr(model, "dropout", 0):
        model = Mlp(model.widths, activation=model.activation, loss=model.loss)
    gradient = layout.views(np.empty(layout.size))
    expected, correct = model.loss_and_gradient(parameters, batch, gradient, NO_SYNC)
    if _is_regression(model):
        assert np.isnan(correct)
        np.testing.assert_allclose(loss, expected, rtol=1e-13)
        assert (predicted != -1).all()
        if model.loss == "mse":
            np.testing.assert_allclose(loss, 40 * ((predicted - batch.y) ** 2).mean(), rtol=1e-13)
        return
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    assert np.count_nonzero(predicted == batch.y) == correct


@pytest.mark.parametrize("model", MODELS)
def test_parameters_and_batch_are_not_changed(model):
    """A model writes into the gradient only."""
    layout, vector = _parameters(model)
    batch = _batch(model, 8)
    before = vector.tobytes(), batch.x.tobytes(), batch.y.tobytes()
    _loss_and_gradient(model, layout, vector, batch)
    model.evaluate(layout.views(vector), batch, np.empty_like(batch.y))
    assert (vector.tobytes(), batch.x.tobytes(), batch.y.tobytes()) == before


@pytest.mark.parametrize("rate", [0.0, 0.9])
def test_dropout_rates_at_the_ends(rate):
    """A rate of 0 changes no bit; at 0.9 about a tenth of the hidden units takes part, ten times as much."""
    model, plain = Mlp((5, 4000, 3), dropout=rate), Mlp((5, 4000, 3))
    layout, vector = _parameters(model)
    batch = _batch(model, 1)
    loss, gradient = _loss_and_gradient(model, layout, vector, batch)
    if rate == 0:
        expected = _loss_and_gradient(plain, layout, vector, batch)
        assert loss == expected[0] and gradient.tobytes() == expected[1].tobytes()
        return
    # The gradient of the last layer's weights is 0 for units that are dropped, or were 0 before.
    hidden = np.maximum(
        batch.x @ layout.views(vector)["layer0/weight"] + layout.views(vector)["layer0/bias"], 0
    )[0]
    taking_part = layout.views(gradient)["layer1/weight"].any(axis=1)[hidden > 0]
    assert abs(taking_part.mean() - 0.1) < 5 * np.sqrt(0.09 / taking_part.size)
    logits = (hidden * 10)[hidden > 0][taking_part] @ (
        layout.views(vector)["layer1/weight"][hidden > 0][taking_part]
    ) + layout.views(vector)["layer1/bias"]
    exact = np.log(np.exp(logits - logits.max()).sum()) - (logits - logits.max())[batch.y[0]]
    np.testing.assert_allclose(loss, exact, rtol=1e-3)


def test_another_step_drops_other_units_and_the_same_step_the_same():
    """``draw`` decides, and nothing that a call leaves behind."""
    model = Mlp((5, 50, 3), dropout=0.5)
    layout, vector = _parameters(model)
    batch = _batch(model, 6)
    losses = [
        _loss_and_gradient(model, layout, vector, batch._replace(draw=draw))[0]
        for draw in (1, 2, 1)
    ]
    assert losses[0] == losses[2] != losses[1]


def test_dropout_without_numbers_of_rows_is_refused():
    """A mask that depends on nothing would be the same in every step."""
    model = Mlp((5, 4, 3), dropout=0.5)
    layout, vector = _parameters(model)
    batch = _batch(model, 2)
    with pytest.raises(ValueError, match=r"expected Batch\.rows"):
        _loss_and_gradient(model, layout, vector, Batch(batch.x, batch.y))


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_read_where_they_lie(model):
    """Loss, gradient and predictions of rows somewhere in a table are those of the same rows by themselves."""
    assert model.reads_in_place
    layout, vector = _parameters(model)
    table, places = _batch(model, 30), np.array([7, 29, 0, 7, 12, 3, 4, 5, 6, 20, 21])
    alone = Batch(*(values[places] for values in table[:3]), table.draw)
    lying = Batch(table.x, alone.y, alone.rows, table.draw, places)
    for mine, exact in zip(
        _loss_and_gradient(model, layout, vector, lying),
        _loss_and_gradient(model, layout, vector, alone),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, exact)
    predicted, expected = np.zeros_like(alone.y), np.zeros_like(alone.y)
    parameters = layout.views(vector)
    loss = model.evaluate(parameters, lying, predicted)
    assert loss == model.evaluate(parameters, alone, expected)
    np.testing.assert_array_equal(predicted, expected)


def test_models_say_what_they_are():
    """What differs from the default is named; without a hidden layer there is nothing to name."""
    assert str(Mlp((64, 128, 10))) == "mlp 64-128-10"
    model = Mlp((8, 9, 1), activation="gelu", dropout=0.1, loss="huber")
    assert str(model) == "mlp 8-9-1, gelu, dropout 0.1, huber"
    assert str(Mlp((8, 1), activation="gelu", dropout=0.1, loss="mse")) == "mlp 8-1, mse"


def test_rows_of_any_shape_are_flattened():
    """Images of 2x3 give what vectors of 6 give."""
    model = Mlp((6, 4, 3))
    layout, vector = _parameters(model)
    x, y = np.random.default_rng(0).standard_normal((5, 2, 3)), np.array([0, 1, 2, 1, 0], np.int32)
    flat = _loss_and_gradient(model, layout, vector, Batch(x.reshape(5, 6), y))
    shaped = _loss_and_gradient(model, layout, vector, Batch(x, y))
    assert flat[0] == shaped[0]
    np.testing.assert_array_equal(flat[1], shaped[1])


def test_initial_parameters_are_uniform_within_the_limit_of_glorot():
    """Weights fill ±sqrt(6 / (in + out)) evenly, biases are 0, other seeds give others, and they are frozen."""
    layout = Layout(Mlp((300, 200, 10)).shapes)
    vector, other = np.empty(layout.size), np.empty(layout.size)
    initialise_uniform(layout.views(vector), 0)
    initialise_uniform(layout.views(other), 1)
    first = layout.views(vector)["layer0/weight"]
    limit = np.sqrt(6 / 500)
    assert np.abs(first).max() <= limit and abs(first.std() / (limit / np.sqrt(3)) - 1) < 0.01
    assert not layout.views(vector)["layer0/bias"].any()
    assert not np.array_equal(vector, other)
    assert layout.digest(vector) == "af1e9faf236856ec4656da192f47fa50"
