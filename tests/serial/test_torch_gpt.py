"""A gpt 2x64 of this engine and one of torch learn alike: 50 losses from the same weights and batches, by Adam."""

import json

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.models.gpt import Gpt, Shape
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests import torch_gpt as case


def test_the_loss_curve_is_that_of_torch():
    """Each to 1e-3, after 0 to 49 steps."""
    shape = Shape(case.CONTEXT, case.VOCABULARY, case.LAYERS, case.WIDTH, case.HEADS)
    model = Gpt(shape)
    assert dict(model.shapes) == case.shapes()
    layout = Layout(model.shapes)
    vector, gradient = np.zeros((2, layout.size), np.float32)
    views, gradients = layout.views(vector), layout.views(gradient)
    for name, array in case.weights(case.shapes()).items():
        views[name][...] = array
    losses, count = [], case.ROWS * case.CONTEXT
    mean, square = np.zeros((2, layout.size))
    for step, (x, y) in enumerate(zip(*case.batches(), strict=True), 1):
        batch = Batch(x, y, np.arange(case.ROWS))
        losses.append(model.loss_and_gradient(views, batch, gradients, NO_SYNC)[0] / count)
        g = gradient / count
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g.astype(np.float64) ** 2
        change = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        vector -= (case.LEARNING_RATE * change).astype(np.float32)
    expected = json.loads(case.FILE.read_text("utf-8"))["losses"]
    assert losses[-1] < 0.5 * losses[0], "hardly anything was learnt"
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
