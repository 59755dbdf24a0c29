"""The layers of tables give torch's values and gradients, and a wide and deep model torch's losses over 50 steps."""

import json

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.layers.column_embedding import ColumnEmbedding
from lepton_mpi.layers.crossed_linear import CrossedLinear
from lepton_mpi.layers.layer import Arrays, Layer, When
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests.serial import torch_wide_and_deep as torchs
from tests.serial.test_wide_and_deep import Facts

STORED = json.loads(torchs.FILE.read_text())
SPEC = Input("categories", (len(torchs.VALUES),), torchs.VALUES)
LAYERS: dict[str, tuple[Layer, int]] = {
    "column embedding": (ColumnEmbedding(torchs.VALUES, torchs.WIDTHS), 0),
    "crossed linear": (
        CrossedLinear(torchs.VALUES, torchs.CLASSES, torchs.CROSSES, torchs.BUCKETS),
        9,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_torchs_values_and_gradients(name):
    """To 1e-5 in float32."""
    (layer, first), x = LAYERS[name], next(torchs.batches()).categories
    shapes = {key: parameter.shape for key, parameter in layer.parameters(SPEC).items()}
    weights = enumerate(shapes.items(), start=first)
    p = {key: torchs.weight(number, shape).astype("f4") for number, (key, shape) in weights}
    grad = {key: np.full(shape, np.nan, "f4") for key, shape in shapes.items()}
    at = Arrays((x,), np.full((len(x), *layer.out_shape(SPEC)), np.nan, "f4"), 0)
    for key, memory in layer.memory(len(x), SPEC).items():
        at.memory[key] = np.empty(memory.shape, memory.dtype)
    layer.forward(p, at, When(True))
    at.grad_out = torchs.weight(99, at.out.shape).astype("f4")
    layer.backward(p, at, grad, When(True))
    np.testing.assert_allclose(at.out, STORED["layers"][name]["out"], rtol=0, atol=1e-5)
    for mine, expected in zip(grad.values(), STORED["layers"][name]["gradients"], strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float64", 1e-12)])
def test_losses_are_those_of_torch(dtype, tolerance, monkeypatch):
    names = "abcd"
    crosses = ",".join("*".join(names[column] for column in cross) for cross in torchs.CROSSES)
    own = {"crosses": tuple(crosses.split(",")), "cross_buckets": torchs.BUCKETS}
    config = Config(model="wide_and_deep", own={"model": own}, hidden=torchs.HIDDEN)
    facts = Facts(torchs.NUMBERS, torchs.VALUES, tuple(names), torchs.CLASSES)
    monkeypatch.setattr(
        "lepton_mpi.layers.column_embedding.usual_width",
        dict(zip(torchs.VALUES, torchs.WIDTHS, strict=True)).get,
    )
    model = make_model("wide_and_deep", config.for_model(threads=1), facts)
    layout = Layout(model.shapes)
    vector, gradient = np.zeros(layout.size, dtype), np.zeros(layout.size, dtype)
    views = layout.views(vector), layout.views(gradient)
    for number, (name, shape) in enumerate(model.shapes.items()):
        views[0][name][...] = torchs.weight(number, shape)
    losses = []
    for x, categories, y in torchs.batches():
        inputs = {"x": x.astype(dtype), "categories": categories}
        batch = Batch(inputs["x"], y, np.arange(len(y)), 0, None, inputs)
        loss, _ = model.loss_and_gradient(views[0], batch, views[1], NO_SYNC)
        vector -= torchs.LEARNING_RATE * gradient / len(y)
        losses.append(loss / len(y))
    stored = STORED["losses"][dtype]
    np.testing.assert_allclose(losses, stored, rtol=0, atol=tolerance)
    assert np.mean(stored[-5:]) < 0.6 * stored[0], "nothing was learned"
