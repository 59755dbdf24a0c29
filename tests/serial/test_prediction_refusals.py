"""What ``predict`` refuses, and old checkpoints and those of files that ``prepare`` has not made."""

import h5py
import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.run.trained import load_trained
from lepton_mpi.world.alone import Alone
from tests.serial.data_files import write
from tests.serial.made_checkpoints import save_random
from tests.serial.predicted import OLD, Frame, evaluated, floats, records, run, shop_checkpoint
from tests.serial.raw_files import (
    full_disk,
    images,
    prepare,
    write_csv,
)
from tests.serial.test_prepare_like import NAMES, shop
from tests.serial.thread_ranks import on_ranks

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
    from lepton_mpi.run import checkpoint_folder

    return checkpoint_folder.save(folder, replace(files.load(checkpoint), encodings=Encodings()))


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
