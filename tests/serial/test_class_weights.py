"""``--class-weights``: a row counts as its class says, in the loss and nowhere else."""

import json

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.data.loader import load
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.layers import loss_kernels
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.class_weights import read
from lepton_mpi.options.config import Config
from lepton_mpi.run import class_weights
from lepton_mpi.run.build import wanted_of
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from lepton_mpi.world.alone import Alone
from tests import reference
from tests.serial.data_files import write

COUNTS = np.array([0.25, 3.0, 1.5])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 70])
def test_kernels_match_their_twins(dtype, rows):
    random = np.random.default_rng(rows)
    logits = random.normal(size=(rows, 3)).astype(dtype) * 3
    labels, weights = random.integers(0, 3, rows).astype(np.int32), COUNTS.astype(dtype)
    mine, exact = logits.copy(), logits.astype(np.float64)
    got = loss_kernels.weighted_softmax_cross_entropy(mine, labels, weights)
    expected = reference.weighted_softmax_cross_entropy(exact, labels, weights)
    near = {"rtol": 0, "atol": 300 * np.finfo(dtype).eps}
    np.testing.assert_allclose(mine, exact, **near)
    np.testing.assert_allclose(got, expected, rtol=300 * np.finfo(dtype).eps)
    predicted, likeliest = np.full(rows, -1, np.int32), np.full(rows, -1, np.int32)
    loss = loss_kernels.weighted_softmax_predict(logits, labels, weights, predicted)
    exact_loss = reference.weighted_softmax_predict(logits, labels, weights, likeliest)
    np.testing.assert_allclose(loss, exact_loss, rtol=300 * np.finfo(dtype).eps)
    assert np.array_equal(predicted, likeliest)


class Facts:
    """Of data of some classes."""

    category_names, outputs_text = (), "classes"

    def __init__(self, shape, classes):
        self.inputs, self.feature_shape = {"x": Input("numbers", shape)}, shape
        self.class_count = self.output_count = classes


def _batch(x, y):
    return Batch(x, y, rows=np.arange(len(y)), draw=1)


def _sums(model, parameters, x, y):
    """Loss, correct count and gradient of a batch in one flat vector."""
    layout = Layout(model.shapes)
    flat = np.zeros(layout.size)
    batch = _batch(x, y)
    return (*model.loss_and_gradient(parameters, batch, layout.views(flat), NO_SYNC), flat)


MODELS = {
    "mlp": ((5,), 3, {}),
    "logistic": ((5,), 2, {}),
    "cnn": ((4, 4, 1), 3, {"own": {"model": {"norm": "none"}}}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_row_counts_as_often_as_its_weight_says(name):
    """Loss and gradient are those of each row times its weight; the correct count and predictions are not weighted."""
    shape, classes, options = MODELS[name]
    options = Config(model=name, dtype="float64", hidden=(4,), **options).for_model(threads=1)
    plain, weighted = (make_model(name, options, Facts(shape, classes)) for _ in range(2))
    weighted.weigh_classes(COUNTS[:classes])
    layout = Layout(plain.shapes)
    parameters = layout.views(np.zeros(layout.size))
    plain.initialise(parameters, 3)
    random = np.random.default_rng(1)
    x, y = random.normal(size=(9, *shape)), (np.arange(9) % classes).astype(np.int32)
    loss, correct, gradient = _sums(weighted, parameters, x, y)
    alone = [_sums(plain, parameters, x[i : i + 1], y[i : i + 1]) for i in range(9)]
    assert np.isclose(loss, sum(COUNTS[k] * each[0] for k, each in zip(y, alone, strict=True)))
    assert correct == sum(each[1] for each in alone)
    expected = sum(COUNTS[k] * each[2] for k, each in zip(y, alone, strict=True))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12)
    batch, predicted = _batch(x, y), np.zeros((2, 9), np.int32)
    assert np.isclose(weighted.evaluate(parameters, batch, predicted[0]), loss)
    plain.evaluate(parameters, batch, predicted[1])
    assert np.array_equal(*predicted)


def test_balanced_is_that_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat([0, 1, 2, 3], [400, 37, 1, 62])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=y)
    counts = np.bincount(y)
    found = class_weights.balanced(counts)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert np.isclose((found * counts).sum(), counts.sum())
    # A class without a training row is not among the classes.
    assert class_weights.balanced(np.array([1, 0, 3])).tolist() == [2.0, 1.0, 4 / 6]


