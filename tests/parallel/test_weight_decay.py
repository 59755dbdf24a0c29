"""What a weight decay makes of the weights in a whole training, against NumPy in float64."""

import h5py
import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run import loop
from lepton_mpi.run.build import build
from tests.parallel.together import refused, together

_RATE, _DECAY, _STEPS, _ROWS = 0.25, 0.5, 20, 101


@pytest.fixture
def rows(world, folder):
    """(file, x, y) of 101 rows with 3 features, in 2 classes."""
    generator = np.random.default_rng(1)
    x = generator.normal((0, 1, -2), 1, (_ROWS, 3))
    y = (x.sum(axis=1) + generator.standard_normal(_ROWS) > 0).astype(np.int64)
    with world.agreeing():
        if world.rank == 0:
            with h5py.File(folder / "rows.h5", "w") as file:
                file["x"], file["y"] = x, y
    return folder / "rows.h5", x, y


def _config(path, **options) -> Config:
    """Every step is of all rows, so that their order is of no account."""
    plain = {"global_batch": _ROWS, "epochs": _STEPS, "learning_rate": _RATE, "progress": "none"}
    plain |= {"data": str(path), "validation_split": 0.0, "test_split": 0.0, "momentum": 0.0}
    return Config(**plain | {"weight_decay": _DECAY} | options)


def _expected(optimizer: str, weight, bias, x, y):
    """Gradient descent on the mean cross-entropy; the bias is not pulled. Lion's sign never is that of 0 here."""
    means = np.zeros(4)
    for _ in range(_STEPS):
        error = 1 / (1 + np.exp(-(x @ weight + bias))) - y
        slopes = np.append(x.T @ error, error.sum()) / _ROWS
        if optimizer == "sgd":
            change = slopes
        else:
            change = np.sign(0.9 * means + 0.1 * slopes)
            means = 0.99 * means + 0.01 * slopes
        weight, bias = (
            weight - _RATE * (change[:3] + _DECAY * weight),
            bias - _RATE * change[3],
        )
    return weight, bias


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["sgd", "lion"])
@pytest.mark.parametrize("allreduce", ["auto", "ring"])
def test_logistic_regression_is_regularised(world, rows, dtype, optimizer, allreduce):
    """Its weight has one dimension, and is pulled all the same, with the decay in the gradient and apart from it."""
    path, x, y = rows
    config = _config(path, model="logistic", optimizer=optimizer, dtype=dtype, allreduce=allreduce)
    run = build(config, world)
    shift, scale = (part.reshape(-1) for part in run.data.normalisation)
    begin = {name: array.astype(np.float64) for name, array in run.parameters.items()}
    world.comm.Barrier()
    loop.train(run)
    end = {name: array.copy() for name, array in run.parameters.items()}
    run.close()
    given = optimizer, begin["weight"], begin["bias"], (x - shift) * scale, y
    weight, bias = _expected(*given)
    with together(world):
        tolerance = {"rtol": 0, "atol": 1e-5 if dtype == "float32" else 1e-12}
        np.testing.assert_allclose(end["weight"], weight, **tolerance)
        np.testing.assert_allclose(end["bias"], bias, **tolerance)


_OWN = """
class Line:
    shapes = {{"weight": (3,), "bias": (1,)}}
    {decayed}

    def __init__(self, feature_shape, output_count):
        pass

    def loss_and_gradient(self, parameters, batch, gradient):
        gradient["weight"][:] = gradient["bias"][:] = 0
        return 0.0
"""


def test_a_decay_that_would_act_on_nothing_is_refused(world, rows, folder):
    """A model of one's own, with arrays of one dimension only, until it names its weights: without gradients these shrink alone."""
    path, *_ = rows
    for number, decayed in enumerate(["", "decayed = ('weight',)"]):
        file = folder / f"line{number}.py"
        with world.agreeing():
            if world.rank == 0:
                file.write_text(_OWN.format(decayed=decayed))
        config = _config(path, model=f"{file}:Line", optimizer="sgd")
        if not decayed:
            with refused(world, ConfigurationError, "--weight-decay 0.5", "(weight, bias)"):
                build(config, world)
            continue
        run = build(config, world)
        begin = {name: array.copy() for name, array in run.parameters.items()}
        world.comm.Barrier()
        loop.train(run)
        end = {name: array.copy() for name, array in run.parameters.items()}
        run.close()
        with together(world):
            shrunk = begin["weight"] * (1 - _RATE * _DECAY) ** _STEPS
            np.testing.assert_allclose(end["weight"], shrunk, rtol=1e-5)
            np.testing.assert_array_equal(end["bias"], begin["bias"])
