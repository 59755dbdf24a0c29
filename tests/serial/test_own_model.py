"""A user's own model: how it is adapted, and what its first micro-batch and its gradient are checked for."""

import ctypes
import traceback
from types import SimpleNamespace

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.models.gradient_check import check_gradient
from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.models.own_model import adapt
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout

NUMBERS = Input("numbers", (4,))
DATA = SimpleNamespace(
    inputs={"x": NUMBERS},
    feature_shape=(4,),
    class_count=3,
    output_count=3,
    outputs_text="3 classes",
)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])


class Softmax:
    """The README's."""

    def __init__(self, feature_shape=(4,), class_count=3):
        self.shapes = {
            "weight": [int(np.prod(feature_shape)), np.int64(class_count)],
            "bias": (class_count,),
        }

    def probabilities(self, parameters, batch):
        scores = batch.x.reshape(len(batch.x), -1) @ parameters["weight"] + parameters["bias"]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def loss_and_gradient(self, parameters, batch, gradient):
        p, rows = self.probabilities(parameters, batch), np.arange(len(batch.y))
        loss = -np.log(p[rows, batch.y]).sum()
        p[rows, batch.y] -= 1
        gradient["weight"][:] = batch.x.reshape(len(batch.x), -1).T @ p
        gradient["bias"][:] = p.sum(axis=0)
        return loss

    def evaluate(self, parameters, batch, predicted):
        p = self.probabilities(parameters, batch)
        predicted[:] = p.argmax(axis=1)
        return -np.log(p[np.arange(len(batch.y)), batch.y]).sum()


def _vectors(model, dtype=np.float64):
    layout = Layout(model.shapes)
    parameters, gradient = np.zeros(layout.size, dtype), np.zeros(layout.size, dtype)
    model.initialise(layout.views(parameters), 1)
    return layout.views(parameters), layout.views(gradient)


def _batch(rows: int = 8, dtype=np.float64) -> Batch:
    generator = np.random.default_rng(rows)
    x = generator.standard_normal((rows, 4)).astype(dtype)
    return Batch(x, generator.integers(0, 3, rows).astype(np.int32), np.arange(rows), 3)


def _computed(model, rows: int = 8, dtype=np.float64):
    model = adapt(model, DATA)
    parameters, gradient = _vectors(model, dtype)
    return model.loss_and_gradient(parameters, _batch(rows, dtype), gradient, NO_SYNC)


def _refused(model, *parts: str, rows: int = 8) -> None:
    with pytest.raises(ConfigurationError) as raised:
        _computed(model, rows)
    text = str(raised.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


# -- what is right -----------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("rows", [1, 2, 3, 64, 257])
def test_a_right_model_passes_with_any_row_count(dtype, rows):
    """It is a ``Model``, given as a class or as an object; the gradient is that of the whole micro-batch."""
    for given in (Softmax, Softmax()):
        model = adapt(given, DATA)
        parameters, gradient = _vectors(model, dtype)
        batch = _batch(rows, dtype)
        assert model.shapes == {"weight": (4, 3), "bias": (3,)}
        assert (model.task, model.inputs, model.name) == (
            "classes",
            {"x": Input("numbers", (4,))},
            "Softmax",
        )
        assert not (model.reads_in_place or model.asks_for_parameters or model.averaged)
        sums = model.loss_and_gradient(parameters, batch, gradient, NO_SYNC)
        alone = {name: np.empty_like(array) for name, array in gradient.items()}
        assert sums[0] == Softmax().loss_and_gradient(parameters, batch, alone) and np.isnan(
            sums[1]
        )
        assert all(np.array_equal(gradient[name], alone[name]) for name in alone)
        predicted = np.zeros(rows, np.int32)
        assert model.evaluate(parameters, batch, predicted) == pytest.approx(sums[0])


def test_an_engines_own_model_may_be_given():
    """Its flags hold, and what its first micro-batch is checked for is true of it."""
    for given, rows in ((Mlp((4, 5, 3), activation="gelu", dropout=0.3), 7), (Logistic(4), 8)):
        model = adapt(given, DATA)
        assert str(model) == str(given) and model.reads_in_place and model.kernels == given.kernels
        parameters, gradient = _vectors(model)
        batch = _batch(rows)._replace(y=np.arange(rows, dtype=np.int32) % 2)
        table = batch._replace(places=np.arange(rows)[::-1].copy())
        first = model.loss_and_gradient(parameters, table, gradient, NO_SYNC)
        assert model.loss_and_gradient(parameters, table, gradient, NO_SYNC) == first
        outputs = np.empty((rows, 3 if isinstance(given, Mlp) else 2))
        model.predict(parameters, batch, outputs)
        np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-14)


