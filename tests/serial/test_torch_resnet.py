"""A resnet8's losses over 50 steps are torch's, from the same weights and batches."""

import json

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests.serial import torch_resnet
from tests.serial.test_convolutional_models import Facts


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float64", 1e-9)])
def test_losses_are_those_of_torch(dtype, tolerance):
    config = Config(model="resnet8", own={"model": {"width": torch_resnet.WIDTH}})
    facts = Facts(torch_resnet.SHAPE, torch_resnet.CLASSES, torch_resnet.CLASSES)
    model = make_model("resnet8", config.for_model(threads=1), facts)
    layout = Layout(model.shapes)
    vector, gradient = np.zeros(layout.size, dtype), np.zeros(layout.size, dtype)
    views = layout.views(vector), layout.views(gradient)
    model.initialise(views[0], 0)
    for number, name in enumerate(name for name, s in model.shapes.items() if len(s) > 1):
        views[0][name][...] = torch_resnet.weight(number, model.shapes[name])
    losses = []
    for x, y in torch_resnet.batches():
        batch = Batch(x.astype(dtype), y, np.arange(len(y)), 0)
        loss, _ = model.loss_and_gradient(views[0], batch, views[1], NO_SYNC)
        vector -= torch_resnet.LEARNING_RATE * gradient / len(y)
        losses.append(loss / len(y))
    stored = json.loads(torch_resnet.FILE.read_text())["losses"][dtype]
    np.testing.assert_allclose(losses, stored, rtol=0, atol=tolerance)
    assert np.mean(stored[-5:]) < 0.5 * stored[0], "nothing was learned"
