"""``--on-nan``: numbers that are not finite are found, traced to their rows, and left out or undone on all ranks alike."""

import json
import math
import time
from bisect import bisect

import numpy as np
import pytest

from lepton_mpi import QuietHook
from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.data import order
from lepton_mpi.data.order import draws
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.parallel.together import refused, together

# 40 of 160 training rows a step, 5 a micro-batch; in epoch 2 step 7 is the third.
_ROWS, _BATCH, _STEP = 160, 40, 7
_NUMBER = 5
_PLAIN = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.25}


class Even:
    """The gradient is that of a sum over the rows: 1 for each, whatever the parameters; in ``step`` of the whole run it is ``value``."""

    step, value, finite_loss, only_row = _STEP, math.nan, False, None

    def __init__(self, feature_shape, class_count):
        self.shapes = {"v": (3,), "w": (7, 2)}

    def initialise(self, parameters, seed):
        for array in parameters.values():
            array[:] = 0

    def loss_and_gradient(self, parameters, batch, gradient):
        rows = float(len(batch.y))
        is_bad = batch.draw == draws(0, self.step - 1, 1)[0]
        if is_bad and self.only_row is not None:
            is_bad = self.only_row in batch.rows
        gradient["v"][:] = rows
        gradient["w"][:] = self.value if is_bad else rows
        if is_bad and self.value == 0:
            gradient["v"][:] = 0
        return math.nan if is_bad and math.isnan(self.value) and not self.finite_loss else rows


class Left(Even):
    """What must be the same: nothing to learn in that step."""

    value = 0.0


@pytest.fixture
def data(world, folder):
    path = folder / "rows.npz"
    with world.agreeing():
        if world.rank == 0:
            _write(folder / "rows.h5")
    del path
    return str(folder / "rows.h5")


def _write(path):
    import h5py

    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, count in (("train", _ROWS), ("validation", 8), ("test", 8)):
            file[f"{split}/x"] = generator.standard_normal((count, 3)).astype("f4")
            file[f"{split}/y"] = np.arange(count) % 3


def _config(data, **options) -> Config:
    common = {"data": data, "epochs": 3, "global_batch": _BATCH, "progress": "none"}
    return Config(**(common | _PLAIN | options))


