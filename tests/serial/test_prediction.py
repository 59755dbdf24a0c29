"""``predict`` and ``lepton_mpi.load``: what evaluation counts is what is written; raw rows are those that ``prepare`` makes of them."""

import csv
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.prediction import frames
from lepton_mpi.prediction.files import npz_file
from lepton_mpi.prediction.request import Request
from lepton_mpi.prediction.streaming import predict
from lepton_mpi.prepare.readers import csv_dialect
from lepton_mpi.run import evaluation
from lepton_mpi.run.trained import load_trained
from lepton_mpi.tasks.registry import make_task
from lepton_mpi.world.alone import Alone
from tests.serial.data_files import write
from tests.serial.made_checkpoints import save_random
from tests.serial.raw_files import (
    digest,
    full_disk,
    images,
    prepare,
    write_csv,
    write_pictures,
    write_sounds,
)
from tests.serial.test_prepare_like import NAMES, WORDS, shop
from tests.serial.thread_ranks import on_ranks

OLD = Path(__file__).parents[1] / "checkpoints" / "digits-step-35.h5"


class Frame:
    """As little of a data frame as is needed."""

    def __init__(self, columns: dict):
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return self._columns[name]

    def __len__(self):
        return len(next(iter(self._columns.values())))


def run(checkpoint, *inputs, out, world=None, **more):
    """``predict`` in this process; returns the path."""
    asked = Request(
        checkpoint=str(checkpoint), inputs=tuple(map(str, inputs)), out=str(out), **more
    )
    predict(asked, world or Alone())
    return out


def _run_on(ranks, *words, **given):
    """``run`` on threads as ranks."""
    on_ranks(ranks, lambda world: run(*words, world=world, **given))


def records(path):
    """The lines of a CSV file by column."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def floats(rows, *names):
    return np.array([[float(row[name]) for name in names] for row in rows])


def shop_checkpoint(folder, *words, **options):
    """A checkpoint of the shop's table, and the file that it was made for."""
    table = write_csv(folder / "shop.csv", shop(), *NAMES)
    prepare(table, folder / "shop.h5", *WORDS, *words)
    return save_random(folder / "runs", folder / "shop.h5", hidden=(7,), **options)


# -- what evaluation counts --------------------------------------------------------------------------------

FAMILIES = [
    ("digits", {"model": "mlp", "hidden": (9,)}),
    ("digits", {"model": "mlp", "dtype": "float64", "hidden": ()}),
    ("breast_cancer", {"model": "logistic"}),
    ("digits", {"model": "cnn"}),
    ("digits", {"model": "resnet8"}),
    ("digits", {"model": "resnet18", "own": {"model": {"width": 4}}}),
    ("loans", {"model": "wide_and_deep", "own": {"model": {"norm": "batch"}}}),
    ("words", {"model": "speech_cnn"}),
    ("words", {"model": "speech_gru"}),
    ("words", {"model": "tcn"}),
]


def evaluated(checkpoint, split="test"):
    """Figures of ``evaluate``, and the true answers."""
    found = load_trained(checkpoint, None, Alone())
    rows, task = found.data.splits[split], make_task(found.data.y_kind, found.data)
    reader = BatchReader(found.data, evaluation.batch_rows(found.data))
    figures = evaluation.evaluate(found.model, found.parameters, rows, task, reader, Alone())
    y = rows.y[rows.indices]
    if found.data.target_count:
        return figures, found.data.target_scale.unscaled(y)
    return figures, np.array(found.data.class_names)[y]


@pytest.mark.parametrize(("data", "options"), FAMILIES, ids=lambda v: str(v)[:40])
def test_the_accuracy_of_what_is_written_is_that_of_evaluate(tmp_path, data, options):
    """Of every family of classes; the probabilities add up to 1, and the class has the largest."""
    checkpoint = save_random(tmp_path, data, **options)
    figures, true = evaluated(checkpoint)
    rows = records(run(checkpoint, data, out=tmp_path / "p.csv", split="test", proba=True))
    predicted = np.array([row["class"] for row in rows])
    assert [row["row"] for row in rows] == [str(i) for i in range(len(true))]
    assert (predicted == true).mean() == figures["accuracy"]
    names = [name for name in rows[0] if name.startswith("probability of ")]
    odds = floats(rows, *names)
    assert np.allclose(odds.sum(axis=1), 1, atol=1e-5)
    chosen = np.array([name.removeprefix("probability of ") for name in names])[odds.argmax(axis=1)]
    assert (chosen == predicted).all()
    assert len(set(predicted)) > 1


