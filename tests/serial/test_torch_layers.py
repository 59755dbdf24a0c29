"""Layers against stored values of torch: what comes out, and all gradients, to 1e-5 in float32."""

import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.layer import Arrays, Layer, When
from lepton_mpi.layers.windows import Window, along, square
from tests.serial import torch_layers

STORED = np.load(torch_layers.FILE)
LAYERS = {
    "conv2d": Conv2d(5, square(3, padding=1)),
    "conv2d stride dilation": Conv2d(3, Window((3, 2), (2, 1), ((2, 2), (0, 0)), (1, 2))),
    "conv2d groups": Conv2d(6, square(3, stride=2, padding=1), groups=2),
    "conv2d depthwise": Conv2d(5, square(3, stride=2, padding=1), groups=5),
    "conv2d 1x1": Conv2d(4, square(1, stride=2)),
    "conv1d": Conv1d(4, along(3, padding=(2, 2), dilation=2)),
}


def test_every_case_is_tested():
    assert LAYERS.keys() == torch_layers.CASES.keys()


def _run(layer: Layer, name: str) -> dict[str, np.ndarray]:
    """Forward and backward in training, in memory that begins as NaN."""
    given = torch_layers.inputs(name)
    x = given.pop("x")
    spec = Input("numbers", x.shape[1:])
    assert {key: p.shape for key, p in layer.parameters(spec).items()} == {
        key: array.shape for key, array in given.items()
    }
    out = np.full((len(x), *layer.out_shape(spec)), np.nan, "f4")
    at, grad = (
        Arrays((x,), out, 0),
        {key: np.full_like(array, np.nan) for key, array in given.items()},
    )
    at.memory = {
        key: np.full(m.shape, 0 if m.dtype else np.nan, m.dtype or "f4")
        for key, m in layer.memory(len(x), spec).items()
    }
    layer.forward(given, at, When(True))
    at.grad_out, at.grad_x = torch_layers.grad_out(name, out.shape), np.full_like(x, np.nan)
    layer.backward(given, at, grad, When(True))
    return {"out": out, "grad x": at.grad_x, **{f"grad {key}": a for key, a in grad.items()}}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_what_torch_gives(name):
    for key, array in _run(LAYERS[name], name).items():
        exact = STORED[f"{name}/{key}"]
        tolerance = 1e-5 * max(1, np.abs(exact).max())
        np.testing.assert_allclose(array, exact, rtol=0, atol=tolerance, err_msg=key)
