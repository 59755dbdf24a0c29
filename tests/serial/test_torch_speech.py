"""The losses of the speech models over 50 steps are torch's, from the same weights and batches."""

import json

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests.serial import torch_speech
from tests.serial.test_convolutional_models import Facts


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float64", 1e-9)])
@pytest.mark.parametrize("name", torch_speech.OPTIONS)
def test_losses_are_those_of_torch(name, dtype, tolerance):
    config = Config(model=name, own={"model": torch_speech.OPTIONS[name]})
    facts = Facts(torch_speech.SHAPE, torch_speech.CLASSES, torch_speech.CLASSES)
    model = make_model(name, config.for_model(threads=1), facts)
    layout = Layout(model.shapes)
    vector, gradient = np.zeros(layout.size, dtype), np.zeros(layout.size, dtype)
    views = layout.views(vector), layout.views(gradient)
    model.initialise(views[0], 0)
    for number, key in enumerate(key for key in model.shapes if "norm" not in key):
        views[0][key][...] = torch_speech.initial(number, model.shapes[key])
    losses = []
    for x, y in torch_speech.batches():
        batch = Batch(x.astype(dtype), y, np.arange(len(y)), 0)
        loss, _ = model.loss_and_gradient(views[0], batch, views[1], NO_SYNC)
        vector -= torch_speech.LEARNING_RATES[name] * gradient / len(y)
        losses.append(loss / len(y))
    stored = json.loads(torch_speech.FILE.read_text())["losses"][name][dtype]
    np.testing.assert_allclose(losses, stored, rtol=0, atol=tolerance)
    assert np.mean(stored[-5:]) < 0.5 * stored[0], "nothing was learned"