@pytest.mark.parametrize("way", ["standard", "log", "none"])
def test_targets_are_in_the_units_of_the_user(tmp_path, way):
    """Linear regression of two targets; their mean absolute errors are those of ``evaluate``."""
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3)).round(3)
    prices = np.column_stack([1000 + 50 * x[:, 0], 3 + x[:, 1] ** 2]).round(2)
    rows = np.column_stack([x, prices]).tolist()
    table = write_csv(tmp_path / "t.csv", rows, "a", "b", "c", "price", "size, in m")
    table.write_text(table.read_text().replace("size, in m", '"size, in m"'))
    words = ("--label", "price,4", "--task", "regression", "--target-scale", way)
    prepare(table, tmp_path / "t.h5", *words)
    checkpoint = save_random(tmp_path / "runs", tmp_path / "t.h5", hidden=())
    figures, true = evaluated(checkpoint)
    of_file = run(checkpoint, tmp_path / "t.h5", out=tmp_path / "p.csv", split="test")
    found = floats(records(of_file), "price", "size, in m")
    error = np.abs(found - true).mean()
    assert error == pytest.approx(figures["mae"], rel=1e-5), figures
    model = lepton_mpi.load(checkpoint)
    assert model.target_names == ("price", "size, in m") and model.classes_ is None
    everything = run(checkpoint, table, out=tmp_path / "q.csv")
    found = floats(records(everything), "price", "size, in m")
    assert model.predict(x).shape == (200, 2) and model.predict(x).dtype == np.float64
    assert np.allclose(model.predict(x), found, rtol=1e-7)
    with pytest.raises(ConfigurationError, match=r"--proba: expected a model of classes, got one of 2 targets"):  # fmt: skip
        model.predict_proba(x)


# -- raw rows ----------------------------------------------------------------------------------------------


def same_as_prepared(folder, checkpoint, *inputs, **more):
    """Predict raw inputs, and the file that ``prepare --like`` makes of them: the same answers in the same order."""
    prepare(*inputs, folder / "like.h5", "--like", checkpoint, "--force")
    with h5py.File(folder / "like.h5", "a") as file:
        assert set(file) >= {"test"}
    raw = records(run(checkpoint, *inputs, out=folder / "raw.csv", proba=True, force=True, **more))
    made = records(
        run(checkpoint, folder / "like.h5", out=folder / "made.csv", proba=True, force=True)
    )
    names = [name for name in made[0] if name not in ("row", "file")]
    assert [[row[name] for name in names] for row in raw] == [
        [row[name] for name in names] for row in made
    ]
    return raw


@pytest.mark.parametrize("words", [(), ("--categories", "codes"), ("--outliers", "zscore=1"), ("--constant-columns", "drop")])  # fmt: skip
def test_a_table_is_what_prepare_makes_of_it(tmp_path, words):
    """Dates, prices in another notation, gaps and categories; columns in another order and one more; label or none."""
    checkpoint = shop_checkpoint(tmp_path, *words)
    rows = [["x", *reversed(row)] for row in shop(150, 3)]
    table = write_csv(tmp_path / "new.csv", rows, "extra", *reversed(NAMES))
    labelled = same_as_prepared(tmp_path, checkpoint, table)
    without = write_csv(tmp_path / "w.csv", [row[:-1] for row in shop(150, 3)], *NAMES[:-1])
    bare = records(run(checkpoint, without, out=tmp_path / "w.out.csv", proba=True))
    assert bare == labelled and len(bare) == 150


def test_categories_in_an_input_of_their_own(tmp_path):
    checkpoint = shop_checkpoint(tmp_path, "--categories", "inputs", model="wide_and_deep")
    same_as_prepared(tmp_path, checkpoint, write_csv(tmp_path / "n.csv", shop(90, 4), *NAMES))


def test_features_far_from_0_keep_their_digits(tmp_path):
    """Seconds since 1970 that differ by a minute are one float32."""
    rows = [[1_700_000_000 + 60 * i, i % 2] for i in range(100)]
    table = write_csv(tmp_path / "t.csv", rows, "when", "label")
    prepare(table, tmp_path / "t.h5", "--split", "1")
    checkpoint = save_random(tmp_path / "runs", tmp_path / "t.h5", hidden=(5,))
    odds = lepton_mpi.load(checkpoint).predict_proba(np.array(rows)[:, :1])
    assert len(np.unique(odds[:, 0])) > 90
    same_as_prepared(tmp_path, checkpoint, table)