def test_what_a_model_may_have_is_used():
    """sync as the fourth argument, its own initial parameters, task, inputs, name, predictions."""

    class Rich(Softmax):
        name, task = "rich", "targets"
        inputs = {"x": Input("numbers", (2, 2))}  # noqa: RUF012
        asks_for_parameters, reads_in_place = True, True

        def loss_and_gradient(self, parameters, batch, gradient, sync):
            sync.need("weight")
            return super().loss_and_gradient(parameters, batch, gradient), 5

        def initialise(self, parameters, seed):
            parameters["weight"][:] = seed

        def predict(self, parameters, batch, outputs):
            outputs[:] = 7

    model = adapt(Rich, DATA)
    parameters, _ = _vectors(model)
    assert (parameters["weight"] == 1).all() and str(model) == "Rich"
    assert (model.name, model.task, model.inputs["x"].shape) == ("rich", "targets", (2, 2))
    assert model.asks_for_parameters and model.reads_in_place
    outputs = np.zeros((8, 3))
    model.predict(parameters, _batch(), outputs)
    assert (outputs == 7).all()
    _refused(Rich, "correct", "expected the sum over the rows")  # 5 and 5 make 10


@pytest.mark.parametrize(
    "returned",
    [1, np.float32(1), np.array(1.0), np.array([1.0]), (1, 2), (np.float64(1), np.int32(2))],
)
def test_what_counts_as_numbers(returned):
    """And is handed on as two floats."""

    class Constant(Softmax):
        is_trusted = True

        def loss_and_gradient(self, parameters, batch, gradient):
            return returned

    loss, correct = _computed(Constant)
    assert type(loss) is float and loss == 1
    assert type(correct) is float and (
        correct == 2 if isinstance(returned, tuple) else np.isnan(correct)
    )


def test_it_is_checked_once():
    """The first micro-batch is computed three times, then each once; a model that is trusted is never checked."""

    class Counting(Softmax):
        calls = 0

        def loss_and_gradient(self, parameters, batch, gradient):
            self.calls += 1
            return super().loss_and_gradient(parameters, batch, gradient)

    for trusted, expected in ((False, [3, 4, 5]), (True, [1, 2, 3])):
        own = Counting()
        own.is_trusted = trusted
        model = adapt(own, DATA)
        parameters, gradient = _vectors(model)
        counts = []
        for _ in range(3):
            model.loss_and_gradient(parameters, _batch(), gradient, NO_SYNC)
            counts.append(own.calls)
        assert counts == expected


# -- what is wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        (None, "expected an attribute shapes, a dict of parameter name to shape, got none"),
        ([("w", (3,))], "got [('w', (3,))]"),
        ({}, "got {}"),
        ({"w": (3, 0)}, "shapes['w']: expected a name, and whole numbers of at least 1 in a tuple, got (3, 0)"),
        ({"w": (-1,)}, "got (-1,)"),
        ({"w": (2.0,)}, "got (2.0,)"),
        ({"w": 3}, "got 3"),
        ({"w": "33"}, "got '33'"),
        ({3: (3,)}, "shapes[3]"),
        ({"": (3,)}, "shapes['']"),
    ],
)  # fmt: skip
def test_wrong_shapes(shapes, part):
    model = Softmax()
    model.shapes = shapes
    _refused(model, "model Softmax: ", part)


@pytest.mark.parametrize(
    ("returned", "part"),
    [
        (None, "got None"),
        ("0.5", "got '0.5'"),
        (1j, "got 1j"),
        (np.array([1.0, 2.0]), "got an array of shape (2,), float64"),
        (np.array([1j]), "got"),
        (True, "got True"),
        ([1.0, 2.0], "got [1.0, 2.0]"),
        ((1.0, 2.0, 3.0), "got (1.0, 2.0, 3.0)"),
        ((1.0, "2"), "got (1.0, '2')"),
        ({"loss": 1.0}, "got {'loss': 1.0}"),
        (np.nan, "expected a finite loss in the first micro-batch, got (nan, nan)"),
        ((1.0, np.inf), "expected a finite loss"),
    ],
)  # fmt: skip
def test_wrong_returns(returned, part):
    class Wrong(Softmax):
        def loss_and_gradient(self, parameters, batch, gradient):
            super().loss_and_gradient(parameters, batch, gradient)
            return returned

    _refused(Wrong, "model Wrong: ", part)


