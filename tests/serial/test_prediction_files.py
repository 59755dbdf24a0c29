"""The files that ``predict`` writes: the same in every format and on any number of ranks, at a memory that does not grow."""

import csv
import tracemalloc

import h5py
import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.prediction.files import npz_file
from lepton_mpi.prepare.readers import csv_dialect
from lepton_mpi.run.trained import load_trained
from lepton_mpi.world.alone import Alone
from tests.serial.made_checkpoints import save_random
from tests.serial.predicted import run, run_on
from tests.serial.raw_files import (
    digest,
    prepare,
    write_csv,
)


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
            run_on(ranks, checkpoint, table, out=out, **given)
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
        run_on(3, checkpoint, empty, out=out)
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