def _rows_of(step: int, number: int) -> list[int]:
    """Numbers of the rows of a micro-batch."""
    epoch, at = divmod(step - 1, _ROWS // _BATCH)
    first = at * _BATCH + number * 5
    return order.epoch_order(_ROWS, 0, epoch + 1)[first : first + 5].tolist()


@pytest.mark.parametrize("finite_loss", [False, True])
def test_where_it_began_is_said(world, data, finite_loss):
    """Step, rank, micro-batch, rows and parameter; by the first gradient, or by the parameters that it left."""
    rows = _rows_of(_STEP, _NUMBER)

    class Diverging(Even):
        only_row = rows[2]

    Diverging.finite_loss = finite_loss
    words = ["nan" if not finite_loss else "parameters became", "in epoch 2", "--learning-rate"]
    if not finite_loss:
        place = bisect(chunk_bounds(8, world.size), _NUMBER) - 1
        words.append(f"step {_STEP}, rank {place}, micro-batch {_NUMBER}, training rows ")
        words.append(", ".join(map(str, rows)) + ": loss nan, gradient of w not finite")
    else:
        words.append("w among them")
    with refused(world, ConfigurationError, *words):
        train(_config(data), world, Diverging)


_STRATEGIES = {
    "sync": {},
    "sync, a copy on each rank": {"allreduce": "ring"},
    "sync, clipped": {"clip_norm": 100.0},
    "delayed": {"strategy": "delayed"},
    "adasum": {"strategy": "adasum"},
    "local": {"strategy": "local"},
    "diloco": {"strategy": "diloco"},
    "hierarchical": {"strategy": "hierarchical"},
    "elastic": {"strategy": "elastic"},
    "bounded": {"strategy": "bounded"},
    "gossip": {"strategy": "gossip"},
}
_IN_STEP = ("sync", "delayed", "adasum")


def _strategy(world, name: str) -> dict:
    if name == "gossip" and world.size == 1:
        pytest.skip("of one rank there is none")
    return _STRATEGIES[name]


@pytest.mark.parametrize("name", _STRATEGIES)
def test_a_step_that_is_skipped_changes_nothing(world, data, name):
    """Parameters are those of a run in which that step had nothing to learn, and the loss is of the other rows."""
    options = _strategy(world, name)
    end = train(_config(data, on_nan="skip", **options), world, Even)
    expected = {"v": -0.25 * 11, "w": -0.25 * 11}
    if name in ("diloco", "elastic"):
        expected = train(_config(data, **options), world, Left)["parameters"]
    with together(world):
        for part in ("v", "w"):
            assert np.allclose(end["parameters"][part], expected[part], rtol=1e-6), part
        assert end["skipped_steps"] >= 1 and end["rollbacks"] == 0
        assert [epoch["loss"] for epoch in end["history"]] == [1.0, 1.0, 1.0]


def test_one_micro_batch_is_enough(world, data, folder):
    """Of one rank, with a finite loss: all ranks leave the step out, and say which; momentum stays as it was."""

    class OneRow(Even):
        finite_loss, only_row = True, _rows_of(_STEP, _NUMBER)[0]

    class ZeroRate(Left):
        """In ``step`` nothing moves."""

    metrics = folder / "metrics.jsonl"
    end = train(_config(data, on_nan="skip", metrics=str(metrics)), world, OneRow)
    left = train(_config(data), world, ZeroRate)
    lines = world.broadcast(metrics.read_text() if world.rank == 0 else None).splitlines()
    found = [record for record in map(json.loads, lines) if record["event"] == "nan"]
    with together(world):
        assert end["weights_digest"] == left["weights_digest"]
        (record,) = found
        assert record["step"] == _STEP and f"micro-batch {_NUMBER}" in record["text"]
        assert "a finite loss, gradient of w not finite" in record["text"]


@pytest.mark.parametrize("name", _STRATEGIES)
def test_rollback_undoes_and_halves_the_rate(world, data, name):
    """Closed form: a step takes the rate off every parameter, 0.25 and then 0.125."""
    options = _strategy(world, name)
    end = train(_config(data, on_nan="rollback", **options), world, Even)
    # Workers lose the epoch; all others go on with the step after the one that was bad.
    is_in_step = name.startswith(_IN_STEP)
    moved = -end["parameters"]["w"]
    with together(world):
        assert end["rollbacks"] == 1
        assert [epoch["learning_rate"] for epoch in end["history"][:3]] == [0.25, 0.125, 0.125]
        if name in ("diloco", "elastic"):
            assert np.isfinite(moved).all() and (moved > 0).all()
        else:
            # Epoch 1, step 8, and the four of epoch 3.
            assert np.allclose(moved, 1 + 0.125 * (4 + is_in_step), atol=1e-6), moved


def test_a_rate_that_is_cut_stays_so_when_a_run_goes_on(world, data, folder):
    """And so does what was left out of an epoch's figures."""
    saved = folder / "saved"
    options = {"on_nan": "rollback", "checkpoint_steps": 1, "keep": 100}
    whole = train(_config(data, checkpoint=str(saved), **options), world, Even)
    place = saved / "step-00000007.h5"
    end = train(_config(data, resume=str(place), on_nan="rollback"), world, Even)
    with together(world):
        assert end["weights_digest"] == whole["weights_digest"]
        assert end["history"][0]["learning_rate"] == 0.125 and end["history"][0]["loss"] == 1.0


def test_what_never_ends_is_ended(world, data):
    """A rate that is not the reason; an epoch without a good step; all ranks end alike."""

    class Hopeless(Even):
        def loss_and_gradient(self, parameters, batch, gradient):
            rows = super().loss_and_gradient(parameters, batch, gradient)
            return rows if batch.draw in draws(0, 0, 4) else math.nan

    with refused(world, ConfigurationError, "after 8 returns to step", "rate is not the reason"):
        train(_config(data, on_nan="rollback", global_batch=10), world, Hopeless)
    with refused(world, ConfigurationError, "no step of epoch 2 had finite numbers"):
        train(_config(data, on_nan="skip"), world, Hopeless)


def test_waits_for_what_ranks_agree_on_are_no_compute(world, data):
    """A rank that is fast waits in the message of 8 bytes."""
    if world.size == 1 or world.host_count > 1:
        pytest.skip("for two ranks or more of one host")
    booked, steps, seconds = [], 12, 0.03

    class Slow(QuietHook):
        def after_step(self, run):
            if world.rank == 0:
                time.sleep(seconds)

        def at_end(self, run):
            spent = run.phase_seconds()
            booked.append(spent["communication"] + spent["waiting"])

    train(_config(data, on_nan="skip"), world, Even, hooks=[Slow()])
    with together(world):
        assert world.rank == 0 or booked[0] > 0.8 * seconds * steps


@pytest.mark.parametrize("allreduce", ["auto", "ring"])
def test_ranks_tell_the_step_of_the_run(world, data, folder, allreduce):
    """Not how often they have agreed, which is another number in a run that goes on."""
    saved, told = str(folder / "saved"), []

    class Tells(QuietHook):
        def after_step(self, run):
            told.append((run.step, int(world.clock.row[0])))

    options = {"on_nan": "skip", "allreduce": allreduce}
    train(_config(data, epochs=1, checkpoint=saved, **options), world, Even)
    train(_config(data, epochs=2, resume=saved, **options), world, Even, hooks=[Tells()])
    with together(world):
        assert told == [(step, step) for step in (5, 6, 7, 8)]