def _with(**methods):
    return type("Wrong", (Softmax,), methods)


def _two(feature_shape, output_count):
    return Softmax(feature_shape, output_count)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (_with(loss_and_gradient=None), ("expected a method loss_and_gradient(parameters, batch, gradient), got none",)),
        (_with(loss_and_gradient=3), ("loss_and_gradient: expected a method (parameters, batch, gradient), got 3",)),
        (_with(loss_and_gradient=lambda self, p, batch: 0), ("expected to be called with (parameters, batch, gradient)", "takes (p, batch)")),
        (_with(loss_and_gradient=lambda self, a, b, c, d, e: 0), ("(parameters, batch, gradient, sync)", "takes (a, b, c, d, e)")),
        (_with(evaluate=lambda self, p, batch: 0), ("Wrong: evaluate: expected to be called with (parameters, batch, predicted)",)),
        (_with(initialise=lambda self, p: 0), ("Wrong: initialise: expected to be called with (parameters, seed)",)),
        (_with(predict="no"), ("Wrong: predict: expected a method (parameters, batch, outputs), got 'no'",)),
        (_with(reads_in_place=1), ("reads_in_place: expected True or False, got 1",)),
        (_with(task=3), ("task: expected the name of a task, got 3",)),
        (_with(__init__=lambda self: None), ("model Wrong: expected to be called with (feature_shape, output_count), got one that takes ()",)),
        (lambda: None, ("expected to be called with (feature_shape, output_count)",)),
        (lambda shape, count: None, ("model NoneType: expected an attribute shapes",)),
    ],
)  # fmt: skip
def test_wrong_attributes_and_arguments(model, parts):
    _refused(model, *parts)


@pytest.mark.parametrize(
    ("inputs", "given", "is_right"),
    [
        ({"x": Input("numbers", (2, 2))}, {"x": NUMBERS}, True),
        ({"image": NUMBERS}, {"x": NUMBERS}, True),
        ({"x": NUMBERS}, {"x": NUMBERS, "codes": Input("categories", (3,), 5)}, False),
        ({"x": Input("numbers", (5,))}, {"x": NUMBERS}, False),
        ({"x": NUMBERS}, {"x": Input("tokens", (4,), 9)}, False),
        ({"x": NUMBERS, "codes": Input("categories", (3,), 5)}, {"x": NUMBERS}, False),
    ],
)
def test_inputs_that_the_data_do_not_have_are_named(inputs, given, is_right):
    """A single input may have any name, and another shape of as many numbers; inputs that it would pass over are named, too."""
    data = SimpleNamespace(**{**vars(DATA), "inputs": given})
    if is_right:
        assert adapt(_with(inputs=inputs), data).inputs == inputs
        return
    with pytest.raises(
        ConfigurationError,
        match=r"model Wrong: reads .* expected data (that have it, got x|with no other inputs, got also codes)",
    ):
        adapt(_with(inputs=inputs), data)


def test_a_model_may_name_what_weight_decay_acts_on():
    """None: arrays of two or more dimensions. A model of the engine keeps its own."""
    assert adapt(Softmax(), DATA).decayed is None
    assert adapt(_with(decayed=["bias"]), DATA).decayed == ("bias",)
    assert adapt(_with(decayed=()), DATA).decayed == ()
    assert adapt(Logistic(4), DATA).decayed == ("weight",)
    for wrong in (("weights",), "weight", 3):
        _refused(_with(decayed=wrong), "decayed: expected names of parameters (weight, bias), got")


@pytest.mark.parametrize("name", ["mlp", "logistic"])
@pytest.mark.parametrize(
    "given",
    [{"x": Input("tokens", (4,), 9)}, {"x": NUMBERS, "codes": Input("categories", (3,), 5)}],
)
def test_built_in_models_pass_over_no_input(name, given):
    data = SimpleNamespace(**{**vars(DATA), "inputs": given, "class_count": 2})
    with pytest.raises(
        ConfigurationError, match=f"--model {name}: expected rows with one input, of numbers, got x"
    ):
        make_model(name, Config().for_model(threads=1), data)


def test_a_fourth_argument_with_a_default_is_not_sync():
    """Unless it is called so."""

    def scaled(self, parameters, batch, gradient, scale=1.0):
        return scale * Softmax.loss_and_gradient(self, parameters, batch, gradient)

    def told(self, parameters, batch, gradient, sync=None):
        assert sync is NO_SYNC
        return Softmax.loss_and_gradient(self, parameters, batch, gradient)

    losses = [_computed(_with(loss_and_gradient=f))[0] for f in (scaled, told)]
    assert losses[0] == losses[1] == _computed(_two)[0]


