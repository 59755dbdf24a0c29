"""Checkpoints of ``--async-save`` have the bits of those that are written at once, with strategies that share memory and others."""

import errno
import threading

import h5py
import numpy as np
import pytest

from lepton_mpi import QuietHook
from lepton_mpi.errors import ConfigurationError, Preempted
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint_folder, memory_forecast, snapshot
from lepton_mpi.run.fit import train
from lepton_mpi.run.hooks import Checkpoints
from lepton_mpi.world.memory import shared_bytes
from lepton_mpi.world.stopping import Stopping
from tests.parallel.pretended import on_hosts
from tests.parallel.together import check, equal_everywhere, refused, together

# 18 steps an epoch; nothing is removed.
_OPTIONS = {"epochs": 2, "checkpoint_steps": 5, "keep": 99, "optimizer": "adam", "progress": "none"}


def _content(path):
    """All but the options, which differ."""
    with h5py.File(path) as file:
        found = {"attributes": {k: v for k, v in file.attrs.items() if k != "configuration"}}
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
            )
        )
        return found


def _files(folder):
    return {path.name: _content(path) for path in sorted(folder.glob("*.h5"))}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"clip_norm": 1.0, "on_nan": "rollback"},
        {"allreduce": "ring"},
        {"strategy": "delayed"},
        {"strategy": "local"},
        {"keep_best": "auto", "restore_best": True},
        {"dtype": "float64", "optimizer": "sgd"},
    ],
    ids=lambda more: "-".join(map(str, more.values())) or "sync",
)
def test_the_files_are_those_of_saves_that_stop_the_run(world, folder, more):
    """Every vector and attribute of every step, and the figures of the end."""
    ended = [
        train(Config(**_OPTIONS | more, checkpoint=str(folder / name), async_save=aside), world)
        for name, aside in (("stopped", False), ("aside", True))
    ]
    world.host_barrier()
    stopped, aside = _files(folder / "stopped"), _files(folder / "aside")
    names = [f"step-{step:08d}.h5" for step in (5, 10, 15, 18, 20, 25, 30, 35, 36)]
    check(world, set(names) <= stopped.keys() == aside.keys(), str(aside.keys()))
    check(world, [n for n in stopped if stopped[n] != aside[n]] == [])
    check(world, ended[0]["weights_digest"] == ended[1]["weights_digest"])
    equal_everywhere(world, ended[1]["weights_digest"])
    check(world, ended[1]["save_pause_seconds"] > 0 and ended[1]["save_wait_seconds"] >= 0)
    check(world, "save_pause_seconds" not in ended[0])


def test_a_copy_that_does_not_fit_is_refused(world, folder, monkeypatch):
    """Before the first step, on every rank."""
    monkeypatch.setattr(snapshot, "memory_bytes", lambda run: 1 << 60)
    options = {"checkpoint": str(folder), "async_save": True, "progress": "none"}
    with pytest.raises(ConfigurationError, match=r"--async-save: expected .* of memory"):
        train(Config(epochs=1, **options), world)


class _Memory(QuietHook):
    """What was predicted for the copy, and what Linux counts on all ranks together."""

    def __init__(self) -> None:
        self.predicted, self.measured = 0, 0.0

    def before_epoch(self, run) -> None:
        self.predicted = memory_forecast.forecast(run).shared.get("snapshot", 0)
        run.world.host_barrier()
        own = np.array([float(shared_bytes().get("snapshot", 0))])
        run.world.host_barrier()
        self.measured = float(run.world.sum(own)[0])


def test_the_copy_takes_what_is_predicted(world, folder):
    """Parameters and two vectors of state, once; nothing without the option."""
    options = {"hidden": (1024, 512), "epochs": 1, "optimizer": "adam", "progress": "none"}
    look, without = _Memory(), _Memory()
    config = Config(**options, checkpoint=str(folder), async_save=True)
    train(config, world, hooks=[look])
    train(Config(**options), world, hooks=[without])
    count = 64 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 10 + 10
    check(world, 3 * 4 * count <= look.predicted <= 3 * 4 * count + 3 * (2 << 20))
    check(world, abs(look.measured - look.predicted) <= 1 << 16, str(look.measured))
    check(world, without.predicted == 0 == without.measured)


@pytest.mark.parametrize(
    ("strategy", "compress"), [("sync", "none"), ("local", "none"), ("sync", "topk:0.05")]
)
def test_what_is_not_finite_is_not_written(world, folder, strategy, compress, monkeypatch):
    """It is found while it is copied: the run ends, or goes back, and the file has what it went back to, residuals of other hosts too."""
    if compress != "none":
        if world.size == 1:
            pytest.skip("one rank has no other host")
        world = on_hosts(world, [rank % 2 for rank in range(world.size)])
    options = {
        "epochs": 1,
        "checkpoint_steps": 6,
        "keep": 99,
        "progress": "none",
        "strategy": strategy,
        "compress": compress,
    }
    after_step, spoiled = Checkpoints.after_step, set()

    def spoiling(hook, run):
        if run.step == 12 and run.config.checkpoint not in spoiled:
            spoiled.add(run.config.checkpoint)
            run.strategy.finish()
            run.world.agree(None)
            run.strategy.parameters[-1] = np.nan
        after_step(hook, run)

    monkeypatch.setattr(Checkpoints, "after_step", spoiling)
    with pytest.raises(ConfigurationError, match="the parameters became infinite or no numbers"):
        train(Config(**options, checkpoint=str(folder / "a"), async_save=True), world)
    world.host_barrier()
    check(world, [path.name for path in (folder / "a").glob("*.h5")] == ["step-00000006.h5"])
    options |= {"checkpoint": str(folder / "b"), "async_save": True, "on_nan": "rollback"}
    ended = train(Config(**options), world)
    check(world, ended["rollbacks"] == 1)
    world.host_barrier()
    before, after = (_content(folder / "b" / f"step-{step:08d}.h5") for step in (6, 12))
    names = [name for name in before if name.startswith(("parameters/", "optimizer/"))]
    check(world, len(names) > 3 and all(before[name] == after[name] for name in names))


def test_a_signal_at_the_last_step_of_an_epoch(world, folder, monkeypatch):
    """The epoch's checkpoint is the last: it is written at once, and tried again where the disk is full for a moment."""
    write, calls = checkpoint_folder.write_file, []

    def write_later(path, checkpoint):
        calls.append(threading.current_thread() is threading.main_thread())
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, checkpoint)

    monkeypatch.setattr(checkpoint_folder, "write_file", write_later)
    monkeypatch.setattr(Stopping, "is_due", lambda stopping, step: step == 18)
    options = {"epochs": 2, "progress": "none", "checkpoint": str(folder), "async_save": True}
    with refused(world, Preempted, "stopped after step 18, in epoch 1; saved"):
        train(Config(**options), world)
    with together(world):
        assert [path.name for path in folder.iterdir()] == ["step-00000018.h5"]
        assert calls == ([True, True] if world.rank == 0 else [])
