"""``predict`` and ``lepton_mpi.load``: what evaluation counts is what is written; raw rows are those that ``prepare`` makes of them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.errors import ConfigurationError, DataError
from tests.serial.made_checkpoints import save_random
from tests.serial.predicted import evaluated, floats, records, run, shop_checkpoint
from tests.serial.raw_files import (
    images,
    prepare,
    write_csv,
    write_pictures,
    write_sounds,
)
from tests.serial.test_prepare_like import NAMES, shop

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


@pytest.mark.slow(but_every=4)
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