def _writes(change):
    """A model that changes something before it computes."""

    def loss_and_gradient(self, parameters, batch, gradient):
        change(parameters, batch)
        return Softmax.loss_and_gradient(self, parameters, batch, gradient)

    return _with(loss_and_gradient=loss_and_gradient)


def _by_address(parameters, batch):
    address = parameters["weight"].ctypes.data
    ctypes.memset(address, 1, 8)


@pytest.mark.parametrize(
    ("change", "label"),
    [
        (lambda p, b: p["bias"].__iadd__(1), "parameters['bias']"),
        (_by_address, "parameters['weight']"),
        (lambda p, b: b.x.__imul__(2), "batch.x"),
        (lambda p, b: b.y.__setitem__(0, 1 - b.y[0]), "batch.y"),
        (lambda p, b: b.rows.fill(0), "batch.rows"),
    ],
)  # fmt: skip
def test_a_write_to_what_is_read_only_is_named(change, label):
    _refused(_writes(change), f"loss_and_gradient wrote to {label}: expected it to be read only")


def test_a_write_to_a_table_is_named():
    """Where rows are read in place."""
    table = adapt(Mlp((4, 3)), DATA)

    class Table(Softmax):
        reads_in_place = True

        def loss_and_gradient(self, parameters, batch, gradient):
            sums = table.loss_and_gradient(
                self.renamed(parameters), batch, self.renamed(gradient), NO_SYNC
            )
            batch.x[batch.places] += 1
            return sums

        def renamed(self, views):
            return {f"layer0/{name}": array for name, array in views.items()}

    model = adapt(Table, DATA)
    parameters, gradient = _vectors(model)
    batch = _batch(30)
    places = np.array([3, 7, 29])
    batch = Batch(batch.x, batch.y[:3], batch.rows[:3], 3, places)
    with pytest.raises(ConfigurationError, match=r"wrote to batch\.x"):
        model.loss_and_gradient(parameters, batch, gradient, NO_SYNC)


def _fills(fill):
    def loss_and_gradient(self, parameters, batch, gradient):
        own = {name: array.copy() for name, array in gradient.items()}
        loss = Softmax.loss_and_gradient(self, parameters, batch, own)
        fill(gradient, own, len(batch.y))
        return loss

    return _with(loss_and_gradient=loss_and_gradient)


def _all_but(gradient, own, rows):
    gradient["weight"][:] = own["weight"]


def _in_part(gradient, own, rows):
    gradient["weight"][1:] = own["weight"][1:]
    gradient["bias"][:] = own["bias"]


def _added(gradient, own, rows):
    for name in gradient:
        gradient[name] += own[name]


def _infinite(gradient, own, rows):
    gradient["weight"][:] = own["weight"]
    gradient["bias"][:] = np.log(np.zeros(3))


def _mean_of_bias(gradient, own, rows):
    gradient["weight"][:], gradient["bias"][:] = own["weight"], own["bias"] / rows


