"""What codes stand for: kept to the last name, compared by name, and never believed of a stranger."""

import dataclasses
import json

import h5py
import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.data import loader
from lepton_mpi.data.encodings import Encodings, refusal
from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.run import checkpoint, checkpoint_folder
from tests.serial.data_files import OneRank, load
from tests.serial.made_checkpoints import small_checkpoint
from tests.serial.raw_files import prepare, write_csv

INPUTS = {"x": Input("numbers", (3,)), "categories": Input("categories", (2,), (4, 2))}
WHOLE = Encodings(
    INPUTS,
    **{"class_count": 2, "columns": ("a", "size", "c"), "input_columns": ("d", "e")},
    categories={"size": ("l", "s"), "d": ("ä", "b\n", "", "x" * 99)},
    class_names=("no", "yes"),
    vocabulary=(b"a", b"\xff\x00", "ä".encode()),
)
FITTED = {"target": {"shift": []}, "options": {"label": ["y"], "dates": ["a=dmy"]}, "fill": [1.5, None, 2]}  # fmt: skip


def _with(**changes):
    return dataclasses.replace(WHOLE, **changes)


def _prepared(**changes):
    return _with(prepared=json.dumps(FITTED | changes).encode())


@pytest.fixture(autouse=True)
def _unprobed(monkeypatch):
    """All files are this module's own; a look at each would take 0.1 s."""
    monkeypatch.setattr(probe, "check", lambda path, *_: None)


def test_a_checkpoint_keeps_them(tmp_path):
    """To the last byte of a token; and the weights' digest does not know of them."""
    saved = small_checkpoint(3)
    full = dataclasses.replace(saved, encodings=_prepared())
    found = [checkpoint.load(checkpoint_folder.save(tmp_path / n, c)) for n, c in (("a", saved), ("b", full))]  # fmt: skip
    assert found[1].encodings == full.encodings and found[0].encodings == Encodings()
    assert found[0].attributes["weights_digest"] == found[1].attributes["weights_digest"]
    assert checkpoint.read_attributes(tmp_path / "b" / "step-00000003.h5")[1] == full.encodings


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("data", b""),
        ("data", b"[]"),
        ("data", b"\xff"),
        ("data", b"[" * 100_000),
        ("data", WHOLE.as_json().replace(b'"version": 1', b'"version": 2')),
        ("data", WHOLE.as_json().replace(b'"numbers"', b'"letters"')),
        ("data", WHOLE.as_json().replace(b'"class_count": 2', b'"class_count": -2')),
        ("data", WHOLE.as_json().replace(b"[4, 2]", b"[4, 2, 1]")),
        ("data", WHOLE.as_json().replace(b'["no", "yes"]', b"[0, 1]")),
        ("encoding", b"{"),
        ("encoding", b"[1]"),
        ("encoding", b'{"options": 3}'),
        ("encoding", b"[" * 100_000),
    ],
)
def test_of_a_stranger_they_are_refused_in_one_line(tmp_path, place, text):
    path = checkpoint_folder.save(
        tmp_path, dataclasses.replace(small_checkpoint(3), encodings=_prepared())
    )
    with h5py.File(path, "r+") as file:
        del file[f"about/{place}"]
        file[f"about/{place}"] = np.frombuffer(text, np.uint8)
    with pytest.raises(DataError) as raised:
        checkpoint.read(path)
    assert str(raised.value).startswith(f"{path}: ") and str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (WHOLE, ""),
        (Encodings(), ""),
        (_with(columns=("c", "a", "size")), "columns: the same in another order, number 0 is 'a' there and 'c' here"),
        (_with(columns=("a", "s", "c")), "columns: 'size' missing, 's' unknown"),
        (_with(columns=("a", "size", "c", "c")), "columns: 3 expected, got 4"),
        (_with(input_columns=("d",)), "columns of categories: 'e' missing"),
        (_with(class_names=("yes", "no")), "classes: the same in another order, number 0 is 'no' there and 'yes' here"),
        (_with(class_names=("no", "yes", "\x1b[1m")), r"classes: '\x1b[1m' unknown"),
        (_with(vocabulary=(b"a", b"b", b"c")), r"tokens: '\xff\x00', 'ä' missing, 'b', 'c' unknown"),
        (_with(categories=WHOLE.categories | {"size": ("s", "l")}), "categories of column 'size': the same in another order"),
        (_with(categories={"d": WHOLE.categories["d"]}), "categories of column 'size': expected 'l', 's', got numbers"),
        (_with(categories=WHOLE.categories | {"c": ("k",)}), "categories of column 'c': expected numbers, got 'k'"),
        (_with(target_names=("price",)), ""),
    ],
)  # fmt: skip
def test_names_are_compared_where_both_have_them(other, words):
    text = refusal(WHOLE, other, "runs/a.h5")
    assert words in text and bool(text) == bool(words)
    assert text.isprintable() and "--like" not in text


def test_what_prepare_has_kept_is_compared_too():
    """Dates of the same column, read by another order; fills and bounds are no other codes, but to be known."""
    mdy = _prepared(options={"dates": ["a=mdy"]})
    text = refusal(_prepared(), mdy, "a.h5")
    assert "dates of column 'a': read as dmy there and as mdy here" in text
    assert text.endswith(
        ": python -m lepton_mpi prepare NEW OUT.h5 --like a.h5 gives new rows its codes"
    )
    assert not refusal(_prepared(), _prepared(fill=None), "a.h5")
    found = [_prepared().fitted_otherwise(o) for o in (_prepared(), _prepared(fill=None), _prepared(fill=[3.0]), _prepared(low=[0.0]))]  # fmt: skip
    assert found == [[], [], ["missing cells filled by other values"], ["numbers clipped to other bounds"]]  # fmt: skip


