"""The GRU against stored values of torch's: what comes out, and all gradients, to 1e-5 in float32."""

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.layers.compose import Sequential
from lepton_mpi.layers.gru import Gru, Returns, bidirectional
from lepton_mpi.layers.layer import Arrays, Head, Layer, Parameter
from lepton_mpi.models.network import Network
from lepton_mpi.sync import NO_SYNC
from tests.serial import torch_gru

STORED = np.load(torch_gru.FILE)


class _Given(Head):
    """A loss whose gradient is given; keeps what came in."""

    task = "targets"

    def __init__(self, slope: np.ndarray) -> None:
        self._slope = slope

    def loss_and_gradient(self, p, at: Arrays, grad, y) -> tuple[float, float]:
        self.out = at.x.copy()
        at.grad_x[:] = self._slope
        return 0.0, np.nan


class _Learned(Layer):
    """Gives a parameter in place of what comes in, so that the gradient by x is that of a parameter."""

    needs_x = False

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def parameters(self, x: Input) -> dict[str, Parameter]:
        return {"x": Parameter((self._rows, *x.shape))}

    def out_shape(self, x: Input) -> tuple[int, ...]:
        return x.shape

    def forward(self, p, at: Arrays, when) -> None:
        at.out[:] = p["x"]

    def backward(self, p, at: Arrays, grad, when) -> None:
        grad["x"][:] = at.grad_out


def _network(name: str, end: Returns, head: Head) -> Network:
    case = torch_gru.CASES[name]
    gru = bidirectional if case.bidirectional else Gru
    ends: list[Returns] = ["all"] * (case.layers - 1) + [end]
    parts = [_Learned(case.x[0]), *(gru(case.width, each) for each in ends)]
    return Network("test", Sequential(parts), {"x": Input("numbers", case.x[1:])}, head)


@pytest.mark.parametrize("end", ["all", "last"])
@pytest.mark.parametrize("name", torch_gru.CASES)
def test_states_and_gradients_are_those_of_torch(name, end):
    given, head = torch_gru.inputs(name), _Given(torch_gru.inputs(name)[f"grad {end}"])
    network = _network(name, end, head)
    units = torch_gru.units(torch_gru.CASES[name])
    theirs = ["x", *(f"{key}_{unit}" for unit, _ in units for key in torch_gru.NAMES)]
    names = dict(zip(network.shapes, theirs, strict=True))
    gradient = {own: np.full(network.shapes[own], np.nan, "f4") for own in names}
    parameters = {own: given[their] for own, their in names.items()}
    batch = Batch(given["x"], np.zeros(len(given["x"]), "f4"), np.arange(len(given["x"])), 0)
    network.loss_and_gradient(parameters, batch, gradient, NO_SYNC)
    _assert_close(head.out, f"{name}/{end}/out")
    for own, their in names.items():
        _assert_close(gradient[own], f"{name}/{end}/grad {their}")


def _assert_close(array: np.ndarray, stored: str) -> None:
    exact = STORED[stored]
    tolerance = 1e-5 * max(1, np.abs(exact).max())
    np.testing.assert_allclose(array, exact, rtol=0, atol=tolerance, err_msg=stored)
