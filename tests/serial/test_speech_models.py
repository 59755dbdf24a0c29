"""The speech models: their sizes, gradients, options and errors; and the words that they learn."""

from math import prod

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.gru import Gru
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.vectors import Layout
from tests.serial.data_files import load, read_all
from tests.serial.slopes import check_slopes
from tests.serial.test_convolutional_models import Facts


def sound_model(
    name: str, shape: tuple[int, ...], classes: int | None = 3, outputs: int = 3, **options
):
    own, shared = options, {"dropout": options.pop("dropout", 0.0)}
    config = Config(model=name, own={"model": own}, **shared)
    return make_model(name, config.for_model(threads=1), Facts(shape, classes, outputs))


MODELS = {
    "cnn": ("speech_cnn", (9, 6), {"width": 3, "blocks": 2}),
    "cnn, dropout": ("speech_cnn", (12, 5, 1), {"width": 4, "blocks": 1, "norm": "none", "dropout": 0.3}),
    "cnn, groups": ("speech_cnn", (5, 4, 2), {"width": 8, "blocks": 1, "norm": "group"}),
    "cnn, one number": ("speech_cnn", (1, 1), {"width": 9, "blocks": 1, "norm": "none"}),
    "gru": ("speech_gru", (7, 4), {"width": 3}),
    "gru, last, dropout": ("speech_gru", (5, 3), {"width": 4, "pooling": "last", "layers": 2, "dropout": 0.3}),
    "gru, both ways": ("speech_gru", (4, 3), {"width": 3, "bidirectional": True, "layers": 2}),
    "gru, both ways, last": ("speech_gru", (4, 3), {"width": 3, "bidirectional": True, "pooling": "last"}),
    "gru, one number a step": ("speech_gru", (6,), {"width": 2}),
    "gru, one step": ("speech_gru", (1, 4), {"width": 2, "pooling": "last"}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "options"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_gradients_are_the_slopes_of_the_loss(name, shape, options, rows):
    check_slopes(sound_model(name, shape, **options), rows, 20)


def test_the_convolutional_model_is_the_small_one_of_the_paper():
    """Its stem, four blocks of 64 channels and a dense layer of 12 classes; two numbers a channel of each normalisation."""
    model = sound_model("speech_cnn", (49, 10), 12, 12)
    layers = 10 * 4 * 64 + 4 * (3 * 3 * 64 + 64 * 64) + (64 * 12 + 12)
    found = sum(prod(s) for key, s in model.shapes.items() if key not in model.averaged)
    assert found == layers + 9 * 2 * 64
    assert model._graph.values[1].shape == (25, 5, 64)


@pytest.mark.parametrize(
    ("bidirectional", "pooling", "features"),
    [(False, "mean", 20), (True, "mean", 40), (True, "last", 40)],
)
def test_the_recurrent_model_has_the_parameters_of_its_layers(bidirectional, pooling, features):
    """Two layers of three gates, two weights and two biases in each direction."""
    options = {"bidirectional": bidirectional, "pooling": pooling, "width": 20, "layers": 2}
    model = sound_model("speech_gru", (30, 16), 10, 10, **options)
    units = 60 * (16 + 20 + 2) + 60 * (features + 20 + 2)
    directions = 2 if bidirectional else 1
    assert sum(prod(s) for s in model.shapes.values()) == directions * units + features * 10 + 10


def test_options_change_what_they_say():
    """Dropout behind every recurrent layer and before the convolutional model's last; the last state comes from one step."""

    def layers(kind, name, **options):
        nodes = sound_model(name, (8, 6), **options)._graph.nodes
        return [node.layer for node in nodes if isinstance(node.layer, kind)]

    assert len(layers(Dropout, "speech_gru", layers=3, dropout=0.2)) == 3
    assert len(layers(Dropout, "speech_cnn", dropout=0.2)) == 1
    assert not layers(Dropout, "speech_gru") and not layers(Dropout, "speech_cnn")
    returns = [gru.returns for gru in layers(Gru, "speech_gru", layers=2, pooling="last")]
    assert returns == ["all", "last"]
    both = layers(Gru, "speech_gru", bidirectional=True)
    assert [(gru.returns, gru.is_reversed) for gru in both] == [("all", False), ("all", True)]


def test_targets_are_predicted_too():
    for name in ("speech_cnn", "speech_gru"):
        assert sound_model(name, (8, 6), None).task == "targets"


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("speech_cnn", (5,), {}, "speech_cnn: expected rows of frames, bands and channels, or without channels, got shape"),
        ("speech_gru", (5, 4, 3), {}, "speech_gru: expected rows of frames and bands, or without channels"),
        ("speech_cnn", (8, 8), {"norm": "group", "width": 12}, "--width: expected multiples of 8 with --norm group, got 12"),
        ("speech_gru", (8, 8), {"layers": 0}, "--layers: expected a whole number of at least 1"),
        ("speech_gru", (8, 8), {"pooling": "max"}, "--pooling"),
        ("speech_gru", (8, 8), {"blocks": 2}, "--model speech_gru: unknown option 'blocks'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name, shape, options, message):
    with pytest.raises(ConfigurationError, match=message):
        sound_model(name, shape, **options)


def test_a_sound_is_heard_in_its_order():
    """Backwards it is another one to either model, though the mean of its frames is the same."""
    x = np.random.default_rng(1).standard_normal((3, 20, 6)).astype("f4")
    turned = np.ascontiguousarray(x[:, ::-1])
    for name in ("speech_cnn", "speech_gru"):
        model = sound_model(name, (20, 6), width=8)
        layout = Layout(model.shapes)
        views = layout.views(np.empty(layout.size, np.float32))
        model.initialise(views, 3)
        found = []
        for rows in (x, turned):
            found.append(np.full((3, 3), np.nan, "f4"))
            model.predict(views, Batch(rows, np.zeros(3, np.int32)), found[-1])
        assert np.abs(found[0] - found[1]).max() > 1e-3


def test_the_embedded_words_are_too_hard_for_a_linear_model():
    """Ridge regression on the classes, with the best of its penalties, misses a fifth of the test rows and more."""
    data = load("words")
    (x, y), (test_x, test_y) = (_rows(data, split) for split in ("train", "test"))
    best = 0.0
    for penalty in 10.0 ** np.arange(0, 5):
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ np.eye(10)[y])
        best = max(best, float(((test_x @ weights).argmax(axis=1) == test_y).mean()))
    assert 0.5 < best < 0.8


def _rows(data, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Flat rows with a 1 at the end, float64, and classes."""
    x, y = read_all(data, split)
    flat = x.reshape(len(x), -1).astype(np.float64)
    return np.concatenate([flat, np.ones((len(x), 1))], axis=1), y
