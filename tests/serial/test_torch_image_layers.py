"""Layers against stored values of torch: what comes out, and all gradients, to 1e-5 in float32."""

import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.layers.batch_norm import BatchNorm
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.group_norm import GroupNorm
from lepton_mpi.layers.layer import Arrays, Layer, When
from lepton_mpi.layers.pooling import AveragePool, MaxPool
from lepton_mpi.layers.windows import Window, along, square
from tests.serial import torch_image_layers as torch_layers

STORED = np.load(torch_layers.FILE)
LAYERS = {
    "conv2d": Conv2d(5, square(3, padding=1)),
    "conv2d stride dilation": Conv2d(3, Window((3, 2), (2, 1), ((2, 2), (0, 0)), (1, 2))),
    "conv2d groups": Conv2d(6, square(3, stride=2, padding=1), groups=2),
    "conv2d depthwise": Conv2d(5, square(3, stride=2, padding=1), groups=5),
    "conv2d 1x1": Conv2d(4, square(1, stride=2)),
    "conv1d": Conv1d(4, along(3, padding=(2, 2), dilation=2)),
    "batch norm": BatchNorm(),
    "group norm": GroupNorm(2),
    "max pool": MaxPool(square(3, stride=2, padding=1)),
    "average pool": AveragePool(square(3, stride=2, padding=1)),
    "average pool of a sequence": AveragePool(along(2, stride=2)),
}


def test_every_case_is_tested():
    assert LAYERS.keys() == torch_layers.CASES.keys()


def _arrays(layer: Layer, name: str, is_training: bool) -> tuple[Arrays, dict[str, np.ndarray]]:
    """What a layer is called with, where everything to be filled is NaN; and its parameters."""
    given = torch_layers.inputs(name)
    x = given.pop("x")
    spec = Input("numbers", x.shape[1:])
    at = Arrays((x,), np.full((len(x), *layer.out_shape(spec)), np.nan, "f4"), 0)
    at.memory = {
        key: np.full(m.shape, -1 if m.dtype in (np.int32, np.int64) else np.nan, m.dtype or "f4")
        for key, m in layer.memory(len(x), spec).items()
        if is_training or m.lives in ("kept", "scratch", "plan")
    }
    for key, parameter in layer.parameters(spec).items():
        if key not in given:
            given[key] = np.empty(parameter.shape, "f4")
            parameter.initial(given[key], 0, 0)
        assert given[key].shape == parameter.shape
    return at, given


def _run(layer: Layer, name: str) -> dict[str, np.ndarray]:
    """Forward and backward in training."""
    at, p = _arrays(layer, name, True)
    grad = {key: np.full_like(array, np.nan) for key, array in p.items()}
    layer.forward(p, at, When(True))
    at.grad_out = torch_layers.grad_out(name, at.out.shape)
    at.grad_x = np.full_like(at.x, np.nan)
    layer.backward(p, at, grad, When(True))
    return {"out": at.out, "grad x": at.grad_x, **{f"grad {key}": a for key, a in grad.items()}}


def _assert_close(array: np.ndarray, stored: str) -> None:
    exact = STORED[stored]
    tolerance = 1e-5 * max(1, np.abs(exact).max())
    np.testing.assert_allclose(array, exact, rtol=0, atol=tolerance, err_msg=stored)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_what_torch_gives(name):
    found = _run(LAYERS[name], name)
    for key in ("out", "grad x", *(f"grad {key}" for key in torch_layers.CASES[name].parameters)):
        _assert_close(found[key], f"{name}/{key}")


def test_running_statistics_are_those_of_torch():
    """After a step from 0 and 1, and what evaluation gives with them."""
    layer, name = LAYERS["batch norm"], "batch norm"
    found, (at, p) = _run(layer, name), _arrays(layer, name, False)
    for key in ("running_mean", "running_variance"):
        p[key] += np.float32(0.1) * (found[f"grad {key}"] / len(at.x) - p[key])
        _assert_close(p[key], f"{name}/{key}")
    layer.forward(p, at, When(False))
    _assert_close(at.out, f"{name}/evaluated")
