"""Codes of one file mean nothing in another: a checkpoint knows its own, and evaluation and runs that go on refuse others."""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest

from lepton_mpi.commands.evaluate import evaluate_checkpoint
from lepton_mpi.commands.prepare import with_newest_checkpoint
from lepton_mpi.data.encodings import Encodings
from lepton_mpi.data.files import probe
from lepton_mpi.errors import DataError
from lepton_mpi.options.config import Config
from lepton_mpi.prepare import options, pipeline
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.fit import train
from tests.parallel.together import check, refused, together
from tests.serial.raw_files import write_csv

NAMES = ("colour", "noise", "buys")


@pytest.fixture(autouse=True)
def _unprobed(monkeypatch):
    """All files are this module's own; a look at each would take 0.1 s."""
    monkeypatch.setattr(probe, "check", lambda path, *_: None)


@dataclasses.dataclass
class Shop:
    """A folder with the tables of a shop; ``prepare`` and ``train`` are called on all ranks."""

    world: object
    folder: object

    def table(self, name, columns, rows):
        """A CSV file of these columns, by their names."""
        if self.world.rank == 0:
            write_csv(self.folder / name, [[row[c] for c in columns] for row in rows], *columns)
        self.world.comm.Barrier()
        return self.folder / name

    def prepare(self, *words):
        """Returns the path of the output, which is the second word."""
        chosen = options.parse([str(word) for word in words])
        pipeline.prepare(with_newest_checkpoint(chosen, self.world), self.world)
        return words[1]

    def config(self, data, **more):
        common = {"epochs": 12, "global_batch": 40, "hidden": (8,), "learning_rate": 0.02}
        return Config(**common | {"data": (str(data),), "progress": "none"} | more)

    def train(self, data, runs, **more):
        return train(self.config(data, checkpoint=str(runs), **more), self.world)


@pytest.fixture
def shop(world, folder):
    return Shop(world, folder)


def _rows(colours, count, seed=0):
    """Who buys is told by the colour alone."""
    random = np.random.default_rng(seed)
    colour, noise = random.choice(colours, count), random.normal(size=count)
    return [
        {"colour": c, "noise": f"{n:.4f}", "buys": "yes" if c == "red" else "no"}
        for c, n in zip(colour, noise, strict=True)
    ]


def _evaluated(world, capsys, runs, data, split="test"):
    """The lines that are printed on rank 0."""
    capsys.readouterr()
    evaluate_checkpoint(runs, str(data), split, world)
    return capsys.readouterr().out.splitlines() if world.rank == 0 else []


def _changed(shop, data, name, change):
    """A copy with something changed by rank 0."""
    if shop.world.rank == 0:
        shutil.copy(data, shop.folder / name)
        with h5py.File(shop.folder / name, "r+") as file:
            change(file)
    shop.world.comm.Barrier()
    return shop.folder / name


def test_new_rows_get_the_codes_of_the_rows_that_were_trained_on(world, folder, shop, capsys):
    """By the data file or by the checkpoint; codes of their own are refused by name, on every rank."""
    table = shop.table("shop.csv", NAMES, _rows(["blue", "green", "red"], 500))
    new = shop.table("new.csv", NAMES, _rows(["green", "red"], 200, 1))
    data, runs = shop.prepare(table, folder / "shop.h5", "--label", "buys"), folder / "runs"
    result = shop.train(data, runs)
    check(world, result["test_accuracy"] == 1.0)
    newest = checkpoint_folder.newest_first(runs)[0]
    for number, (source, like) in enumerate([(new, data), (new, newest), (f"test={new}", runs / newest.name)]):  # fmt: skip
        made = shop.prepare(source, folder / f"like{number}.h5", "--like", like)
        lines = _evaluated(world, capsys, runs, made)
        check(world, world.rank > 0 or ("accuracy 1.0000" in lines[1] and len(lines) == 4), lines)
    own = shop.prepare(new, folder / "own.h5", "--label", "buys")
    words = (
        f"own.h5: expected the codes of {newest}, got others: columns: 'colour=blue', 'colour=green', 'colour=red' missing, "
        "'colour' unknown",
        f"python -m lepton_mpi prepare NEW OUT.h5 --like {newest}",
    )
    with refused(world, DataError, *words):
        evaluate_checkpoint(runs, str(own), "train", world)
    with refused(world, DataError, *words):
        train(shop.config(own, resume=str(runs), epochs=13), world)
    scored = shop.table("scored.csv", NAMES[:2], _rows(["green", "red"], 50, 2))
    made = shop.prepare(scored, folder / "scored.h5", "--like", newest)
    with refused(world, DataError, "scored.h5: expected labels to compare with, got rows without"):
        evaluate_checkpoint(runs, str(made), "test", world)


def test_like_takes_the_newest_checkpoint_of_a_folder(world, folder, shop):
    """That is whole, as evaluate and --resume do; a folder without any is refused on all ranks."""
    table = shop.table("shop.csv", NAMES, _rows(["blue", "green", "red"], 200))
    shop.train(shop.prepare(table, folder / "shop.h5", "--label", "buys"), folder / "runs")
    new = shop.table("new.csv", NAMES[:2], _rows(["green", "red"], 50, seed=1))
    by_folder = shop.prepare(new, folder / "a.h5", "--like", folder / "runs")
    newest = checkpoint_folder.newest_first(folder / "runs")[0]
    by_file = shop.prepare(new, folder / "b.h5", "--like", newest)
    with h5py.File(by_folder) as mine, h5py.File(by_file) as its, together(world):
        assert mine["test/x"].shape == (50, 4)
        np.testing.assert_array_equal(mine["test/x"][()], its["test/x"][()])
    with refused(world, DataError, "expected a checkpoint that is whole, got none"):
        shop.prepare(new, folder / "c.h5", "--like", folder)


