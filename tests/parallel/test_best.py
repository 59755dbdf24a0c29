"""The best epoch: the same on any ranks, kept in a file, given back, and found again by a run that goes on."""

import json
import shutil

import pytest

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint, owned_folder
from lepton_mpi.run.fit import train
from lepton_mpi.strategies.strategy_options import DilocoOptions
from lepton_mpi.vectors import Layout
from tests.parallel.together import check, equal_everywhere, refused, together


def _config(folder, **options) -> Config:
    """The digits, with a rate at which validation ceases to improve after a dozen epochs."""
    usual = {"progress": "none", "epochs": 30, "learning_rate": 0.02, "keep_best": "loss"}
    return Config(**usual | {"checkpoint": str(folder / "runs")} | options)


def _lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_epoch_is_that_of_the_metrics(world, folder):
    """By a plain loop over the run's own lines: which epoch, when the run ends, and what stands in the file."""
    metrics = folder / "m.jsonl"
    config = _config(
        folder, early_stop="3,0.005", restore_best=True, metrics=str(metrics), schedule="step"
    )
    result = train(config, world)
    equal_everywhere(world, (result["weights_digest"], result["best_epoch"], result["best_value"]))
    with together(world):
        losses = [line["val_loss"] for line in _lines(metrics) if line["event"] == "epoch"]
        reference, waited = losses[0], 0
        for number, loss in enumerate(losses[1:], 2):
            assert waited < 3, f"went on after epoch {number - 1}"
            reference, waited = (loss, 0) if loss < reference - 0.005 else (reference, waited + 1)
        assert waited == 3 and len(losses) < 30
        assert result["best_epoch"] == 1 + losses.index(min(losses)) < len(losses)
        assert result["best_value"] == min(losses)
        saved = checkpoint.load(folder / "runs" / "best.h5")
        assert saved.attributes["weights_digest"] == result["weights_digest"]
        assert saved.attributes["epoch"] == result["best_epoch"]


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("strategy", ["sync", "local", "elastic", "delayed", "bounded"])
def test_parameters_are_put_back_with_every_strategy(world, folder, strategy):
    """Those of the file are what is tested and returned."""
    config = _config(folder, strategy=strategy, epochs=6, learning_rate=0.05, restore_best=True)
    result = train(config, world)
    with together(world):
        saved = checkpoint.load(folder / "runs" / "best.h5")
        assert saved.attributes["weights_digest"] == result["weights_digest"]
        views = saved.layout.views(saved.parameters)
        for name, array in result["parameters"].items():
            assert (views[name] == array).all(), name


@pytest.mark.slow
def test_a_run_that_goes_on_finds_the_same(world, folder):
    """It stops after five epochs, goes on in another folder, and has the end of one that did not stop."""
    words = {"early_stop": "4", "restore_best": True, "learning_rate": 0.01}
    whole = train(_config(folder, **words), world)
    parts = _config(folder, checkpoint=str(folder / "a"), **words | {"epochs": 5})
    first = train(parts, world)
    moved = folder / "b"
    if world.rank == 0:
        shutil.copytree(folder / "a", moved)
    world.comm.Barrier()
    rest = _config(folder, checkpoint=str(moved), resume=str(moved), **words)
    second = train(rest, world)
    with together(world):
        assert first["best_epoch"] <= 5
        for name in ("best_epoch", "best_value", "weights_digest"):
            assert second[name] == whole[name], name
    again = train(rest, world)
    check(world, again["weights_digest"] == whole["weights_digest"], "a third start trained on")


def test_a_file_of_an_epoch_that_is_trained_again_counts_nothing_anew(world, folder):
    """As after a loss, or a kill behind best.h5: the run goes on from before that epoch, with the rate and the patience of then."""
    words = {"schedule": "plateau", "schedule_epochs": 1, "schedule_factor": 0.3, "epochs": 12}
    words |= {"learning_rate": 0.1, "keep": 99, "restore_best": True, "early_stop": "6"}
    whole = train(_config(folder, **words), world)
    before = folder / "runs" / f"step-{18 * (whole['best_epoch'] - 1):08d}.h5"
    with together(world):
        found = json.loads(checkpoint.load(before).attributes["best"])
        assert found["part"] < 1.0 and 0 < found["epoch"] < whole["best_epoch"] - 1
    again = train(_config(folder, resume=str(before), **words), world)
    with together(world):
        for name in ("best_epoch", "best_value", "weights_digest"):
            assert again[name] == whole[name], name


