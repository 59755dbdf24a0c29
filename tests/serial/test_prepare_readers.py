"""Kinds of faults over all readers in which each can occur: what is asked, warned of, or right is the same in all of them."""

import h5py
import numpy as np
import pytest

from lepton_mpi.errors import DataError
from tests.serial.data_files import load, read_all
from tests.serial.every_reader import every_reader, every_reader_of_texts, name_of, rows_in
from tests.serial.raw_files import prepare
from tests.serial.test_prepare import rows_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 3)).round(3)
Y = np.arange(60) % 3
ALL = ("--split", "1", "--block", "400")


def names_of_classes(facts: dict) -> list[str]:
    return [one["name"] for one in facts["classes"]]


# -- features ----------------------------------------------------------------------------------------


@every_reader
def test_ids_are_warned_of_in_any_order(tmp_path, kind, capsys):
    """Counting ones, and shuffled ones, by name; numbers that repeat, and fractions, are none."""
    x = np.column_stack([X[:, 0], np.arange(60) + 7, RANDOM.permutation(60) + 1000, Y + 5])
    facts = prepare(*rows_in(kind, tmp_path, x, Y), tmp_path / "o.h5", *ALL, ranks=2)
    assert facts["counting"] == [name_of(kind, 1)] and facts["numbered"] == [name_of(kind, 2)]
    printed = capsys.readouterr().out
    assert f"warning: {name_of(kind, 2)!r} differ in every row as ids do" in printed
    assert (f"--drop-columns {name_of(kind, 2)}" in printed) == bool(facts["columns"])


@every_reader
def test_columns_of_one_value_are_told(tmp_path, kind, capsys):
    """By name where columns have names."""
    x = np.column_stack([X, np.full(60, 7.5)])
    facts = prepare(*rows_in(kind, tmp_path, x, Y), tmp_path / "o.h5", *ALL)
    assert facts["constant_units"] == 1
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("constant")]
    assert (repr(name_of(kind, 3)) in line) == bool(facts["columns"])


@every_reader
def test_gaps_are_an_error_until_something_says_what_to_do(tmp_path, kind):
    """Then the mean of the others stands there."""
    x = X.copy()
    x[[5, 31], 1] = np.nan
    words = (*rows_in(kind, tmp_path, x, Y), tmp_path / "o.h5", *ALL)
    with pytest.raises(DataError, match=r"expected a value, got none \(2 missing in all\)"):
        prepare(*words, ranks=2)
    prepare(*words, "--missing", "mean")
    filled = rows_of(tmp_path / "o.h5")["train"]
    expected = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    assert np.allclose(filled, expected, rtol=1e-15, atol=0)


@every_reader
def test_infinity_is_named(tmp_path, kind):
    """With its row."""
    x = X.copy()
    x[31, 1] = np.inf
    with pytest.raises(DataError, match=r"(line 33|row 31).*expected a finite number, got inf"):
        prepare(*rows_in(kind, tmp_path, x, Y), tmp_path / "o.h5", *ALL, ranks=2)


@every_reader
def test_large_numbers_that_differ_by_little_keep_their_digits(tmp_path, kind):
    """Seconds since 1970 a quarter apart: shifted in float64 before float32 rounds them."""
    x = np.column_stack([1_700_000_000 + np.arange(60) / 4, X[:, 0]])
    prepare(*rows_in(kind, tmp_path, x, Y), tmp_path / "o.h5", "--split", "1")
    stored, _ = read_all(load(tmp_path / "o.h5", np.float32), "train")
    expected = (x - x.mean(axis=0)) / x.std(axis=0)
    assert stored.dtype == np.float32 and np.abs(stored - expected).max() < 1e-6


# -- labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 255])
@every_reader
def test_a_number_that_stands_out_of_the_labels_is_asked_about(tmp_path, kind, value):
    """A class, or no label? Both answers work."""
    y = Y.copy()
    y[[5, 9]] = value
    words = (*rows_in(kind, tmp_path, X, y), tmp_path / "o.h5", *ALL)
    with pytest.raises(DataError, match=rf"{value} beside 0 to 2, in 2 rows: a class, or no label"):
        prepare(*words, ranks=2)
    facts = prepare(*words, f"--no-label={value}", "--missing", "drop")
    assert rows_of(tmp_path / "o.h5", "y")["train"].tolist() == np.delete(Y, [5, 9]).tolist()
    assert facts["dropped"] == {"without a label": 2}
    facts = prepare(*words, "--no-label", "none", "--force")
    assert names_of_classes(facts) == sorted(["0", "1", "2", str(value)], key=int)


@every_reader
def test_whole_numbers_that_may_be_targets_are_asked_about(tmp_path, kind):
    """Body masses of 94 values; both answers work."""
    mass = 2700 + 25 * np.concatenate([np.arange(94), RANDOM.integers(0, 94, 106)])
    x = RANDOM.normal(size=(200, 2)).round(3)
    words = (*rows_in(kind, tmp_path, x, mass), tmp_path / "o.h5", "--split", "1")
    expected = r"classes or targets\? 94 different values from 2700 to 5025 in 200 rows"
    with pytest.raises(DataError, match=expected):
        prepare(*words, ranks=2)
    assert len(prepare(*words, "--task", "classification")["classes"]) == 94
    prepare(*words, "--task", "regression", "--force")
    assert np.array_equal(rows_of(tmp_path / "o.h5", "y")["train"], mass)


