"""Networks of one part between dense layers, and their gradients against finite differences."""

from collections.abc import Callable

import numpy as np

from lepton_mpi.batch import Batch, Input
from lepton_mpi.layers.compose import Part, Reshape, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.layer import Head
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.models.network import Network
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout

CLASSES = 3


def network_of(
    part: Part, shape: tuple[int, ...], recompute: int = 0, head: Head | None = None
) -> Network:
    """The part behind a dense layer over the last dimension and before one over everything, so that it has a gradient by x."""
    body = Sequential([Dense(shape[-1]), part, Reshape(), Dense(CLASSES)])
    return Network("test", body, {"x": Input("numbers", shape)}, head or CrossEntropy(), recompute)


def batch_of(network: Network, rows: int, dtype: type = np.float64) -> Batch:
    """Random rows, with classes or targets, a function of the number of rows."""
    generator = np.random.default_rng(rows)
    x = generator.standard_normal((rows, *network.inputs["x"].shape)).astype(dtype)
    if network.task == "classes":
        y = generator.integers(0, CLASSES, rows).astype(np.int32)
    else:
        y = generator.standard_normal((rows, CLASSES)).astype(dtype)
    return Batch(x, y, np.arange(rows) + 10, 99)


def parameters_of(network: Network, moved: float = 0.1) -> tuple[Layout, np.ndarray]:
    """Initial ones, float64, moved at random by about so much."""
    layout = Layout(network.shapes)
    vector = np.empty(layout.size)
    network.initialise(layout.views(vector), 1)
    return layout, vector + moved * np.random.default_rng(8).standard_normal(layout.size)


def loss_and_gradient(
    network: Network, layout: Layout, vector: np.ndarray, batch: Batch
) -> tuple[float, np.ndarray]:
    """Loss, and the gradient in an array that was NaN."""
    gradient = np.full(layout.size, np.nan, vector.dtype)
    views = layout.views(vector), batch, layout.views(gradient)
    return network.loss_and_gradient(*views, NO_SYNC)[0], gradient


def check_slopes(
    network: Network,
    rows: int,
    count: int = 120,
    batch: Batch | None = None,
    moved: float = 0.1,
    step: float = 1e-5,
) -> None:
    """Central differences of fourth order in float64, to 1e-6 of the largest, of at most ``count`` elements.

    Running averages are left out, whose "gradient" is a sum over rows. ``batch`` is another one than that of so many rows.
    """
    (layout, vector), batch = parameters_of(network, moved), batch or batch_of(network, rows)
    _, gradient = loss_and_gradient(network, layout, vector, batch)
    assert not np.isnan(gradient).any(), "a part of the gradient was not filled"
    numbers = layout.views(np.arange(float(layout.size)))
    trained = [numbers[name].reshape(-1) for name in network.shapes if name not in network.averaged]
    which = np.concatenate(trained).astype(int)
    if len(which) > count:
        which = np.random.default_rng(0).choice(which, count, replace=False)
    slopes = central_slopes(
        lambda moved: loss_and_gradient(network, layout, moved, batch)[0], vector, which, step
    )
    scale = np.abs(slopes).max(initial=0)
    np.testing.assert_allclose(gradient[which], slopes, rtol=0, atol=1e-6 * scale)


def central_slopes(
    loss: Callable[[np.ndarray], float], vector: np.ndarray, which: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    """Of ``loss`` by elements ``which`` of ``vector``, by central differences of fourth order."""
    slopes = np.empty(len(which))
    for n, i in enumerate(which):
        losses = []
        for shift in (-2, -1, 1, 2):
            moved = vector.copy()
            moved[i] += shift * step
            losses.append(loss(moved))
        slopes[n] = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)
    return slopes