@pytest.fixture
def data(tmp_path):
    x = np.arange(24.0).reshape(12, 2).astype("f4")
    y = np.array([0] * 8 + [1] * 3 + [2], "i4")
    path = write(tmp_path / "a.h5", {"train/x": x, "train/y": y}, classes=["no", "yes", "may=be"])
    config = Config(data=(str(path),), validation_split=0.0, test_split=0.0)
    return load(config.data, wanted_of(config), Alone())


def _weighed(data, option):
    options = Config(hidden=()).for_model(threads=1)
    model = make_model("mlp", options, data)
    class_weights.weigh(option, model, data, Alone())
    return model


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("balanced", [0.5, 4 / 3, 4]),
        ("yes=8,may=be=0.5", [1, 8, 0.5]),
        ("1, 8,0.5", [1, 8, 0.5]),
        ('{"yes": 2}', [1, 2, 1]),
        ("[3, 2, 1]", [3, 2, 1]),
        ("FILE", [1, 1, 9]),
    ],
)
def test_what_the_option_says(data, tmp_path, option, expected):
    """Each text, and a file, whose path may begin with a tilde."""
    if option == "FILE":
        (tmp_path / "weights.json").write_text('{"may=be": 9}')
        option = str(tmp_path / "weights.json")
    option = Config(class_weights=option).class_weights
    model = _weighed(data, option)
    np.testing.assert_allclose(model.class_weights, expected, rtol=1e-6)
    assert model.class_weights.dtype == np.float32
    assert "no " in class_weights.sentence(model, data)


def test_a_program_may_give_a_dict_or_a_list(data):
    for value in ({"yes": 2, "no": 0.5}, [0.5, 2, 1], (0.5, 2, 1)):
        option = Config(class_weights=value).class_weights
        assert _weighed(data, option).class_weights.tolist() == [0.5, 2, 1]


@pytest.mark.parametrize("option", ["evenly", "1,-2,3", "1,nan,3", "yes=", "[]", '{"a": "b"}', "1,,2", "[true, 1]"])  # fmt: skip
def test_no_weights(option):
    with pytest.raises(ConfigurationError, match="--class-weights: expected"):
        Config(class_weights=option)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("1,2", "expected 3 weights, of no, yes, may=be, got 2"),
        ("yess=2", "expected classes of the data, no, yes, may=be, got 'yess', did you mean yes"),
        ("0,0,0", "expected a weight above 0"),
        ("none.json", "none.json: No such file"),
    ],
)
def test_weights_of_other_classes(data, option, expected):
    with pytest.raises(ConfigurationError, match=expected):
        _weighed(data, option)


def test_a_checkpoint_has_them(data, tmp_path):
    """To the last bit; a run goes on with the same, and nobody's text is more than numbers."""
    model = _weighed(data, "0.1,2,3")
    attributes = class_weights.attribute(model)
    other = _weighed(data, None)
    assert class_weights.attribute(other) == {}
    class_weights.take(attributes, other, np.dtype(np.float32), tmp_path)
    assert np.array_equal(other.class_weights, model.class_weights)
    class_weights.check_same(attributes, model, tmp_path)
    for mine in (_weighed(data, None), _weighed(data, "0.1,2,4")):
        with pytest.raises(ConfigurationError, match="a run that goes on keeps its weights"):
            class_weights.check_same(attributes, mine, tmp_path)
    for text in ("[1", '{"a": 1.0}', "[-1.0, 1.0, 1.0]", '["a"]', "[" * 100_000):
        with pytest.raises(DataError, match="attribute class_weights"):
            class_weights.take({"class_weights": text}, other, np.dtype("f4"), tmp_path)


def test_models_without_classes_are_refused(data):
    with pytest.raises(ConfigurationError, match="expected a built-in model of classes, got mlp"):
        make_model("mlp", Config(hidden=(), loss="mse").for_model(1), data).weigh_classes(COUNTS)


def test_text_is_json_or_pairs():
    assert read(json.dumps({"a": 1})) == {"a": 1.0}