def _random(gradient, own, rows):
    for name in gradient:
        gradient[name][:] = own[name] * np.random.default_rng().uniform(0.5, 1)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(
    ("fill", "parts"),
    [
        (_all_but, ("expected gradient['bias'] to be filled, it was not",)),
        (_in_part, ("expected gradient['weight'] to be filled, 3 of its 12 elements were not",)),
        (_added, ("expected gradient['weight'] to be filled", "do not add to it")),
        (_infinite, ("expected finite numbers in gradient['bias']",)),
        (_mean_of_bias, ("gradient['bias']: expected the sum over the rows", "it is a mean")),
        (_random, ("expected the sum over the rows", "random numbers that are no function of batch.draw")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [2, 7])
def test_gradients_that_are_wrong_at_sight(fill, parts, rows):
    _refused(_fills(fill), *parts, rows=rows)


@dtypes
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_a_mean_is_named(dtype, rows):
    """Also where the first micro-batch has a single row, whose mean is its sum: it is then taken twice."""

    def mean_loss(self, parameters, batch, gradient):
        return Softmax.loss_and_gradient(self, parameters, batch, gradient) / len(batch.y)

    def mean_count(self, parameters, batch, gradient):
        return Softmax.loss_and_gradient(self, parameters, batch, gradient), 0.5

    for method, label in ((mean_loss, "loss"), (mean_count, "correct")):
        with pytest.raises(
            ConfigurationError, match=f"model Wrong: {label}: expected the sum .* it is a mean"
        ):
            _computed(_with(loss_and_gradient=method), rows, dtype)


def test_a_model_whose_rows_depend_on_each_other_says_so():
    """As with batch normalisation; anything else of it is checked all the same."""

    def normalised(self, parameters, batch, gradient):
        x = batch.x - batch.x.mean(axis=0)
        return Softmax.loss_and_gradient(self, parameters, batch._replace(x=x), gradient)

    _refused(_with(loss_and_gradient=normalised), "say mixes_rows = True")
    assert _computed(_with(loss_and_gradient=normalised, mixes_rows=True))[0] > 0
    _refused(type("Wrong", (_fills(_all_but),), {"mixes_rows": True}), "gradient['bias']")


def test_predictions_that_are_not_filled_are_named():
    """And losses of evaluation that are no numbers."""
    for evaluate, part in (
        (lambda self, p, b, predicted: 1.0, r"expected predicted\[:\] to be filled for every row"),
        (
            lambda self, p, b, predicted: predicted.fill(1),
            "evaluate: expected the loss, a number, got None",
        ),
    ):
        model = adapt(_with(evaluate=evaluate), DATA)
        with pytest.raises(ConfigurationError, match=part):
            model.evaluate(_vectors(model)[0], _batch(), np.zeros(8, np.int32))
    model = adapt(_with(evaluate=None), DATA)
    assert not model.evaluates
    with pytest.raises(ConfigurationError, match="expected a method predict"):
        model.predict(_vectors(model)[0], _batch(), np.zeros((8, 3)))


@pytest.mark.parametrize(
    "method", ["__init__", "initialise", "loss_and_gradient", "evaluate", "predict"]
)
def test_errors_of_the_users_own_code_keep_their_traceback(method):
    """With a note that names the model."""

    def fail(self, *arguments):
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError) as raised:
        model = adapt(_with(**{method: fail}), DATA)
        parameters, gradient = _vectors(model)
        model.loss_and_gradient(parameters, _batch(), gradient, NO_SYNC)
        model.evaluate(parameters, _batch(), np.zeros(8, np.int32))
        model.predict(parameters, _batch(), np.zeros((8, 3)))
    assert raised.value.__notes__ == ["in model Wrong"]
    assert "raise ZeroDivisionError" in "".join(traceback.format_exception(raised.value))


# -- finite differences ------------------------------------------------------------------------------------


@dtypes
def test_finite_differences_find_what_sums_cannot(dtype):
    """Right gradients pass, of ReLU and dropout, too; a wrong one is named with both numbers; float32 is checked in float64."""
    for given in (Softmax, Mlp((4, 6, 3)), Mlp((4, 6, 3), activation="silu", dropout=0.4)):
        model = adapt(given, DATA)
        check_gradient(model, _vectors(model, dtype)[0], _batch(8, dtype))

    def doubled(gradient, own, rows):
        gradient["weight"][:], gradient["bias"][:] = own["weight"], 2 * own["bias"]

    for fill in (doubled, lambda g, own, rows: [g[n].__setitem__(slice(None), -own[n]) for n in g]):
        model = adapt(_fills(fill), DATA)
        parameters, gradient = _vectors(model, dtype)
        model.loss_and_gradient(parameters, _batch(8, dtype), gradient, NO_SYNC)  # adds up
        before = parameters["bias"].copy()
        with pytest.raises(
            ConfigurationError, match=r"gradient\['\w+'\]\[\d.*expected .* by finite differences"
        ):
            check_gradient(model, parameters, _batch(8, dtype))
        assert np.array_equal(parameters["bias"], before)


def test_finite_differences_of_a_model_for_float32_alone():
    """As its kernels may be."""

    def single(self, parameters, batch, gradient):
        if batch.x.dtype != np.float32:
            raise TypeError("no kernel for float64")
        return Softmax.loss_and_gradient(self, parameters, batch, gradient)

    right = adapt(_with(loss_and_gradient=single), DATA)
    check_gradient(right, _vectors(right, np.float32)[0], _batch(8, np.float32))

    def halved(self, parameters, batch, gradient):
        loss = single(self, parameters, batch, gradient)
        gradient["bias"] *= 0.5
        return loss

    wrong = adapt(_with(loss_and_gradient=halved), DATA)
    with pytest.raises(ConfigurationError, match="in float32"):
        check_gradient(wrong, _vectors(wrong, np.float32)[0], _batch(8, np.float32))
