"""The convolutional models: their shapes, gradients, options and errors; what published sources say of their sizes."""

from math import prod

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.vectors import Layout
from tests.serial.slopes import check_slopes


class Facts:
    """What a model is built for: rows of one shape, three classes or targets."""

    def __init__(self, shape: tuple[int, ...], class_count: int | None = 3, outputs: int = 3):
        self.inputs = {"x": Input("numbers", shape)}
        self.feature_shape, self.class_count = shape, class_count
        self.output_count, self.outputs_text = outputs, "3 outputs"


def image_model(
    name: str, shape: tuple[int, ...], class_count: int | None = 3, outputs: int = 3, **options
):
    config = Config(model=name, **options)
    return make_model(name, config.for_model(threads=1), Facts(shape, class_count, outputs))


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "count"),
    [
        # Table 6 of He et al. says 0.27 and 0.46 million, with option A; option B adds 2 688 weights and 192 of normalisation.
        ("resnet20", (32, 32, 3), 10, 269_722 + 2_560 + 192),
        ("resnet32", (32, 32, 3), 10, 464_154 + 2_560 + 192),
        # As torchvision's resnet18 has.
        ("resnet18", (224, 224, 3), 1000, 11_689_512),
    ],
)
def test_sizes_are_those_of_the_papers(name, shape, outputs, count):
    """Parameters that are trained."""
    model = image_model(name, shape, outputs, outputs)
    found = sum(prod(s) for key, s in model.shapes.items() if key not in model.averaged)
    assert found == count


MODELS = {
    "cnn": ("cnn", (5, 6), {"own": {"model": {"channels": (3, 4), "units": 5}}}),
    "cnn, dropout": ("cnn", (4, 4, 2), {"own": {"model": {"channels": (3,), "norm": "none"}}, "dropout": 0.3}),
    "cnn, groups": ("cnn", (2, 2, 2), {"own": {"model": {"channels": (8, 8, 8), "norm": "group"}}}),
    "resnet8": ("resnet8", (6, 5, 2), {"own": {"model": {"width": 2}}}),
    "resnet8, groups": ("resnet8", (4, 4), {"own": {"model": {"width": 8, "norm": "group"}}}),
    "resnet18": ("resnet18", (33, 40, 1), {"own": {"model": {"width": 2}}}),
    "tcn": ("tcn", (9, 2), {"own": {"model": {"levels": 3, "width": 4}}, "dropout": 0.2}),
    "tcn, one channel": ("tcn", (5,), {"own": {"model": {"levels": 2, "width": 1, "taps": 2}}}),
}  # fmt: skip


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize(("name", "shape", "options"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_gradients_are_the_slopes_of_the_loss(name, shape, options, rows):
    check_slopes(image_model(name, shape, **options), rows, 12)


def test_targets_are_predicted_too():
    """The loss goes by the data, or by its option."""
    assert image_model("cnn", (8, 8), None).task == "targets"
    assert image_model("cnn", (8, 8), None, loss="huber").task == "targets"
    assert image_model("cnn", (8, 8)).task == "classes"


def test_dropout_is_used():
    """Two draws give two losses."""
    for name, shape in (("cnn", (8, 8)), ("tcn", (9, 2))):
        with_it, without = (image_model(name, shape, dropout=rate) for rate in (0.5, 0.0))
        assert len(with_it._graph.nodes) > len(without._graph.nodes)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("cnn", (5,), {}, "expected rows of height, width and channels, or without channels"),
        ("tcn", (5, 4, 3), {}, "expected rows of length and channels, or without channels"),
        ("resnet8", (8, 8), {"own": {"model": {"norm": "group", "width": 12}}}, "expected multiples of 8 with --norm group, got 12"),
        ("cnn", (8, 8), {"own": {"model": {"channels": ()}}}, "--channels: expected whole numbers of at least 1, one at least"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name, shape, options, message):
    with pytest.raises(ConfigurationError, match=message):
        image_model(name, shape, **options)


def test_evaluation_is_the_same_in_any_batch():
    """Rows do not see each other there, though they do in training."""
    model = image_model("resnet8", (8, 8))
    assert model.mixes_rows
    layout = Layout(model.shapes)
    views = layout.views(np.empty(layout.size, np.float32))
    model.initialise(views, 3)
    x = np.random.default_rng(1).standard_normal((9, 8, 8)).astype("f4")
    found = []
    for rows in (range(9), range(4, 5)):
        batch = Batch(x[list(rows)], np.zeros(len(rows), np.int32))
        found.append(np.full((len(rows), 3), np.nan, "f4"))
        model.predict(views, batch, found[-1])
    assert found[0][4:5].tobytes() == found[1].tobytes()
