"""Parameters that are averages of what rows have: not trained, not clipped, and the same on any split."""

import numpy as np
import pytest

from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.parallel.together import together

SHARE = 0.25


class Averaging:
    """A linear model that also learns the mean of its inputs, as batch normalisation learns its statistics."""

    averaged = {"mean": SHARE}  # noqa: RUF012
    is_trusted = True

    def __init__(self, feature_shape, output_count):
        count = int(np.prod(feature_shape))
        self.shapes = {"before": (count,), "mean": (count,), "weight": (count, output_count)}

    def loss_and_gradient(self, parameters, batch, gradient):
        x = batch.x.reshape(len(batch.x), -1)
        gradient["before"][:] = 1e3 * len(x)
        gradient["mean"][:] = x.sum(axis=0)
        gradient["weight"][:] = 0
        return 0.0


@pytest.mark.parametrize(
    "options", [{}, {"clip_norm": 0.1}, {"clip_value": 0.1}, {"allreduce": "ring"}], ids=str
)
def test_a_step_moves_them_towards_the_mean(world, folder, options):
    """All rows of a step count alike; what is trained is clipped, and they are not; the norm is that of the trained ones."""
    import h5py

    x = np.random.default_rng(0).integers(0, 100, (96, 5)).astype(np.float32)
    path = folder / "rows.h5"
    if world.rank == 0:
        with h5py.File(path, "w") as file:
            file["x"], file["y"] = x, np.arange(96) % 2
    world.comm.Barrier()
    config = Config(
        data=(str(path),), global_batch=96, epochs=3, optimizer="sgd", momentum=0.0, learning_rate=0.5,
        validation_split=0.0, test_split=0.0, progress="none", **options,
    )  # fmt: skip
    found = train(config, world, Averaging)["parameters"]
    wanted = np.zeros(5)
    for _ in range(3):
        wanted += SHARE * (x.mean(axis=0) - wanted)
    moved = {"clip_norm": 0.1 / np.sqrt(5), "clip_value": 0.1}
    per_step = moved[next(iter(options))] if options.keys() & moved.keys() else 1e3
    with together(world):
        np.testing.assert_allclose(found["mean"], wanted, rtol=1e-6)
        np.testing.assert_allclose(found["before"], -3 * 0.5 * per_step, rtol=1e-5)
