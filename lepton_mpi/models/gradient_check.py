"""A model's gradient against finite differences of its loss, for ``--check-model`` and for tests."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels import counter_random
from lepton_mpi.models.model import Model
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout, Views

# Elements of each array that are looked at, beside the one of the largest gradient.
_SAMPLED = 6
# Steps of the differences, and the largest error by an array's largest gradient. Two steps: near the kink of a ReLU one of
# them may be on both sides of it.
_STEPS = {np.dtype(np.float64): (1e-4, 1e-6), np.dtype(np.float32): (1e-2, 1e-3)}
_ALLOWED = {np.dtype(np.float64): 1e-5, np.dtype(np.float32): 2e-2}
_DOUBLE = np.dtype(np.float64)


def check_gradient(model: Model, parameters: Views, batch: Batch) -> None:
    """Compare some elements of every gradient, the same on every rank, in float64 where the model computes in it.

    Takes some 30 calls of the model for each parameter's array. ``parameters`` are copied.

    Raises
    ------
    ConfigurationError
        Names the element that is farthest off, with both numbers.
    """
    dtype = next(iter(parameters.values())).dtype
    try:
        _check(model, parameters, batch, _DOUBLE)
    except (TypeError, ValueError):  # of kernels for another type
        if dtype == _DOUBLE:
            raise
        _check(model, parameters, batch, dtype)


def _check(model: Model, parameters: Views, batch: Batch, dtype: np.dtype[Any]) -> None:
    layout = Layout(model.shapes)
    vector, gradient = np.empty(layout.size, dtype), np.empty(layout.size, dtype)
    views, gradients = layout.views(vector), layout.views(gradient)
    for name, array in parameters.items():
        views[name][...] = array
    batch = _converted(batch, dtype)
    model.loss_and_gradient(views, batch, gradients, NO_SYNC)
    filled = layout.views(gradient.copy())

    def loss() -> float:
        return model.loss_and_gradient(views, batch, gradients, NO_SYNC)[0]

    for number, (name, array) in enumerate(filled.items()):
        if name in model.averaged or name in model.frozen:
            continue
        scale, weights = float(np.abs(array).max(initial=0)), views[name].reshape(-1)
        for position in _positions(array.reshape(-1), number):
            mine, errors = float(array.reshape(-1)[position]), []
            for step in _STEPS[dtype]:
                slope, noise = _slope(loss, weights, position, step)
                errors.append((abs(mine - slope) - _ALLOWED[dtype] * scale - noise, slope))
            off, slope = min(errors)
            if off > 0 or np.isnan(off):
                where = ", ".join(map(str, np.unravel_index(position, array.shape)))
                raise ConfigurationError(
                    f"model {model.name}: gradient[{name!r}][{where}]: expected {slope:.6g} by finite differences of the "
                    f"loss in {dtype}, got {mine:.6g}"
                )


def _slope(
    loss: Callable[[], float], weights: np.ndarray[Any, Any], position: int, step: float
) -> tuple[float, float]:
    """Central difference of fourth order, and what roundings of the loss may make of it."""
    old = weights[position]
    step *= max(1.0, abs(float(old)))
    losses = []
    for shift in (-2, -1, 1, 2):
        weights[position] = old + shift * step
        losses.append(loss())
    weights[position] = old
    slope = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)
    eps = float(np.finfo(weights.dtype).eps)
    return slope, 8 * eps * max(map(abs, losses)) / step


def _positions(gradient: np.ndarray[Any, Any], number: int) -> list[int]:
    """Of the largest gradient, and some that are always the same."""
    if not gradient.size:
        return []
    drawn = counter_random.bits(0, number, _SAMPLED) % np.uint64(gradient.size)
    return sorted({int(np.abs(gradient).argmax()), *map(int, drawn)})


def _converted(batch: Batch, dtype: np.dtype[Any]) -> Batch:
    """With all floats of this type."""

    def converted(array: Any) -> Any:
        is_float = isinstance(array, np.ndarray) and array.dtype.kind == "f"
        return array.astype(dtype) if is_float else array

    named = batch.named
    if named is not None:
        named = {name: converted(array) for name, array in named.items()}
    return batch._replace(x=converted(batch.x), y=converted(batch.y), named=named)
