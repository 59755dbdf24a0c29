"""Every network that options make, small, and one step of it."""

import numpy as np

from lepton_mpi.batch import Batch, Input
from lepton_mpi.models.network import Network
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout

ROWS = 6


class Facts:
    """Three classes, or the next of some tokens, of one input."""

    def __init__(self, x: Input) -> None:
        self.inputs, self.feature_shape = {"x": x}, x.shape
        is_text = x.kind == "tokens"
        self.class_count, self.output_count = (None, x.values) if is_text else (3, 3)
        self.outputs_text, self.category_names = f"{self.output_count} outputs", ()


class _Table(Facts):
    """Numbers, and columns of categories."""

    def __init__(self) -> None:
        super().__init__(Input("numbers", (4,)))
        self.inputs["categories"] = Input("categories", (2,), (5, 3))
        self.category_names = ("a", "b")


MODELS = {
    "gpt": (Facts(Input("tokens", (9,), 11)), {"layers": 6, "width": 8, "heads": 2}),
    "cnn": (Facts(Input("numbers", (8, 8, 2))), {"channels": (3, 4)}),
    "tcn": (Facts(Input("numbers", (20, 2))), {"levels": 3, "width": 4}),
    "wide_and_deep": (_Table(), {}),
    "speech_cnn": (Facts(Input("numbers", (12, 8))), {"width": 4, "blocks": 3}),
    "speech_gru": (Facts(Input("numbers", (7, 3))), {"layers": 2, "width": 4}),
    "resnet8": (Facts(Input("numbers", (8, 8, 2))), {"width": 3}),
    "resnet20": (Facts(Input("numbers", (16, 16, 2))), {"width": 3}),
    "resnet32": (Facts(Input("numbers", (8, 8, 2))), {"width": 2}),
    "resnet18": (Facts(Input("numbers", (33, 33, 2))), {"width": 2}),
}


def network_of(name: str, **options) -> tuple[Network, Facts]:
    """With dropout where it is a gpt."""
    facts, own = MODELS[name]
    options = {"own": {"model": own}, "dropout": 0.2 * (name == "gpt"), **options}
    config = Config(model=name, **options)
    return make_model(name, config.for_model(threads=1), facts), facts


def batch_of(facts: Facts) -> Batch:
    """Random rows and classes."""
    random = np.random.default_rng(0)
    first = next(iter(facts.inputs.values()))
    if first.kind == "tokens":
        x, y = (random.integers(0, 11, (ROWS, *first.shape), np.int32) for _ in range(2))
    else:
        x = random.standard_normal((ROWS, *first.shape)).astype(np.float32)
        y = random.integers(0, 3, ROWS).astype(np.int32)
    named = None
    if len(facts.inputs) > 1:
        named = {"x": x, "categories": random.integers(0, 3, (ROWS, 2)).astype(np.int32)}
    return Batch(x, y, np.arange(ROWS), 7, None, named)


def step_of(network: Network, facts: Facts) -> tuple[tuple[float, float], np.ndarray]:
    """Loss and correct count, and the gradient, float32, from the model's own initial parameters."""
    layout = Layout(network.shapes)
    parameters = layout.views(np.zeros(layout.size, np.float32))
    network.initialise(parameters, 1)
    vector = np.full(layout.size, np.nan, np.float32)
    batch, gradient = batch_of(facts), layout.views(vector)
    return network.loss_and_gradient(parameters, batch, gradient, NO_SYNC), vector