def test_images_need_no_folder_for_each_class(tmp_path):
    """Rows are named by their files; a folder, or the files themselves."""
    write_pictures(tmp_path / "train")
    words = ("--image-size", "5x5", "--split", "1")
    prepare(tmp_path / "train", tmp_path / "t.h5", *words)
    checkpoint = save_random(tmp_path / "runs", tmp_path / "t.h5", hidden=(8,))
    raw = same_as_prepared(tmp_path, checkpoint, tmp_path / "train")
    assert raw[0]["file"] == "kind0/000.png" and len(raw) == 24
    (tmp_path / "flat").mkdir()
    files = sorted((tmp_path / "train").rglob("*.png"))
    for path in files:
        (tmp_path / "flat" / path.name).write_bytes(path.read_bytes())
    flat = records(run(checkpoint, tmp_path / "flat", out=tmp_path / "f.csv"))
    assert {row["file"]: row["class"] for row in flat} == {Path(row["file"]).name: row["class"] for row in raw}  # fmt: skip
    one = records(run(checkpoint, files[3], files[9], out=tmp_path / "o.csv"))
    assert [row["class"] for row in one] == [raw[3]["class"], raw[9]["class"]]
    assert [row["file"] for row in one] == [str(files[3]), str(files[9])]
    assert (lepton_mpi.load(checkpoint).predict(tmp_path / "flat") == [r["class"] for r in flat]).all()  # fmt: skip
    (tmp_path / "flat" / "000.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000.png: not a readable image"):
        run(checkpoint, tmp_path / "flat", out=tmp_path / "g.csv")
    less = records(run(checkpoint, tmp_path / "flat", out=tmp_path / "g.csv", prepare="--unreadable drop"))  # fmt: skip
    assert [row["file"] for row in less] == [row["file"] for row in flat[1:]]
    assert [row["class"] for row in less] == [row["class"] for row in flat[1:]]


def test_sounds_arrays_and_texts(tmp_path):
    """Each encoded as its training file was."""
    write_sounds(tmp_path / "sounds")
    prepare(tmp_path / "sounds", tmp_path / "s.h5", "--seconds", "0.4", "--split", "1")
    checkpoint = save_random(tmp_path / "s", tmp_path / "s.h5", model="speech_cnn")
    raw = same_as_prepared(tmp_path, checkpoint, tmp_path / "sounds")
    assert raw[0]["file"] == "high/1.wav"
    x, y = images(90, (6, 5))
    np.savez(tmp_path / "a.npz", x=x, y=y)
    prepare(tmp_path / "a.npz", tmp_path / "a.h5")
    checkpoint = save_random(tmp_path / "a", tmp_path / "a.h5", hidden=(4,))
    np.savez(tmp_path / "b.npz", x=x, y=np.full(90, 0.5))  # labels that are none, and not looked at
    found = records(run(checkpoint, tmp_path / "b.npz", out=tmp_path / "b.csv"))
    np.save(tmp_path / "c.npy", x)
    assert records(run(checkpoint, tmp_path / "c.npy", out=tmp_path / "c.csv")) == found
    assert [int(row["class"]) for row in found] == lepton_mpi.load(checkpoint).predict(x).tolist()
    (tmp_path / "t.txt").write_text("the moon has risen, the golden stars are out\n" * 30)
    prepare(tmp_path / "t.txt", tmp_path / "t.h5", "--context", "8", "--normalise", "standard")
    checkpoint = save_random(tmp_path / "t", tmp_path / "t.h5", hidden=(6,))
    same_as_prepared(tmp_path, checkpoint, tmp_path / "t.txt")


# -- what is refused ---------------------------------------------------------------------------------------


def _shop_with(folder, row, column, cell):
    rows = shop(60, 2)
    rows[row][column] = cell
    return write_csv(folder / "new.csv", rows, *NAMES)