def test_the_same_shapes_with_other_names_are_refused(world, folder, shop, capsys):
    """Classes swapped, columns swapped, other categories; data without names are compared by shape, which is said."""
    rows = _rows(["blue", "red"], 400)
    table = shop.table("shop.csv", NAMES, rows)
    data, runs = shop.prepare(table, folder / "shop.h5", "--label", "buys"), folder / "runs"
    shop.train(data, runs)
    turned = shop.table("turned.csv", ("noise", "colour", "buys"), rows)
    columns = shop.prepare(turned, folder / "turned.h5", "--label", "buys")
    pink = [row | {"colour": row["colour"].replace("blue", "pink")} for row in rows]
    other = shop.prepare(shop.table("pink.csv", NAMES, pink), folder / "pink.h5", "--label", "buys")
    classes = _changed(shop, data, "classes.h5", lambda f: f.attrs.update(classes=["yes", "no"]))  # fmt: skip
    for path, words in (
        (columns, "columns: the same in another order, number 0 is 'colour' there and 'noise' here"),
        (other, "categories of column 'colour': 'blue' missing, 'pink' unknown"),
        (classes, "classes: the same in another order, number 0 is 'no' there and 'yes' here"),
    ):  # fmt: skip
        with refused(world, DataError, f"{path.name}: expected the codes of", words):
            evaluate_checkpoint(runs, str(path), "test", world)
        with refused(world, DataError, f"{path.name}: expected the codes of", words):
            train(shop.config(path, resume=str(runs), epochs=13), world)

    def plain(file):
        del file["about"], file.attrs["classes"], file.attrs["format"]

    lines = _evaluated(world, capsys, runs, _changed(shop, data, "plain.h5", plain))
    newest = checkpoint_folder.newest_first(runs)[0]
    with together(world):
        if world.rank == 0:
            assert lines[1] == f"plain.h5 does not name its columns and classes, as {newest} does: compared by shape alone"  # fmt: skip
            assert "accuracy 1.0000" in lines[2]
    capsys.readouterr()
    train(shop.config(other, initial=str(newest), epochs=1, progress="plain"), world)
    with together(world):
        said = f"initial   begins with the parameters of {newest}, of other codes than pink.h5: categories of column"  # fmt: skip
        assert world.rank > 0 or said in capsys.readouterr().out
    _check_old(world, shop, runs, data, capsys)


def _check_old(world, shop, runs, data, capsys):
    """A checkpoint of a version that kept no names is read as ever, and it is said."""
    if world.rank == 0:
        found = checkpoint.load(checkpoint_folder.newest_first(runs)[0])
        checkpoint_folder.save(
            shop.folder / "old", dataclasses.replace(found, encodings=Encodings())
        )
    world.comm.Barrier()
    lines = _evaluated(world, capsys, shop.folder / "old", data)
    with together(world):
        if world.rank == 0:
            assert lines[1].endswith("has no names of columns and classes: compared by shape alone")
            assert "accuracy 1.0000" in lines[2]


def test_targets_are_those_of_the_checkpoint(world, folder, shop, capsys):
    """Figures are the same however new rows scale theirs; a run does not go on with another scale, nor another target."""
    random = np.random.default_rng(0)
    rows = [{"a": f"{a:.3f}", "price": round(1000 + 100 * a), "area": 7} for a in random.normal(size=200)]  # fmt: skip
    words = ("--label", "price", "--task", "regression")
    table = shop.table("house.csv", ("a", "price"), rows)
    data, runs = shop.prepare(table, folder / "house.h5", *words), folder / "runs"
    shop.train(data, runs, epochs=3)
    more = [row | {"price": 3 * row["price"]} for row in rows[:60]]
    new = shop.table("new.csv", ("a", "price"), more)
    like = shop.prepare(new, folder / "like.h5", "--like", data, "--split", "0.5,0,0.5")
    own = shop.prepare(new, folder / "own.h5", *words, "--split", "0.5,0,0.5")
    lines = [_evaluated(world, capsys, runs, path) for path in (like, own)]
    with together(world):
        if world.rank == 0:
            (first,), (second,) = (line[1:] for line in lines)
            assert "r2" in first and first.partition(":")[2] == second.partition(":")[2]
    with refused(
        world, DataError, "attribute target_scale: expected that of --data", "prepared anew"
    ):
        train(shop.config(own, resume=str(runs), epochs=4), world)
    area = [{"a": row["a"], "area": row["price"]} for row in rows]
    other = shop.table("area.csv", ("a", "area"), area)
    made = shop.prepare(other, folder / "area.h5", "--label", "area", "--task", "regression")
    for go_on in (
        lambda: evaluate_checkpoint(runs, str(made), "test", world),
        lambda: train(shop.config(made, resume=str(runs), epochs=4), world),
    ):
        with refused(world, DataError, "area.h5: expected the codes", "targets: 'price' missing, 'area' unknown"):  # fmt: skip
            go_on()