def test_files_of_one_data_set_must_have_the_same_codes(tmp_path):
    """By name; two files of equal shapes were trained on together before."""
    for name, colour in (("a", "blue"), ("b", "pink")):
        rows = [[colour if i % 3 else "red", i % 2] for i in range(40)]
        path = write_csv(tmp_path / f"{name}.csv", rows, "colour", "label")
        prepare(path, tmp_path / f"{name}.h5", "--normalise", "none")
    with pytest.raises(DataError, match=r"b\.h5: expected the codes of .*a\.h5, got others: categories of column 'colour'"):  # fmt: skip
        both = [str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]
        loader.load(both, loader.Wanted(np.dtype(np.float32)), OneRank())


# -- rows without labels -----------------------------------------------------------------------------


def _scored(tmp_path):
    wanted = loader.Wanted(np.dtype(np.float32), for_training=False)
    return loader.load(str(tmp_path / "new.h5"), wanted, OneRank())


@pytest.mark.parametrize("way", ["one-hot", "inputs"])
def test_a_table_without_the_label(tmp_path, way):
    """Gives a file of the same features, in the order of the table, without labels; also of categories apart."""
    rows = [[i, "rgb"[i % 3], ["no", "yes"][i % 2]] for i in range(60)]
    made = tmp_path / "a.h5"
    prepare(write_csv(tmp_path / "a.csv", rows, "n", "colour", "buys"), made, "--label", "buys", "--categories", way)  # fmt: skip
    new = write_csv(tmp_path / "new.csv", [row[1::-1] for row in rows[:20]], "colour", "n")
    facts = prepare(new, tmp_path / "new.h5", "--like", made, ranks=2)
    assert "no column 'buys': rows to be scored, written without labels" in facts["notes"]
    assert facts["splits"] == {"train": 0, "validation": 0, "test": 20}
    data = _scored(tmp_path)
    test = data.splits["test"]
    assert not data.has_labels and data.class_names == ("no", "yes") and data.y_kind == "classes"
    assert test.row_count == 20 and (test.y == -1).all()
    x = test.x if way == "one-hot" else test.inputs[0].memory
    assert np.array_equal(x[:, 0], np.arange(20))
    with pytest.raises(DataError, match="expected rows to train on, got none: the file has others"):
        load(tmp_path / "new.h5")
    for words in (("--split", "1,0,0"), ("--split", "0,1,0")):
        with pytest.raises(DataError, match="expected labels of rows to train on or to validate"):
            prepare(new, tmp_path / "b.h5", "--like", made, *words)
    with pytest.raises(ConfigurationError, match=r"--label: new\.csv has no column 'bought'"):
        prepare(new, tmp_path / "b.h5", "--like", made, "--label", "bought")


def test_targets_that_nobody_knows(tmp_path):
    """As many as the file of --like has, also where they are trained on as they are; one alone is not left out."""
    rows = [[i, 2 * i, 3 * i] for i in range(60)]
    words = ("--label", "p,q", "--task", "regression", "--target-scale", "none")
    prepare(write_csv(tmp_path / "a.csv", rows, "n", "p", "q"), tmp_path / "a.h5", *words)
    new = write_csv(tmp_path / "new.csv", [[row[0]] for row in rows], "n")
    prepare(new, tmp_path / "new.h5", "--like", tmp_path / "a.h5")
    data = _scored(tmp_path)
    assert data.target_count == 2 and data.y_kind == "targets" and not data.has_labels
    assert data.splits["test"].y.shape == (60, 2) and np.isnan(data.splits["test"].y).all()
    half = write_csv(tmp_path / "half.csv", [row[:2] for row in rows], "n", "p")
    with pytest.raises(ConfigurationError, match="has no column 'q'"):
        prepare(half, tmp_path / "half.h5", "--like", tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["npz", "npy", "h5"])
def test_arrays_without_labels(tmp_path, kind):
    """Of every reader of arrays."""
    x = np.random.default_rng(0).integers(0, 255, (30, 4, 5), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(30) % 3)
    prepare(tmp_path / "a.npz", tmp_path / "a.h5")
    path = tmp_path / f"raw.{kind}"
    if kind == "npz":
        np.savez(path, x=x[:9])
    elif kind == "npy":
        np.save(path, x[:9])
    else:
        with h5py.File(path, "w") as file:
            file["x"] = x[:9]
    facts = prepare(path, tmp_path / "new.h5", "--like", tmp_path / "a.h5", ranks=2)
    assert "no labels: rows to be scored, written without labels" in facts["notes"]
    data = _scored(tmp_path)
    assert np.array_equal(data.splits["test"].x.reshape(-1, 4, 5), x[:9]) and not data.has_labels


def test_files_for_testing_join_others(tmp_path):
    """``test=FILE`` alone, and beside a file of which nothing is said."""
    rows = [[i, i % 2] for i in range(40)]
    path = write_csv(tmp_path / "a.csv", rows, "n", "label")
    prepare(path, tmp_path / "a.h5")
    for words in ((f"test={path}",), (f"test={path}", path), (path, "--split", "0,0,1")):
        source, *rest = words
        inputs = [source, *(word for word in rest if word is path)]
        more = [word for word in rest if word is not path]
        facts = prepare(*inputs, tmp_path / "b.h5", "--like", tmp_path / "a.h5", "--force", *more)
        assert facts["splits"] == {"train": 0, "validation": 0, "test": 40 * len(inputs)}