@every_reader
def test_whole_floats_are_classes_and_fractions_are_asked_about(tmp_path, kind):
    """0.0 and 1.0 are classes; 0.5 is a target, if the user says so."""
    words = rows_in(kind, tmp_path, X, Y.astype(np.float64))
    facts = prepare(*words, tmp_path / "o.h5", *ALL)
    assert names_of_classes(facts) == ["0", "1", "2"]
    assert np.array_equal(rows_of(tmp_path / "o.h5", "y")["train"], Y)
    words = rows_in(kind, tmp_path, X, Y + 0.5)
    with pytest.raises(DataError, match=r"--task (classification or --task )?regression"):
        prepare(*words, tmp_path / "p.h5", *ALL, ranks=2)
    prepare(*words, tmp_path / "p.h5", *ALL, "--task", "regression")
    assert np.array_equal(rows_of(tmp_path / "p.h5", "y")["train"], Y + 0.5)


@every_reader
def test_rows_without_a_label_are_named(tmp_path, kind):
    """And dropped, if asked."""
    y = Y.astype(np.float64)
    y[[5, 9]] = np.nan
    words = (*rows_in(kind, tmp_path, X, y), tmp_path / "o.h5", *ALL)
    with pytest.raises(DataError, match=r"expected a label, got none \(2 missing in all\)"):
        prepare(*words, ranks=2)
    assert prepare(*words, "--missing", "drop")["dropped"] == {"without a label": 2}
    assert rows_of(tmp_path / "o.h5", "y")["train"].tolist() == np.delete(Y, [5, 9]).tolist()


@pytest.mark.parametrize("values", [(1, 2, 3), (10, 20, 40), (-2, 0, 7)])
@every_reader
def test_classes_keep_their_numbers(tmp_path, kind, values):
    """From 1, with gaps, below 0: there are as many classes as numbers."""
    words = rows_in(kind, tmp_path, X, np.array(values)[Y])
    facts = prepare(*words, tmp_path / "o.h5", *ALL)
    assert names_of_classes(facts) == list(map(str, values))
    assert np.array_equal(rows_of(tmp_path / "o.h5", "y")["train"], Y)


@every_reader
def test_small_classes_are_in_validation_and_test(tmp_path, kind):
    """Not both rows from one class."""
    facts = prepare(*rows_in(kind, tmp_path, X[:12], np.arange(12) % 2), tmp_path / "o.h5")
    assert [one["rows"] for one in facts["classes"]] == [[5, 1, 0], [5, 0, 1]]


@every_reader_of_texts
def test_texts_are_classes_by_name(tmp_path, kind, capsys):
    """Of the same names; spellings that differ in case alone are warned of."""
    names = np.array(["cat", "dog", "owl"])
    facts = prepare(*rows_in(kind, tmp_path, X, names[Y]), tmp_path / "o.h5", *ALL)
    assert names_of_classes(facts) == names.tolist() and facts["alike"] == {}
    assert np.array_equal(rows_of(tmp_path / "o.h5", "y")["train"], Y)
    spelt = names[Y].copy()
    spelt[[3, 9]] = "Cat"
    facts = prepare(*rows_in(kind, tmp_path, X, spelt), tmp_path / "p.h5", *ALL)
    assert facts["alike"] == {"": ["Cat", "cat"]} and len(facts["classes"]) == 4
    assert (
        "warning: classes: differ in case or blanks alone: 'Cat', 'cat'" in capsys.readouterr().out
    )


@every_reader_of_texts
def test_truth_values_are_two_classes(tmp_path, kind):
    """False first."""
    facts = prepare(*rows_in(kind, tmp_path, X, Y > 0), tmp_path / "o.h5", *ALL)
    assert names_of_classes(facts) in (["False", "True"], ["0", "1"])
    assert np.array_equal(rows_of(tmp_path / "o.h5", "y")["train"], Y > 0)


@every_reader_of_texts
def test_the_full_stops_of_uci(tmp_path, kind):
    """Of a test file only: they are the same classes."""
    names = np.array(["<=50K", ">50K"])[Y % 2]
    train = rows_in(kind, tmp_path / "train", X, names)
    test = rows_in(kind, tmp_path / "test", X, np.char.add(names, "."))
    if kind == "npy pair":
        train, test = ((x, "--labels", y) for x, y in (train, test))
    words = [f"train={train[0]}", f"test={test[0]}"]
    if len(train) == 3:
        words += ["--labels", f"{train[2]},{test[2]}"]
    facts = prepare(*words, tmp_path / "o.h5", "--split", "1")
    assert names_of_classes(facts) == ["<=50K", ">50K"] and facts["splits"]["test"] == 60
    with h5py.File(tmp_path / "o.h5") as file:
        assert np.array_equal(file["test/y"][()], file["train/y"][()])
