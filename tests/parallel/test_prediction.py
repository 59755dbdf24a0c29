"""``predict`` on any number of ranks: what a training has learned, in the same bytes as one process writes them."""

import csv
import hashlib
import re

import numpy as np
import pytest

from lepton_mpi.commands.evaluate import evaluate_checkpoint
from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.config import Config
from lepton_mpi.prediction.request import Request
from lepton_mpi.prediction.streaming import predict
from lepton_mpi.prepare import options, pipeline
from lepton_mpi.run.fit import train
from lepton_mpi.world.alone import Alone
from tests.parallel.together import check, equal_everywhere, refused, together
from tests.serial.raw_files import write_csv

_ROWS = 700


@pytest.fixture(autouse=True)
def _unprobed(monkeypatch):
    """All files are this module's own; a look at each would take 0.1 s."""
    monkeypatch.setattr(probe, "check", lambda path, *_: None)


def _table(world, folder):
    """Who leaves is told by age and plan; some ages are missing."""
    if world.rank == 0:
        random = np.random.default_rng(0)
        age = random.normal(40, 10, _ROWS).round(1)
        plan = random.choice(["basic", "plus", "pro"], _ROWS)
        left = np.where((age > 40) | (plan == "pro"), "yes", "no")
        cells = ["" if i % 50 == 7 else value for i, value in enumerate(age.tolist())]
        rows = list(zip(range(_ROWS), cells, plan, left, strict=True))
        write_csv(folder / "t.csv", rows, "id", "age", "plan", "left")
    world.comm.Barrier()
    return folder / "t.csv"


def _predicted(world, *inputs, out, checkpoint, **more):
    """``out``, written by all ranks, and its digest, which is that of the file that rank 0 writes alone."""
    asked = {"checkpoint": str(checkpoint), "inputs": tuple(map(str, inputs)), **more}
    predict(Request(out=str(out), **asked), world)
    if world.rank == 0:
        alone = out.with_name(f"alone{out.suffix}")
        predict(Request(out=str(alone), force=True, **asked), Alone())
    world.comm.Barrier()
    same = world.rank > 0 or _digest(alone) == _digest(out)
    check(world, same, f"{out} on {world.size} ranks and on one differ")
    return out


def _digest(path):
    return hashlib.blake2b(path.read_bytes()).hexdigest()


def _records(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _evaluated(world, checkpoint, capsys):
    """The accuracy that ``evaluate`` prints, on every rank."""
    capsys.readouterr()
    evaluate_checkpoint(checkpoint, None, "test", world)
    found = re.search(r"accuracy ([\d.]+)", capsys.readouterr().out)
    return world.comm.bcast(found and float(found[1]))


@pytest.mark.parametrize(
    "words", [(), ("--categories", "inputs")], ids=["one-hot", "categories"]
)  # fmt: skip
def test_a_table_that_was_trained_on(world, folder, words, capsys):
    """Raw in small blocks, and prepared; the accuracy of the test rows is the one that is printed."""
    table, data = _table(world, folder), folder / "t.h5"
    given = (str(table), str(data), "--label", "left", "--drop-columns", "id", "--missing", "mean")
    pipeline.prepare(options.parse([*given, *words]), world)
    model = "wide_and_deep" if words else "mlp"
    common = {"epochs": 20, "global_batch": 32, "hidden": (8,), "learning_rate": 0.02}
    run = Config(data=(str(data),), model=model, progress="none", checkpoint=str(folder / "r"), **common)  # fmt: skip
    train(run, world)
    how = {"checkpoint": folder / "r", "proba": True}
    raw = _predicted(world, table, out=folder / "p.csv", key="id", prepare="--block 700", **how)
    made = _predicted(world, data, out=folder / "q.csv", **how)
    _predicted(world, table, out=folder / "p.npz", prepare="--block 700", **how)
    _predicted(world, table, out=folder / "p.h5", prepare="--block 700", **how)
    accuracy = _evaluated(world, folder / "r", capsys)
    with together(world):
        rows, true = _records(raw), [row["left"] for row in _records(table)]
        assert [row["id"] for row in rows] == [str(i) for i in range(_ROWS)]
        assert np.mean([row["class"] == y for row, y in zip(rows, true, strict=True)]) > 0.93
        import h5py

        with h5py.File(data) as file:
            names, y = file.attrs["classes"].astype(str), file["test/y"][:]
        tested = [row["class"] for row in _records(made) if row["split"] == "test"]
        assert round(float(np.mean(names[y] == np.array(tested))), 4) == accuracy
        odds = sorted(float(row["probability of yes"]) for row in rows)
        assert odds == sorted(float(row["probability of yes"]) for row in _records(made))


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("digits", {"model": "cnn"}),
        ("words", {"model": "speech_gru", "own": {"model": {"width": 8}}}),
        ("digits", {"hidden": (16,), "loader": "streamed"}),
    ],
    ids=str,
)
def test_embedded_sets(world, folder, data, options, capsys):
    """Prepared rows of images and sounds, and of a file that is streamed."""
    train(Config(data=(data,), epochs=1, progress="none", checkpoint=str(folder), **options), world)
    out = _predicted(world, data, out=folder / "p.csv", checkpoint=folder, split="test")
    _predicted(world, data, out=folder / "a.csv", checkpoint=folder, proba=True)
    accuracy = _evaluated(world, folder, capsys)
    with together(world):
        import h5py

        from lepton_mpi.data.files import hdf5

        with h5py.File(hdf5.locate(data)) as file:
            y, names = file["test/y"][:], file.attrs["classes"].astype(str)
        found = np.array([row["class"] for row in _records(out)])
        assert round(float(np.mean(names[y] == found)), 4) == accuracy


def test_refusals_are_everybodys(world, folder):
    """And leave no file."""
    table, data = _table(world, folder), folder / "t.h5"
    words = ("--label", "left", "--drop-columns", "id", "--missing", "mean")
    pipeline.prepare(options.parse([str(table), str(data), *words]), world)
    train(Config(data=(str(data),), epochs=1, progress="none", checkpoint=str(folder / "r")), world)
    if world.rank == 0:
        lines = table.read_text().splitlines()
        lines[600] = "599,31.5,gold,no"
        lines[400] = "399,old,pro,no"
        (folder / "w.csv").write_text("\n".join(lines) + "\n")
    world.comm.Barrier()
    asked = {"checkpoint": str(folder / "r"), "out": str(folder / "p.csv"), "inputs": (str(folder / "w.csv"),)}  # fmt: skip
    with refused(world, DataError, "w.csv: line 401, column 'age': expected a number, got 'old'"):
        predict(Request(**asked, prepare="--block 500"), world)
    with refused(world, ConfigurationError, "layer 'no': expected one of layer0"):
        predict(Request(**asked, embeddings="no"), world)
    with refused(world, DataError, "no such file"):
        predict(Request(**asked | {"inputs": ("none.csv",)}), world)
    left = sorted(path.name for path in folder.iterdir())
    equal_everywhere(world, left)
    check(world, not any("p.csv" in name for name in left), str(left))