def test_a_lost_file_is_said(world, folder, capfd):
    """The run counts anew, since it could not put the parameters back."""
    train(_config(folder, epochs=2), world)
    if world.rank == 0:
        (folder / "runs" / "best.h5").unlink()
    world.comm.Barrier()
    words = {"epochs": 3, "resume": str(folder / "runs"), "progress": "plain"}
    result = train(_config(folder, **words), world)
    text = capfd.readouterr().out
    with together(world):
        assert result["best_epoch"] == 3
        assert world.rank or "counts anew" in text


def test_a_lost_file_raises_no_rate(world, folder):
    """What a plateau has made of the learning rate stays, and so do the epochs without a better one."""
    words = {"schedule": "plateau", "schedule_epochs": 1, "schedule_factor": 0.3, "epochs": 8}
    words |= {"learning_rate": 0.1, "early_stop": "9"}
    train(_config(folder, **words), world)
    if world.rank == 0:
        (folder / "runs" / "best.h5").unlink()
    world.comm.Barrier()
    metrics = folder / "m.jsonl"
    words |= {"epochs": 9, "resume": str(folder / "runs"), "metrics": str(metrics)}
    train(_config(folder, **words), world)
    with together(world):
        (rate,) = [line["learning_rate"] for line in _lines(metrics) if line["event"] == "epoch"]
        assert rate < 0.1


def test_what_cannot_decide_is_refused(world, folder):
    """Before the first step, on all ranks."""
    with refused(world, ConfigurationError, "--keep-best", "accuracy", "got acuracy"):
        train(_config(folder, keep_best="acuracy"), world)
    with refused(world, ConfigurationError, "validation rows", "--validation-split"):
        train(_config(folder, validation_split=0.0), world)


def test_another_runs_file_is_not_put_back(world, folder, monkeypatch):
    """Two runs in one folder: the parameters of the other are not taken for the best."""
    train(_config(folder, epochs=1), world)
    other = folder / "runs" / "best.h5"
    save = owned_folder.save_as

    def overwritten(path, saved, mark):
        save(path, saved, mark)
        shutil.copyfile(folder / "other.h5", path)

    if world.rank == 0:
        shutil.copyfile(other, folder / "other.h5")
    world.comm.Barrier()
    monkeypatch.setattr(owned_folder, "save_as", overwritten)
    with refused(world, DataError, "best.h5", "another run"):
        train(_config(folder, epochs=3, restore_best=True, seed=1), world)


def test_a_plateau_lowers_the_rate_and_is_resumed(world, folder):
    """The rate of every epoch follows from the losses before it, also over a stop."""
    words = {"schedule": "plateau", "schedule_epochs": 1, "schedule_factor": 0.5, "epochs": 12}
    words |= {"learning_rate": 0.05}
    whole = train(_config(folder, metrics=str(folder / "m.jsonl"), **words), world)
    with together(world):
        lines = [line for line in _lines(folder / "m.jsonl") if line["event"] == "epoch"]
        least, flat, rate = float("inf"), 0, 0.05
        for line in lines:
            assert line["learning_rate"] == pytest.approx(rate, rel=1e-12)
            flat = 0 if line["val_loss"] < least else flat + 1
            least = min(least, line["val_loss"])
            rate, flat = (rate / 2, 0) if flat > 1 else (rate, flat)
        assert rate < 0.05
    apart = {"checkpoint": str(folder / "apart")} | words
    train(_config(folder, **apart | {"epochs": 7}), world)
    second = train(_config(folder, resume=str(folder / "apart"), **apart), world)
    check(world, second["weights_digest"] == whole["weights_digest"])


def test_workers_that_stay_apart_meet_at_an_early_end(world, folder):
    """Of diloco across epochs, which pauses at the end of each: all ranks end with the same parameters."""
    own = {"strategy": DilocoOptions(sync_every=50, across_epochs=True)}
    words = {"keep_best": None, "checkpoint": None, "early_stop": "1", "learning_rate": 0.05}
    result = train(_config(folder, strategy="diloco", own=own, **words), world)
    equal_everywhere(world, result["weights_digest"])
    check(world, result["best_epoch"] < 30, "did not end early")


def test_parameters_are_hashed_once_an_epoch(world, folder, monkeypatch):
    """For the best epoch's file and the epoch's own alike; once more where the run begins and ends; and every file has the digest of its parameters."""
    hashed, digest = [], Layout.digest
    monkeypatch.setattr(
        Layout, "digest", lambda self, vector: hashed.append(1) or digest(self, vector)
    )
    result = train(_config(folder, epochs=2), world, keeps_parameters=False)
    with together(world):
        assert len(hashed) == (4 if world.rank == 0 else 2) and "parameters" not in result
        files = sorted((folder / "runs").iterdir())
        assert [file.name[:4] for file in files] == ["best", "step", "step"]
        for file in files:
            saved = checkpoint.load(file)
            written = digest(saved.layout, saved.parameters)
            assert saved.attributes["weights_digest"] == written, file