@pytest.mark.parametrize(
    ("row", "column", "cell", "words"),
    [
        (7, 2, "pink", "line 9, column 'colour': expected one of the 3 categories that the model knows, blue, green, red, got 'pink'; --unknown missing"),
        (11, 3, "12", "line 13, column 'size': expected one of the 2 categories that the model knows, l, s, got '12'"),
        (5, 4, "low", "line 7, column 'n': expected a number, got 'low'"),
        (5, 4, "1e999", "line 7, column 'n': expected a finite number, got inf"),
        (9, 1, '"some"', "line 11, column 'price': expected a number, got 'some'"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named_by_file_row_and_column(tmp_path, row, column, cell, words):
    """Whichever rank reads it, and nothing is left of the file."""
    checkpoint = shop_checkpoint(tmp_path)
    table = _shop_with(tmp_path, row, column, cell)
    for ranks in (1, 3):
        with pytest.raises(DataError, match=r"new.csv: " + words.replace("(", r"\(")):
            on_ranks(
                ranks,
                lambda world: run(
                    checkpoint, table, out=tmp_path / "p.csv", world=world, prepare="--block 300"
                ),
            )
    assert not [path for path in tmp_path.iterdir() if path.name.strip(".").startswith("p.csv")]


def test_unknown_categories_may_be_missing(tmp_path):
    """And are filled then as the training file says."""
    checkpoint = shop_checkpoint(tmp_path)
    table = _shop_with(tmp_path, 7, 2, "pink")
    found = records(run(checkpoint, table, out=tmp_path / "p.csv", unknown="missing", proba=True))
    gap = _shop_with(tmp_path, 7, 2, "")
    assert found == records(run(checkpoint, gap, out=tmp_path / "q.csv", proba=True))
    with pytest.raises(DataError, match=r"column 'colour'"):
        lepton_mpi.load(checkpoint).predict(_shop_with(tmp_path, 7, 2, "pink"))
    with pytest.warns(UserWarning, match="column 'colour': 1 cell .* taken as missing: 'pink'"):
        odds = lepton_mpi.load(checkpoint, unknown="missing").predict_proba(table)
    assert np.allclose(odds, floats(found, "probability of no", "probability of yes"), atol=1e-8)


def test_missing_cells_are_what_the_training_file_says(tmp_path):
    """An error where it was made without --missing; rows left out, whose numbers stay theirs, with --missing drop."""
    rows = [[i % 7, i % 5, i % 2] for i in range(60)]
    holes = [["" if i in (3, 41) else a, b, c] for i, (a, b, c) in enumerate(rows)]
    full = write_csv(tmp_path / "a.csv", rows, "a", "b", "label")
    gaps = write_csv(tmp_path / "b.csv", holes, "a", "b", "label")
    prepare(full, tmp_path / "a.h5")
    checkpoint = save_random(tmp_path / "runs", tmp_path / "a.h5")
    with pytest.raises(DataError, match=r"b.csv: line 5, column 'a': expected a value, got none; the training file"):  # fmt: skip
        run(checkpoint, gaps, out=tmp_path / "p.csv")
    prepare(gaps, tmp_path / "b.h5", "--missing", "drop")
    checkpoint = save_random(tmp_path / "dropped", tmp_path / "b.h5")
    for ranks in (1, 2):
        on_ranks(ranks, lambda w: run(checkpoint, gaps, out=tmp_path / "p.csv", world=w, force=True, prepare="--block 64"))  # fmt: skip
        numbers = [int(row["row"]) for row in records(tmp_path / "p.csv")]
        assert numbers == [i for i in range(60) if i not in (3, 41)]
    with pytest.raises(DataError, match=r"b.csv: line 5: expected values in all cells, got a missing"):  # fmt: skip
        lepton_mpi.load(checkpoint).predict(gaps)


def test_wrong_requests(tmp_path):
    """Each with what to do."""
    checkpoint = shop_checkpoint(tmp_path)
    table, data = tmp_path / "shop.csv", tmp_path / "shop.h5"
    cases = [
        (ConfigurationError, r"--out: expected a file that ends by .csv, .tsv, .parquet, .npz, .h5 or .hdf5, got .*p.txt", {"out": "p.txt"}),
        (LauncherError, "cannot write .*: no such folder", {"out": "none/p.csv"}),
        (ConfigurationError, "shop.csv exists; --force writes over it", {"out": "shop.csv"}),
        (ConfigurationError, "--embeddings: layer 'x': expected one of layer0, layer1", {"embeddings": "x"}),
        (ConfigurationError, "--key: expected a column beside the features, got 'n', which the model reads", {"key": "n"}),
        (ConfigurationError, "--key: .* has no column 'none'", {"key": "none"}),
        (ConfigurationError, "--split: is for prepared files, got .*shop.csv", {"split": "test"}),
        (ConfigurationError, "--prepare: expected options that say how inputs are read, got --label", {"prepare": "--label n"}),
        (ConfigurationError, "--normalise: is decided by .*step-00000001.h5", {"prepare": "--normalise none"}),
    ]  # fmt: skip
    for kind, words, given in cases:
        out = tmp_path / given.pop("out", "p.csv")
        with pytest.raises(kind, match=words):
            run(checkpoint, table, out=out, **given)
    with pytest.raises(ConfigurationError, match=r"--key: is for raw inputs, got .*shop.h5"):
        run(checkpoint, data, out=tmp_path / "p.csv", key="id")
    with pytest.raises(ConfigurationError, match=r"all files of prepare, or none"):
        run(checkpoint, data, table, out=tmp_path / "p.csv")
    with pytest.raises(ConfigurationError, match=r"shop2.csv has no column '(day|price)'"):
        run(checkpoint, write_csv(tmp_path / "shop2.csv", [[1, 2]], "a", "b"), out=tmp_path / "p.csv")  # fmt: skip
    np.save(tmp_path / "a.npy", np.zeros((3, 5)))
    with pytest.raises(
        ConfigurationError, match=r"is for csv, parquet, got inputs of format numpy"
    ):
        run(checkpoint, tmp_path / "a.npy", out=tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_a_model_of_texts_generates(tmp_path):
    (tmp_path / "t.txt").write_text("the moon has risen, the golden stars are out\n" * 30)
    prepare(tmp_path / "t.txt", tmp_path / "t.h5", "--stream", "--context", "16")
    own = {"model": {"width": 8, "heads": 2, "layers": 1}}
    checkpoint = save_random(tmp_path / "t", tmp_path / "t.h5", model="gpt", own=own)
    with pytest.raises(ConfigurationError, match=r"generate continues a text with it"):
        lepton_mpi.load(checkpoint)
    with pytest.raises(ConfigurationError, match=r"generate continues a text with it"):
        run(checkpoint, tmp_path / "t.txt", out=tmp_path / "p.csv")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    x, y = images(4000, (4, 4))
    np.savez(tmp_path / "a.npz", x=x, y=y)
    prepare(tmp_path / "a.npz", tmp_path / "a.h5")
    checkpoint = save_random(tmp_path / "a", tmp_path / "a.h5", hidden=(4,))
    for name in ("p.csv", "p.npz", "p.h5"):
        with full_disk(20_000), pytest.raises(LauncherError, match=f"cannot write .*{name}: "):
            run(checkpoint, tmp_path / "a.npz", out=tmp_path / name, proba=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".p", "p."))]


# -- old checkpoints, and those of files that prepare has not made -----------------------------------------


def test_a_checkpoint_of_an_earlier_version(tmp_path):
    """Of embedded digits, which are there; a file that is gone is asked for."""
    figures, _ = evaluated(OLD)
    model = lepton_mpi.load(OLD)
    found = load_trained(OLD, None, Alone())
    rows = found.data.splits["test"]
    x = np.array(h5py.File(found.data.paths[0])["test/x"])
    true = rows.y[rows.indices]
    predicted = model.predict(x)
    assert predicted.dtype == np.int64 and (predicted == true).mean() == figures["accuracy"]
    flat = x.reshape(len(x), -1)
    assert (model.predict(flat) == predicted).all()
    table = write_csv(tmp_path / "d.csv", flat.tolist(), *(f"pixel{i}" for i in range(64)))
    assert (model.predict(table) == predicted).all()
    assert (model.predict(Frame({f"p{i}": flat[:, i] for i in range(64)})) == predicted).all()
    with pytest.raises(DataError, match=r"expected rows of shape \(8, 8\)|expected a table of 64"):
        model.predict(write_csv(tmp_path / "e.csv", flat[:, 1:].tolist(), *(f"p{i}" for i in range(63))))  # fmt: skip


def test_data_that_are_gone_are_asked_for(tmp_path):
    """Where the checkpoint does not say how its rows are encoded; --like names another file of theirs."""
    checkpoint = shop_checkpoint(tmp_path)
    table = tmp_path / "shop.csv"
    expected = lepton_mpi.load(checkpoint).predict_proba(table)
    with h5py.File(checkpoint, "r") as file:
        assert "about/data" in file
    old = _without_encodings(checkpoint, tmp_path / "old")
    assert np.array_equal(lepton_mpi.load(old).predict_proba(table), expected)
    (tmp_path / "shop.h5").rename(tmp_path / "moved.h5")
    with pytest.raises(DataError, match=r"shop.h5.*does not keep what its data were: --like FILE"):
        lepton_mpi.load(old)
    model = lepton_mpi.load(old, like=tmp_path / "moved.h5")
    assert np.array_equal(model.predict_proba(table), expected)
    run(old, table, out=tmp_path / "p.csv", like=str(tmp_path / "moved.h5"))


def _without_encodings(checkpoint, folder):
    """The same as an earlier version has written it."""
    from dataclasses import replace

    from lepton_mpi.data.encodings import Encodings
    from lepton_mpi.run import checkpoint as files

    return files.save(folder, replace(files.load(checkpoint), encodings=Encodings()))


def test_inputs_that_prepare_has_not_made(tmp_path):
    """Codes mean nothing without their names, so a file of such rows is needed."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 3, (60, 2))
    contents = {"train/x": random.normal(size=(60, 2)), "train/y": codes[:, 0] % 2}
    data = write(tmp_path / "t.h5", contents)
    with h5py.File(data, "a") as file:
        made = file.create_dataset("train/inputs/categories", data=codes.astype("u1"))
        made.attrs["kind"], made.attrs["values"] = np.bytes_("categories"), (3, 3)
    checkpoint = save_random(tmp_path / "runs", data, model="wide_and_deep")
    with pytest.raises(DataError, match=r"expected a file of such rows to predict"):
        lepton_mpi.load(checkpoint).predict(np.zeros((2, 4)))


# -- the file ----------------------------------------------------------------------------------------------


def _read(path):
    """(key, class, probabilities) of any of the formats."""
    if path.suffix in (".csv", ".tsv"):
        with open(path, newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        assert head[:2] == ["na,me", "class"]
        return [r[0] for r in rows], [r[1] for r in rows], np.array([r[2:] for r in rows], "f4")
    if path.suffix == ".npz":
        with np.load(path) as found:
            assert 'probability of a "b", c' in found["probabilities_columns"].tolist()
            return found["key"].tolist(), found["class"].tolist(), found["probabilities"]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            texts = (file[name].asstr()[:].tolist() for name in ("key", "class"))
            assert b'probability of a "b", c' in file["probabilities"].attrs["columns"].tolist()
            return *texts, file["probabilities"][:]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path).to_pydict()
    key, classes, *odds = table.values()
    assert list(table)[:2] == ["na,me", "class"]
    return key, classes, np.array(odds, "f4").T


def test_all_formats_say_the_same_on_any_number_of_ranks(tmp_path):
    """Names with commas, quotes, line breaks and letters of other alphabets; the last bit of each number."""
    random = np.random.default_rng(0)
    names = ['"a ""b"", c"', '"two\nlines"', "Straße", "β"]
    rows = [[f'"k{i}, {"ä" * (i % 5)}"', *random.normal(size=2).round(3), names[i % 4]] for i in range(700)]  # fmt: skip
    table = write_csv(tmp_path / "t.csv", rows, '"na,me"', "u", "v", "label")
    prepare(table, tmp_path / "t.h5", "--drop-columns", "0")
    checkpoint = save_random(tmp_path / "runs", tmp_path / "t.h5", hidden=(6,))
    keys = [row[0].strip('"') for row in rows]
    model = lepton_mpi.load(checkpoint)
    classes, odds = model.predict(table).tolist(), model.predict_proba(table)
    assert len(set(classes)) > 1
    for suffix in ("csv", "tsv", "npz", "h5", "parquet"):
        if suffix == "parquet":
            pytest.importorskip("pyarrow")
        digests = set()
        for ranks in (1, 2, 3, 8):
            out = tmp_path / f"p.{suffix}"
            given = {"proba": True, "key": "na,me", "force": True, "prepare": "--block 1K"}
            _run_on(ranks, checkpoint, table, out=out, **given)
            digests.add(digest(out))
        assert len(digests) == 1, suffix
        found = _read(out)
        assert found[0] == keys and found[1] == classes, suffix
        assert np.array_equal(found[2], odds), suffix


def test_class_names_that_are_numbers_are_numbers(tmp_path):
    """And all rows of a prepared file are written with their split, in the order of the file."""
    checkpoint = save_random(tmp_path, "digits", hidden=(9,))
    with np.load(run(checkpoint, "digits", out=tmp_path / "p.npz")) as found:
        classes, splits, rows = found["class"], found["split"], found["row"]
    path = load_trained(checkpoint, None, Alone()).data.paths[0]
    with h5py.File(path) as file:
        x = np.concatenate([file["train/x"][:], file["test/x"][:]])
        train = len(file["train/x"])
    assert classes.dtype == np.int64 and (classes == lepton_mpi.load(checkpoint).predict(x)).all()
    assert (rows == np.arange(len(x))).all() and (splits[train:] == "test").all()
    # Validation rows were held out of the training rows, among which they stay.
    assert set(splits[:train]) == {"train", "validation"}


def test_an_input_without_rows_that_stay(tmp_path):
    """A file of a header alone is an error; rows that are all left out are none."""
    rows = [[i % 7, "" if i % 9 == 0 else i % 5, i % 2] for i in range(60)]
    prepare(write_csv(tmp_path / "a.csv", rows, "a", "b", "label"), tmp_path / "a.h5", "--missing", "drop")  # fmt: skip
    checkpoint = save_random(tmp_path / "runs", tmp_path / "a.h5")
    empty = write_csv(tmp_path / "b.csv", [[1, ""], [2, ""]], "a", "b")
    for suffix in ("csv", "npz", "h5"):
        out = tmp_path / f"p.{suffix}"
        _run_on(3, checkpoint, empty, out=out)
    assert (tmp_path / "p.csv").read_text() == "row,class\n"
    assert len(np.load(tmp_path / "p.npz")["class"]) == 0


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    """Every chunk is let go, and models keep memory for few lengths of batches."""
    # Of the sample that names the columns, which is the whole of a short file.
    monkeypatch.setattr(csv_dialect, "_HEAD_BYTES", 1 << 14)
    monkeypatch.setattr(npz_file, "_BYTES", 1 << 14)
    rows = [[i % 7, i % 5, i % 2] for i in range(20_000)]
    table = write_csv(tmp_path / "a.csv", rows, "a", "b", "label")
    prepare(table, tmp_path / "a.h5")
    checkpoint = save_random(tmp_path / "runs", tmp_path / "a.h5")
    peaks = []
    for copies in (1, 8):
        many = tmp_path / f"{copies}.csv"
        lines = table.read_text().splitlines(keepends=True)
        many.write_text(lines[0] + "".join(lines[1:]) * copies)
        del lines
        tracemalloc.start()
        run(checkpoint, many, out=tmp_path / "p.npz", force=True, prepare="--block 16K")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000, peaks


# -- a program ---------------------------------------------------------------------------------------------


def test_frames_and_arrays_are_read_as_files_are(tmp_path):
    """Numbers, texts, dates of NumPy, gaps of all kinds, columns in any order; blocks of any length."""
    checkpoint = shop_checkpoint(tmp_path)
    rows = shop(50, 5)
    table = write_csv(tmp_path / "n.csv", rows, *NAMES)
    model = lepton_mpi.load(checkpoint)
    assert model.feature_names == NAMES[:-1] and model.classes_.tolist() == ["no", "yes"]
    expected = model.predict_proba(table)
    columns = dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))
    columns["price"] = [price.strip('"') for price in columns["price"]]
    texts = {name: np.array(cells, object) for name, cells in columns.items()}
    assert np.array_equal(model.predict_proba(Frame(texts)), expected)
    typed = dict(reversed(texts.items())) | {"more": np.zeros(50)}
    typed["n"] = np.array([float(n) if n else np.nan for n in columns["n"]])
    days = ["-".join(reversed(day.split("/"))) for day in columns["day"]]
    typed["day"] = np.array(days, "datetime64[D]")
    typed["price"] = np.array([float(p.strip("$").replace(",", "")) for p in columns["price"]])
    assert np.array_equal(model.predict_proba(Frame(typed)), expected)
    holes = texts | {"n": np.array([float(n) if n else None for n in columns["n"]], object)}
    assert np.array_equal(model.predict_proba(Frame(holes)), expected)
    array = np.column_stack([texts[name] for name in NAMES[:-1]])
    assert np.array_equal(model.predict_proba(array), expected)
    assert np.array_equal(model.predict(array), model.classes_[expected.argmax(axis=1)])


def test_pandas_frames(tmp_path):
    """Categories, whole numbers with gaps, dates."""
    pandas = pytest.importorskip("pandas")
    checkpoint = shop_checkpoint(tmp_path)
    model, table = lepton_mpi.load(checkpoint), tmp_path / "shop.csv"
    expected = model.predict_proba(table)
    frame = pandas.read_csv(table)
    assert np.array_equal(model.predict_proba(frame), expected)
    frame["colour"] = frame["colour"].astype("category")
    frame["size"] = frame["size"].astype("string")
    frame["n"] = frame["n"].astype("Float64")
    frame["day"] = pandas.to_datetime(frame["day"], format="%d/%m/%Y")
    assert np.array_equal(model.predict_proba(frame.sample(frac=1, axis=1, random_state=1)), expected)  # fmt: skip
    part = frame[frame["n"].notna()]
    assert np.array_equal(model.predict_proba(part), expected[frame["n"].notna().to_numpy()])


def test_numbers_in_a_column_of_categories_are_texts(tmp_path):
    """Whole ones without a point, as a file has them, also where a gap has made floats of them."""
    rows = [[[10, 20, 30][i % 3], i % 4, i % 2] for i in range(60)]
    table = write_csv(tmp_path / "a.csv", rows, "zip", "b", "label")
    words = ("--categorical", "zip", "--missing", "mean")
    prepare(table, tmp_path / "a.h5", *words)
    checkpoint = save_random(tmp_path / "runs", tmp_path / "a.h5", hidden=(5,))
    model = lepton_mpi.load(checkpoint)
    expected = model.predict_proba(table)
    zips, b = np.array(rows)[:, 0], np.array(rows)[:, 1]
    for kind in (np.int64, np.float64, str, object):
        assert np.array_equal(model.predict_proba(Frame({"b": b, "zip": zips.astype(kind)})), expected)  # fmt: skip
    with pytest.raises(DataError, match=r"frame: row 1, column 'zip': expected one of the 3 categories .*, got '25'"):  # fmt: skip
        model.predict(Frame({"b": b[:2], "zip": np.array([10, 25])}))


def test_wrong_rows_of_a_program(tmp_path, monkeypatch):
    """Rows are counted over all blocks."""
    monkeypatch.setattr(frames, "BLOCK_ROWS", 4)
    monkeypatch.setattr("lepton_mpi.prediction.model.BLOCK_ROWS", 4)
    checkpoint = shop_checkpoint(tmp_path)
    model, (day, price, colour, size, n) = lepton_mpi.load(checkpoint), NAMES[:-1]
    columns = {day: ["03/04/2023"] * 9, price: ["$1"] * 9, colour: ["red"] * 9, size: ["l"] * 9, n: [1.0] * 9}  # fmt: skip
    good = {name: np.array(cells, object) for name, cells in columns.items()}
    assert model.predict(Frame(good)).shape == (9,)
    wrong = good | {colour: np.array(["red"] * 6 + ["pink"] + ["red"] * 2, object)}
    with pytest.raises(DataError, match=r"frame: row 6, column 'colour': .* got 'pink'"):
        model.predict(Frame(wrong))
    with pytest.raises(DataError, match=r"frame has no column 'size'.*its 4 columns are"):
        model.predict(Frame({name: good[name] for name in (day, price, colour, n)}))
    with pytest.raises(DataError, match=r"expected shape \(rows, 5\), day, price, .* got \(2, 4\)"):
        model.predict(np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"expected shape \(rows, 5\), with the columns day, .* got \(2, 4\)"):  # fmt: skip
        model.predict(np.full((2, 4), "a", object))
    with pytest.raises(DataError, match=r"column 'n': expected numbers or texts, got complex128"):
        model.predict(Frame(good | {n: np.zeros(9, complex)}))
    with pytest.raises(DataError, match=r"no such file"):
        model.predict(tmp_path / "none.csv")
    assert model.predict(Frame({name: cells[:0] for name, cells in good.items()})).shape == (0,)
    assert model.predict_proba(np.zeros((0, 5), object)).shape == (0, 2)
    with pytest.raises(ConfigurationError, match=r"unknown: expected error or missing"):
        lepton_mpi.load(checkpoint, unknown="what")
    with pytest.raises(DataError, match=r"no such checkpoint"):
        lepton_mpi.load(tmp_path / "none.h5")


def test_a_folder_is_its_newest_checkpoint(tmp_path, capsys):
    checkpoint = save_random(tmp_path, "digits", hidden=(9,))
    assert lepton_mpi.load(tmp_path).path == checkpoint and capsys.readouterr().out == ""


def test_embeddings_are_the_activations_of_a_layer(tmp_path):
    """Of a perceptron against NumPy; the same from a file."""
    checkpoint = save_random(tmp_path, "breast_cancer", hidden=(6,))
    found = load_trained(checkpoint, None, Alone())
    with h5py.File(found.data.paths[0]) as file:
        x = file["test/x"][:].astype(np.float64)
    shift, scale = found.data.normalisation
    weight, bias = (found.parameters[f"layer0/{name}"].astype(np.float64) for name in ("weight", "bias"))  # fmt: skip
    expected = np.maximum((x - shift) * scale @ weight + bias, 0)
    model = lepton_mpi.load(checkpoint)
    assert model.layers == ("layer0", "layer1")
    assert np.allclose(model.embeddings(x, "layer0"), expected, atol=1e-4)
    run(checkpoint, "breast_cancer", out=tmp_path / "e.npz", split="test", embeddings="layer0")
    with np.load(tmp_path / "e.npz") as written:
        assert written["embeddings_columns"].tolist() == [f"layer0 {i}" for i in range(6)]
        assert np.allclose(written["embeddings"], expected, atol=1e-4)
    with pytest.raises(ConfigurationError, match=r"layer 'x': expected one of layer0, layer1"):
        model.embeddings(x, "x")


def test_embeddings_of_a_convolution_and_of_categories(tmp_path):
    """Flattened, of every layer that is named."""
    checkpoint = save_random(tmp_path / "a", "digits", model="cnn")
    model, x = lepton_mpi.load(checkpoint), np.ones((3, 8, 8))
    for layer in model.layers:
        assert model.embeddings(x, layer).shape[0] == 3
    checkpoint = save_random(tmp_path / "b", "loans", model="wide_and_deep")
    layer = lepton_mpi.load(checkpoint).layers[-1]
    run(checkpoint, "loans", out=tmp_path / "p.h5", embeddings=layer, split="test")


_WITHOUT_MPI = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "mpi4py.MPI":
            raise ImportError("MPI is not to be started")

sys.meta_path.insert(0, Refuse())
import numpy as np
import lepton_mpi
model = lepton_mpi.load(sys.argv[1])
print(model.predict(np.zeros((2, 8, 8))).shape, model.predict(sys.argv[2]).shape, model.predict("digits").shape)
print([name for name in sys.modules if name.startswith("mpi4py")])
"""


def test_a_program_starts_no_mpi(tmp_path):
    """Where importing mpi4py.MPI fails, arrays, raw files and prepared ones are predicted."""
    checkpoint = save_random(tmp_path, "digits", hidden=(9,))
    np.save(tmp_path / "x.npy", np.zeros((5, 8, 8)))
    command = [sys.executable, "-c", _WITHOUT_MPI, str(checkpoint), str(tmp_path / "x.npy")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.stdout == "(2,) (5,) (1797,)\n[]\n", ended.stderr
