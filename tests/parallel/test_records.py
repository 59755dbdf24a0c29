"""``--csv``, ``--tensorboard`` and hooks of other trackers: a row for every epoch, with the figures of the run."""

import csv
import json
import sys
from types import SimpleNamespace

import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from lepton_mpi.run.per_rank import STEP_PHASES
from tests import pages
from tests.pages import ROOT
from tests.parallel.together import check, refused, together

_COLUMNS = [
    *("epoch", "step", "seconds", "samples_per_second", "loss", "accuracy", "val_loss"),
    *("val_accuracy", "learning_rate", "evaluation_seconds"),
    *(f"{name}_share" for name in STEP_PHASES),
]


def _config(folder, **options) -> Config:
    usual = {"progress": "none", "epochs": 3, "csv": str(folder / "t.csv")}
    return Config(**usual | {"checkpoint": str(folder / "runs")} | options)


def _rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_the_epochs_of_the_run(world, folder):
    """All digits of the figures; the shares of the phases are those of all ranks, and add up."""
    result = train(_config(folder, schedule="cosine"), world)
    with together(world):
        rows = _rows(folder / "t.csv")
        assert [list(row) for row in rows] == [_COLUMNS] * 3
        for row, epoch in zip(rows, result["history"], strict=True):
            for name in epoch.keys() - ({"seconds", "samples_per_second"} if world.rank else {}):
                assert float(row[name]) == epoch[name], name  # times are each rank's own
            assert sum(float(row[f"{name}_share"]) for name in STEP_PHASES) == pytest.approx(1.0)
        assert [int(row["step"]) for row in rows] == [18, 36, 54]


def test_a_run_that_goes_on_has_every_epoch_once(world, folder):
    """From the middle of epoch 2, of which a row was written; another table is refused on all ranks."""
    whole = train(_config(folder, csv=str(folder / "whole.csv")), world)
    parts = _config(folder, epochs=2, checkpoint=str(folder / "a"), checkpoint_steps=10)
    train(parts, world)
    (early,) = [path for path in (folder / "a").iterdir() if "00000030" in path.name] or [None]
    check(world, early is not None, f"no checkpoint of step 30: {list((folder / 'a').iterdir())}")
    rest = _config(folder, resume=str(early), checkpoint=None)
    train(rest, world)
    with together(world):
        rows, ones = _rows(folder / "t.csv"), _rows(folder / "whole.csv")
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        for row, one in zip(rows, ones, strict=True):
            for name in ("loss", "val_loss", "step", "learning_rate"):
                assert row[name] == one[name]
        assert float(rows[-1]["loss"]) == whole["history"][-1]["loss"]
    with refused(world, ConfigurationError, "--csv: expected a file that is new or empty"):
        train(_config(folder), world)


def test_tensorboard_has_them_too(world, folder):
    """One file, by rank 0."""
    pytest.importorskip("tensorboardX")
    train(_config(folder, tensorboard=str(folder / "tb"), epochs=1), world)
    check(world, len(list((folder / "tb").iterdir())) == 1, "not one file")


def test_trackers_of_the_readme_get_every_epoch(world, folder, monkeypatch):
    """The programs that the page shows, with libraries that only write down what they are told."""
    shown = pages.programs(ROOT / "lepton_mpi/run/README.md")
    for name in ("wandb", "mlflow"):
        told: list[tuple] = []

        def log(*words, to=told, **named):
            to.append((*words, *named.values()))

        job = SimpleNamespace(log=log, finish=lambda to=told: to.append(("end",)))
        library = SimpleNamespace(
            init=lambda project, config, job=job: log(json.dumps(config, default=str)) or job,
            start_run=lambda: None,
            log_params=log,
            log_metrics=log,
            end_run=lambda to=told: to.append(("end",)),
        )
        monkeypatch.setitem(sys.modules, name, library)
        program = folder / f"track_by_{name}.py"
        if world.rank == 0:
            program.write_text(shown[f"{name}_hook.py"])
        world.comm.Barrier()
        result = train(_config(folder, csv=None, epochs=2, hook=(f"{program}:Track",)), world)
        with together(world):
            if world.rank:
                assert not told
            else:
                assert len(told) == 4 and "global_batch" in str(told[0])
                for (figures, step), epoch in zip(told[1:3], result["history"], strict=True):
                    assert step == 18 * epoch["epoch"] and figures["val_loss"] == epoch["val_loss"]
                assert told[3] == ("end",)
