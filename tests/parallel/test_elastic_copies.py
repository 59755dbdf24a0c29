"""What a run goes on from behind a loss of ranks: here all ranks leave it and go on, as those do that are left."""

import math
from types import SimpleNamespace

import pytest

from lepton_mpi import QuietHook
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint, elastic, loop, memory_forecast, snapshot
from lepton_mpi.run.build import build
from lepton_mpi.run.hooks import Checkpoints
from tests.parallel.together import check, together

# 18 steps an epoch.
_OPTIONS = {"epochs": 3, "progress": "none", "seed": 3}


class _Lost(Exception):
    """Leaves the loop on every rank after the same step."""


class _LostAfter(QuietHook):
    """With a checkpoint at a step of which the time alone decides, and another run knows nothing."""

    def __init__(self, step: int, saved: int = 0) -> None:
        self.step, self.saved = step, saved

    def after_step(self, run) -> None:
        if run.step == self.saved:
            next(hook for hook in run.hooks if isinstance(hook, Checkpoints)).save_now(run)
        if run.step == self.step:
            raise _Lost


@pytest.fixture(autouse=True)
def no_losses(world, monkeypatch):
    """Of which a run that makes copies asks the world."""
    nothing = SimpleNamespace(
        check=lambda: None, fill_with=lambda *_: None, revoke_with=lambda comm: None
    )
    monkeypatch.setattr(world, "losses", nothing)


def _run(config, world, points, start=None, *hooks):
    run = build(config, world, start=start)
    run.hooks += hooks
    if points:
        points.attach(run)
    try:
        loop.train(run)
    except _Lost:
        run.ends.close()
    else:
        run.close()
    return run.result


def _recovered(config, world, *hooks):
    """The results of a run that is left with the last of ``hooks``, of as many as there are."""
    points, start = elastic.Points(config), None
    for hook in hooks:
        _run(points.config if start else config, world, points, start, hook)
        start = points.newest(world)
    result = _run(points.config, world, points, start)
    points.joins.close()
    return result


def _figures(history):
    """Without times."""
    return [
        {name: value for name, value in epoch.items() if not name.startswith(("sec", "samples"))}
        for epoch in history
    ]


@pytest.mark.parametrize("share", [math.inf, 1e-9], ids=["each-step", "at-the-beginning"])
@pytest.mark.parametrize("steps", [(7,), (36,), (40, 41), (20, 50)])
def test_the_result_is_that_of_a_run_without_a_loss(world, monkeypatch, steps, share):
    """Every epoch stands in the history once, with its figures; so do the options that nobody has chosen."""
    monkeypatch.setattr(elastic, "_SHARE", share)
    config = Config(**_OPTIONS, model="mlp")
    whole = _run(config, world, None)
    found = _recovered(config, world, *map(_LostAfter, steps))
    with together(world):
        assert found["weights_digest"] == whole["weights_digest"]
        assert _figures(found["history"]) == _figures(whole["history"])
        assert len(whole["history"]) == 3
        assert found["derived"] == whole["derived"] != {}


@pytest.mark.parametrize("share", [math.inf, 1e-9], ids=["each-step", "at-the-beginning"])
def test_a_file_that_was_written_behind_the_copy_is_the_runs_own(world, folder, monkeypatch, share):
    """It is removed in its turn, and what stood there before the job stays."""
    monkeypatch.setattr(elastic, "_SHARE", share)
    runs = folder / "runs"
    options = {"checkpoint": str(runs), "checkpoint_steps": 7}
    _run(Config(**_OPTIONS | {"epochs": 1, "seed": 9}, checkpoint=str(runs), keep=1), world, None)
    world.comm.Barrier()
    if world.rank == 0:
        (runs / "step-00000018.h5").rename(runs / "step-00000099.h5")
    world.comm.Barrier()
    _recovered(Config(**_OPTIONS, **options), world, _LostAfter(12, saved=10))
    world.comm.Barrier()
    names = sorted(path.name for path in runs.iterdir())
    check(world, names == [f"step-000000{step}.h5" for step in (49, 54, 99)], str(names))
    with together(world):
        for path in runs.iterdir():
            checkpoint.verify(path)


def test_what_a_run_holds_is_more_than_a_copy(world):
    """Gradients and activations, which go with it; its rows stay."""
    config = Config(**_OPTIONS, hidden=(512,), elastic=True)
    run, points = build(config, world), elastic.Points(config)
    points.attach(run)
    copy = snapshot.memory_bytes(run)
    held = memory_forecast.forecast(run)
    run.close()
    with together(world):
        assert points.run_bytes == held.resident - 2 * copy - held.shared["rows"] > copy
        assert held.shared["snapshot"] == 2 * copy and held.shared["rows"]
        assert points.run_bytes > held.own["activations"]
