"""``prepare`` from raw file to rows that training reads: cleaning, splits, report, and the same for any ranks."""

import json
import os
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer

from lepton_mpi.data.files import trust
from lepton_mpi.data.files.file_format import SPLITS, VERSION
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.prepare import inspection, last_pass, summary, writing
from lepton_mpi.prepare.splitting import _apportioned
from tests.serial import raw_files
from tests.serial.data_files import load, read_all
from tests.serial.raw_files import digest, images, prepare, write_csv


def rows_of(path, name: str = "x") -> dict[str, np.ndarray]:
    """Rows of every split."""
    with h5py.File(path) as file:
        return {split: file[f"{split}/{name}"][()] for split in SPLITS if split in file}


@pytest.fixture
def messy(tmp_path):
    """90 rows of numbers and texts with gaps in both, and every tenth row twice."""
    random = np.random.default_rng(1)
    rows = []
    for i in range(90):
        age, income = f"{random.integers(18, 80)}", f"{random.normal(50, 20):.3f}"
        city = random.choice(["Köln", "Aachen", "Bonn, am Rhein"])
        row = [
            "" if i % 7 == 3 else age,
            "NA" if i % 11 == 5 else income,
            "?" if i % 13 == 6 else f'"{city}"',
            "7",
            ["yes", "no", "maybe"][i % 3],
        ]
        rows += [row, row] if i % 10 == 0 else [row]
    return write_csv(tmp_path / "messy.csv", rows, "age", "income", "city", "unit", "answer")


WORDS = ("--label", "answer", "--block", "300")


def test_a_messy_table_becomes_what_training_reads(messy, tmp_path):
    """Codes with their texts, classes with their names, nothing missing."""
    facts = prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "median", "--drop-duplicates")
    assert facts["dropped"] == {"duplicates": 9}
    assert facts["rows_read"] == 99 and sum(facts["splits"].values()) == 90
    data = load(tmp_path / "a.h5", np.float64)
    assert data.class_names == ("maybe", "no", "yes")
    x, y = read_all(data, "train")
    assert np.isfinite(x).all() and len(x) == 72
    assert np.allclose(x[:, [0, 1, 5]].mean(axis=0), 0, atol=1e-12)
    assert np.bincount(y).tolist() == [24, 24, 24]
    with h5py.File(tmp_path / "a.h5") as file:
        cities = ["city=Aachen", "city=Bonn, am Rhein", "city=Köln"]
        assert file["about/columns"].asstr()[:].tolist() == ["age", "income", *cities, "unit"]
        assert (file["train/x"][:, 2:5].sum(axis=1) == 1).all()
        assert np.array_equal(file["train/x"][:, 2:5], x[:, 2:5])  # not scaled
        report = json.loads(file["about/report"][()].tobytes())
    assert [column["missing"] for column in report["columns"]] == [15, 9, 7, 0]
    assert [column["filled"] for column in report["columns"]] == [13, 8, 7, 0]  # of rows that stay


@pytest.mark.parametrize(
    "words",
    [
        ("--missing", "drop"),
        ("--missing", "mean", "--normalise", "minmax"),
        ("--missing", "median", "--outliers", "quantile=0.1", "--normalise", "robust"),
        ("--missing", "constant=0", "--outliers", "zscore=1.5", "--constant-columns", "drop"),
        ("--missing", "drop", "--drop-duplicates", "--balance", "oversample", "--compress", "gzip"),
        ("--missing", "drop", "--balance", "undersample", "--layout", "contiguous"),
        ("--missing", "drop", "--group", "city", "--dtype", "float32"),
        ("--missing", "drop", "--memory", "0"),
    ],
    ids=" ".join,
)
def test_any_number_of_ranks_writes_the_same_file(messy, tmp_path, words):
    """Bit for bit, and a second later as well."""
    digests = []
    for ranks in (1, 2, 3, 8):
        prepare(messy, tmp_path / f"{ranks}.h5", *WORDS, *words, ranks=ranks)
        digests.append(digest(tmp_path / f"{ranks}.h5"))
    assert len(set(digests)) == 1


def test_the_file_does_not_depend_on_the_time(messy, tmp_path):
    """HDF5 would store it in whole seconds."""
    prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "drop")
    time.sleep(1.1)
    prepare(messy, tmp_path / "b.h5", *WORDS, "--missing", "drop")
    assert digest(tmp_path / "a.h5") == digest(tmp_path / "b.h5")


def test_memory_changes_nothing(messy, tmp_path):
    """Blocks that are read again in every pass give the file of blocks that are kept."""
    words = (*WORDS, "--missing", "median", "--normalise", "robust")
    prepare(messy, tmp_path / "a.h5", *words)
    prepare(messy, tmp_path / "b.h5", *words, "--memory", "0")
    for name in ("x", "y"):
        for a, b in zip(rows_of(tmp_path / "a.h5", name).values(), rows_of(tmp_path / "b.h5", name).values(), strict=True):  # fmt: skip
            assert np.array_equal(a, b)


# -- cleaning ----------------------------------------------------------------------------------------


def numbers(tmp_path, rows: int = 200, holes: bool = True):
    """A table of 4 columns of numbers, with gaps, and 2 classes; and the numbers, NaN in the gaps."""
    random = np.random.default_rng(3)
    x = random.standard_normal((rows, 4)) * 10 + 3
    x[random.random(x.shape) < (0.08 if holes else 0)] = np.nan
    cells = [
        [*("" if np.isnan(v) else repr(float(v)) for v in row), i % 2] for i, row in enumerate(x)
    ]
    return write_csv(tmp_path / "numbers.csv", cells, *"abcd", "label"), x


@pytest.mark.parametrize("method", ["mean", "median", "constant=-1.5"])
def test_gaps_are_filled_as_scikit_learn_does(tmp_path, method):
    """From training rows alone, in all splits; and every filled cell is counted."""
    path, x = numbers(tmp_path)
    facts = prepare(path, tmp_path / "raw.h5", "--missing", "constant=1e9")
    prepare(path, tmp_path / "a.h5", "--missing", method)
    strategy, _, constant = method.partition("=")
    imputer = SimpleImputer(strategy=strategy, fill_value=float(constant or 0))
    gaps = {s: np.where(r == 1e9, np.nan, r) for s, r in rows_of(tmp_path / "raw.h5").items()}
    imputer.fit(gaps["train"])
    for split, rows in rows_of(tmp_path / "a.h5").items():
        assert np.allclose(rows, imputer.transform(gaps[split]), rtol=1e-12)
    assert facts["filled_cells"] == np.isnan(x).sum()


def test_gaps_in_categories_are_filled_by_the_commonest(tmp_path):
    """Or by a category of their own, if a constant names it."""
    rows = [[["b", "a", "b", ""][i % 4], i, i % 2] for i in range(40)]
    path = write_csv(tmp_path / "t.csv", rows, "kind", "n", "label")
    prepare(path, tmp_path / "a.h5", "--missing", "median", "--split", "1,0,0")
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"][:4, 0], [1, 0, 1, 1])
    words = ("--missing", "constant=unknown", "--split", "1,0,0", "--categories", "codes")
    prepare(path, tmp_path / "b.h5", *words)
    assert np.array_equal(rows_of(tmp_path / "b.h5")["train"][:4, 0], [1, 0, 1, 2])
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["about/categories/0"].asstr()[:].tolist() == ["a", "b", "unknown"]


def test_numbers_may_mean_missing(tmp_path):
    """As -999 in the files of instruments, however it is written; in texts as well."""
    rows = [
        [["1", "-999", "3", "-999.0"][i % 4], i, ["a", "-999"][i % 2], i % 2] for i in range(40)
    ]
    path = write_csv(tmp_path / "t.csv", rows, "v", "n", "kind", "label")
    words = ("--missing-words", "-999", "--missing", "drop", "--split", "1")
    with pytest.raises(DataError, match="'kind': expected a number"):
        prepare(path, tmp_path / "a.h5", "--missing", "drop", "--label", "label")
    facts = prepare(path, tmp_path / "a.h5", *words, "--task", "classification", "--label", "n")
    assert [column["missing"] for column in facts["columns"]] == [20, 20, 0]


def test_rows_with_gaps_are_dropped(tmp_path):
    """Those and no others, in order."""
    path, x = numbers(tmp_path)
    facts = prepare(path, tmp_path / "a.h5", "--missing", "drop", "--split", "1,0,0")
    whole = ~np.isnan(x).any(axis=1)
    assert facts["dropped"] == {"with missing values": int((~whole).sum())}
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], x[whole])


@pytest.mark.parametrize("outliers", ["quantile=0.05", "zscore=1.2"])
def test_outliers_are_clipped(tmp_path, outliers):
    """To bounds of training rows, in all splits; every clipped cell is counted."""
    path, _ = numbers(tmp_path, holes=False)
    prepare(path, tmp_path / "raw.h5")
    facts = prepare(path, tmp_path / "a.h5", "--outliers", outliers)
    before, after = rows_of(tmp_path / "raw.h5"), rows_of(tmp_path / "a.h5")
    train, limit = before["train"], float(outliers.split("=")[1])
    if outliers.startswith("q"):
        low, high = np.quantile(train, [limit, 1 - limit], axis=0)
    else:
        low, high = train.mean(0) - limit * train.std(0), train.mean(0) + limit * train.std(0)
    clipped = 0
    for split, rows in after.items():
        assert np.allclose(rows, np.clip(before[split], low, high), rtol=1e-12)
        clipped += int((rows != before[split]).sum())
    assert facts["clipped_cells"] == clipped > 20


@pytest.mark.parametrize("outliers", ["quantile=0.05", "zscore=0.8"])
@pytest.mark.parametrize("method", ["mean", "median", "constant=-999"])
def test_gaps_are_filled_behind_the_clipping(tmp_path, method, outliers):
    """A constant stays what it is, far from all numbers though it be; a mean is that of the clipped numbers."""
    path, x = numbers(tmp_path)
    x = np.round(np.exp(x / 10), 2)  # skewed, so that outliers move the mean
    cells = [[*("" if np.isnan(v) else v for v in row), i % 2] for i, row in enumerate(x)]
    write_csv(path, cells, *"abcd", "label")
    words = ("--missing", method, "--outliers", outliers)
    prepare(path, tmp_path / "raw.h5", "--missing", "constant=1e9")
    facts = prepare(path, tmp_path / "a.h5", *words, "--block", "999", ranks=2)
    before = {s: np.where(r == 1e9, np.nan, r) for s, r in rows_of(tmp_path / "raw.h5").items()}
    train, limit = before["train"], float(outliers.split("=")[1])
    if outliers.startswith("q"):
        low, high = np.nanquantile(train, [limit, 1 - limit], axis=0)
    else:
        mean, std = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
        low, high = mean - limit * std, mean + limit * std
    clipped = np.clip(train, low, high)
    fill = {"mean": np.nanmean(clipped, 0), "median": np.nanmedian(clipped, 0)}.get(method, -999)
    for split, rows in rows_of(tmp_path / "a.h5").items():
        gaps, expected = np.isnan(before[split]), np.clip(before[split], low, high)
        assert np.allclose(rows, np.where(gaps, fill, expected), rtol=1e-12)
    assert facts["filled_cells"] == np.isnan(x).sum()


@pytest.mark.parametrize("outliers", ["quantile=0.05", "zscore=2"])
def test_a_column_without_numbers_in_training_is_not_clipped(tmp_path, outliers):
    """There is nothing to clip by."""
    rows = [["" if i < 20 else i, i, i % 2, ["train", "test"][i // 20]] for i in range(40)]
    path = write_csv(tmp_path / "t.csv", rows, "late", "n", "label", "part")
    words = ("--split-column", "part", "--label", "label", "--missing", "constant=7")
    prepare(path, tmp_path / "a.h5", *words, "--outliers", outliers)
    assert rows_of(tmp_path / "a.h5")["train"][:, 0].tolist() == [7] * 20
    assert rows_of(tmp_path / "a.h5")["test"][:, 0].tolist() == list(range(20, 40))


def test_no_leak_from_other_splits(tmp_path):
    """Wild values in rows that are not trained on change no statistics, fill or bound."""
    path, x = numbers(tmp_path)
    words = ("--missing", "median", "--outliers", "zscore=2", "--normalise", "robust")
    columns = [*"abcd", "label", "part"]
    parts = np.array(["train", "val", "test", "train", "train"])[np.arange(len(x)) % 5]
    shift = {}
    for factor in (1, 1000):
        wild = np.where((parts == "train")[:, None], x, x * factor)
        cells = [
            [*("" if np.isnan(v) else repr(float(v)) for v in row), i % 2, parts[i]]
            for i, row in enumerate(wild)
        ]
        out = tmp_path / f"{factor}.h5"
        facts = prepare(write_csv(path, cells, *columns), out, *words, "--label", "label", "--split-column", "part")  # fmt: skip
        with h5py.File(out) as file:
            shift[factor] = [file["normalisation/shift"][()], file["normalisation/scale"][()], file["train/x"][()]]  # fmt: skip
        assert facts["splits"] == {"train": 120, "validation": 40, "test": 40}
    for a, b in zip(shift[1], shift[1000], strict=True):
        assert np.array_equal(a, b)


def test_duplicates(tmp_path):
    """The first stays; of train and test the one in training; a row that differs in the label or a text is none."""
    rows = [
        [1, "a", 0],
        [1, "a", 1],
        [1, "b", 0],
        [1.0, "a", 0],
        [2, "a", 0],
        [-0.0, "a", 1],
        [0, "a", 1],
    ]
    path = write_csv(tmp_path / "t.csv", rows, "n", "text", "label")
    facts = prepare(path, tmp_path / "a.h5", "--split", "1,0,0", "--block", "64")
    assert facts["duplicates"] == 2 and not facts["dropped"]
    facts = prepare(
        path, tmp_path / "b.h5", "--split", "1,0,0", "--drop-duplicates", "--block", "64"
    )
    assert facts["dropped"] == {"duplicates": 2}
    assert rows_of(tmp_path / "b.h5")["train"][:, 0].tolist() == [1, 1, 1, 2, 0]
    test = write_csv(tmp_path / "u.csv", [[1, "a", 0], [9, "a", 0]], "n", "text", "label")
    words = (f"test={test}", f"train={path}", tmp_path / "c.h5", "--split", "1,0,0")
    assert prepare(*words)["leaked"] == 1
    facts = prepare(*words, "--force", "--drop-duplicates")
    assert facts["leaked"] == 0
    assert facts["splits"] == {"train": 5, "validation": 0, "test": 1}


def test_duplicates_among_images(tmp_path):
    """Rows of uint8 are compared by all their bytes, whatever their number."""
    x, y = images(50, (3, 3))
    x[40], y[40] = x[7], y[7]
    x[41], y[41] = x[8], y[8]
    x[41, 2, 2] ^= 1
    np.savez(tmp_path / "a.npz", x=x, y=y)
    facts = prepare(tmp_path / "a.npz", tmp_path / "a.h5", "--drop-duplicates", "--block", "64")
    assert facts["dropped"] == {"duplicates": 1}


def test_duplicates_with_gaps_in_texts(tmp_path):
    """Are found whether or not there is a text in the blocks in which they stand."""
    rows = [[i, "", i % 2] for i in range(20)]
    rows += [[i, text, i % 2] for i in range(20) for text in ("", "text")]
    path = write_csv(tmp_path / "t.csv", rows, "n", "words", "label")
    words = ("--missing", "constant=none", "--split", "1", "--force")
    for block in ("64", "100", "1M"):
        facts = prepare(path, tmp_path / "a.h5", *words, "--block", block)
        assert facts["duplicates"] == 20, block


@pytest.mark.parametrize("kinds", [("u1", "f4"), ("u1", "i8"), ("f4", "i2")])
def test_equal_rows_of_different_types_are_equal(tmp_path, kinds):
    """As of an x_train that was stored as bytes and an x_test that was not."""
    x = np.arange(40).reshape(20, 2)
    train, test = x.astype(kinds[0]), x[:7].astype(kinds[1])
    np.savez(tmp_path / "a.npz", x_train=train, y_train=x[:, 0] // 2, x_test=test, y_test=x[:7, 0] // 2)  # fmt: skip
    facts = prepare(tmp_path / "a.npz", tmp_path / "a.h5", "--split", "1", "--task", "regression")
    assert facts["leaked"] == 7


def test_balance(tmp_path, capsys):
    """Training rows only; all of the rarer classes stay."""
    x = np.arange(100.0).reshape(-1, 1) + 0.5
    y = np.where(np.arange(100) < 20, 1, 0)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    for balance, expected in (("undersample", [16, 16]), ("oversample", [64, 64])):
        facts = prepare(tmp_path / "a.npz", tmp_path / f"{balance}.h5", "--balance", balance)
        labels = rows_of(tmp_path / f"{balance}.h5", "y")
        assert np.bincount(labels["train"]).tolist() == expected
        assert np.bincount(labels["test"]).tolist() == [8, 2]
        rows = rows_of(tmp_path / f"{balance}.h5")["train"][:, 0]
        assert len(np.unique(rows)) == (32 if balance == "undersample" else 80)
        assert facts["repeated"] == (48 if balance == "oversample" else 0)
        said = "48 training rows repeated for balance; all statistics count them"
        assert (said in capsys.readouterr().out) == (balance == "oversample")


def test_constant_columns(tmp_path):
    """Reported, kept, and dropped if asked for; constant in training rows is what counts."""
    rows = [[i, 5, "x", i % 2] for i in range(30)]
    path = write_csv(tmp_path / "t.csv", rows, "n", "five", "text", "label")
    facts = prepare(path, tmp_path / "a.h5")
    assert facts["constant_units"] == 2 and facts["row_shape"] == [3]
    facts = prepare(path, tmp_path / "b.h5", "--constant-columns", "drop")
    assert facts["row_shape"] == [1]
    assert [column["dropped"] for column in facts["columns"]] == [False, True, True]
    x, y = images(20)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with pytest.raises(ConfigurationError, match="expected a table"):
        prepare(tmp_path / "a.npz", tmp_path / "c.h5", "--constant-columns", "drop")


def test_columns_that_hold_names_are_refused(tmp_path):
    """With the two ways out."""
    rows = [[f"name {i}", i, i % 2] for i in range(80)]
    path = write_csv(tmp_path / "t.csv", rows, "name", "n", "label")
    with pytest.raises(DataError, match=r"'name': 80 different texts.*--drop-columns"):
        prepare(path, tmp_path / "a.h5")
    assert prepare(path, tmp_path / "a.h5", "--drop-columns", "name")["row_shape"] == [1]
    assert prepare(path, tmp_path / "b.h5", "--categorical", "name")["row_shape"] == [81]


def test_numbers_as_categories(tmp_path):
    """Codes in the order of the numbers, also if a block has numbers only."""
    rows = [[[30, 4, 200][i % 3], i % 2] for i in range(60)]
    path = write_csv(tmp_path / "t.csv", rows, "zip", "label")
    words = ("--categorical", "zip", "--categories", "codes", "--split", "1,0,0", "--block", "64")
    prepare(path, tmp_path / "a.h5", *words)
    assert rows_of(tmp_path / "a.h5")["train"][:3, 0].tolist() == [1, 0, 2]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["about/categories/0"].asstr()[:].tolist() == ["4", "30", "200"]


# -- splits ------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=6),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.1, 0.0), (1.0, 0.0, 0.0)]),
)
@settings(max_examples=300)
def test_apportioning(sizes, fractions):
    """Every row once, no part below the floor of its share or a row above it, the whole within a row a class."""
    sizes, fractions = np.array(sizes), np.array(fractions)
    parts = _apportioned(sizes, fractions)
    exact = np.outer(sizes, fractions)
    assert np.array_equal(parts.sum(axis=1), sizes) and (parts >= 0).all()
    assert (parts[:, 1:] >= np.floor(exact[:, 1:] - 1e-9)).all()
    assert (parts[:, 1:] <= np.floor(exact[:, 1:] + 1e-9) + 1).all()
    assert (abs(parts.sum(axis=0) - sizes.sum() * fractions) < 1 + len(sizes)).all()
    assert ((parts[:, 0] > 0) | (sizes == 0)).all()


def test_stratified_splits_keep_the_classes(tmp_path):
    """Every row in one split, each class in the same parts; another seed, other rows."""
    y = np.repeat([0, 1, 2], [100, 50, 10])
    x = np.arange(160.0)[:, None] + 0.5
    np.savez(tmp_path / "a.npz", x=x, y=y)
    prepare(tmp_path / "a.npz", tmp_path / "a.h5")
    labels = {
        split: np.bincount(y).tolist() for split, y in rows_of(tmp_path / "a.h5", "y").items()
    }
    assert labels == {"train": [80, 40, 8], "validation": [10, 5, 1], "test": [10, 5, 1]}
    rows = rows_of(tmp_path / "a.h5")
    assert np.array_equal(np.sort(np.concatenate(list(rows.values())), axis=0), x)
    prepare(tmp_path / "a.npz", tmp_path / "b.h5", "--seed", "1")
    assert not np.array_equal(rows["test"], rows_of(tmp_path / "b.h5")["test"])
    prepare(tmp_path / "a.npz", tmp_path / "c.h5", "--no-stratify", "--split", "0.5,0.5")
    assert {s: len(r) for s, r in rows_of(tmp_path / "c.h5").items()} == {
        "train": 80,
        "validation": 80,
    }


def test_groups_stay_together(tmp_path):
    """No patient in two splits, and the splits near their fractions."""
    random = np.random.default_rng(0)
    patients = random.integers(0, 40, 400)
    rows = [[i, f"p{patients[i]}", patients[i], i % 2] for i in range(400)]
    path = write_csv(tmp_path / "t.csv", rows, "n", "patient", "number", "label")
    facts = prepare(path, tmp_path / "a.h5", "--group", "patient", "--split", "0.6,0.2,0.2")
    numbers = {s: set(r[:, 1].tolist()) for s, r in rows_of(tmp_path / "a.h5").items()}
    assert not numbers["train"] & numbers["test"] and not numbers["train"] & numbers["validation"]
    assert sum(map(len, numbers.values())) == len(set(patients))
    assert all(abs(count - 400 * f) < 30 for count, f in zip(facts["splits"].values(), (0.6, 0.2, 0.2), strict=True))  # fmt: skip


def test_a_split_column_is_obeyed(tmp_path):
    """In the words people use; others are named."""
    words = ["train", "Val", "TEST", "training", "dev"]
    rows = [[i, i % 2, words[i % 5]] for i in range(50)]
    path = write_csv(tmp_path / "t.csv", rows, "n", "label", "fold")
    facts = prepare(path, tmp_path / "a.h5", "--split-column", "fold")
    assert facts["splits"] == {"train": 20, "validation": 20, "test": 10}
    path = write_csv(tmp_path / "t.csv", [[1, 0, "train"], [2, 1, "fold 3"]], "n", "label", "fold")
    with pytest.raises(
        DataError, match=r"t\.csv: line 3, column 'fold': expected train.*got 'fold 3'"
    ):
        prepare(path, tmp_path / "b.h5", "--split-column", "fold")


def test_a_source_with_test_rows_keeps_them(tmp_path):
    """Validation rows are taken from the training rows, so that nothing is fitted on them."""
    x, y = images(200)
    np.savez(tmp_path / "a.npz", x_train=x[:160], y_train=y[:160], x_test=x[160:], y_test=y[160:])
    facts = prepare(tmp_path / "a.npz", tmp_path / "a.h5")
    assert facts["splits"] == {"train": 142, "validation": 18, "test": 40}
    assert np.array_equal(rows_of(tmp_path / "a.h5")["test"], x[160:])
    facts = prepare(tmp_path / "a.npz", tmp_path / "b.h5", "--split", "1")
    assert facts["splits"] == {"train": 160, "validation": 0, "test": 40}


# -- the report, and what is not written -------------------------------------------------------------


def test_inspect_prints_what_prepare_printed(messy, tmp_path, capsys):
    """The same table, then a histogram of every column."""
    words = (*WORDS, "--missing", "mean", "--outliers", "zscore=2", "--categories", "codes")
    prepare(messy, tmp_path / "a.h5", *words)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("wrote")
    lines = inspection.text(tmp_path / "a.h5", 40).splitlines()
    assert lines[: len(printed) - 1] == printed[:-1]
    histograms = lines[len(printed) :]
    assert [line.split()[0] for line in histograms] == ["age", "income", "city", "unit"]
    assert len(inspection.text(tmp_path / "a.h5", 2).splitlines()) == len(lines) - 1


def test_inspect_of_other_files(tmp_path):
    """Embedded sets, and reports that are none."""
    text = inspection.text("breast_cancer", 3)
    assert "456 train, 113 test" in text and "and 27 more" in text
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.ones((4, 2)), [0, 1, 0, 1]
        file["about/report"] = np.frombuffer(b"[]", np.uint8)
    with pytest.raises(DataError, match="about/report: expected the JSON"):
        inspection.text(path, 3)


def test_a_dry_run_writes_nothing_and_says_the_same(messy, tmp_path, capsys):
    """On several ranks, too."""
    words = (*WORDS, "--missing", "mean", "--outliers", "zscore=2")
    facts = prepare(messy, tmp_path / "a.h5", *words, "--dry-run", ranks=3)
    assert [path.name for path in tmp_path.iterdir()] == ["messy.csv"]
    dry = capsys.readouterr().out.splitlines()
    assert facts == prepare(messy, tmp_path / "a.h5", *words)
    assert capsys.readouterr().out.splitlines()[:-1] == dry[:-1]
    assert "nothing is written" in dry[-1]


def test_an_output_that_exists_is_kept(messy, tmp_path):
    """Unless --force says otherwise; a folder that is not there is named."""
    (tmp_path / "a.h5").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists; --force replaces it"):
        prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "drop")
    assert (tmp_path / "a.h5").read_text() == "mine"
    prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "drop", "--force")
    with pytest.raises(LauncherError, match="no such folder"):
        prepare(messy, tmp_path / "none" / "a.h5", *WORDS, "--missing", "drop")
    with pytest.raises(ConfigurationError, match=r"ends by \.h5"):
        prepare(messy, messy)


def test_a_full_disk_ends_on_all_ranks_alike(messy, tmp_path, monkeypatch):
    """With one line, and without a part of a file."""
    written = []

    def write(self, count):
        written.append(count)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return original(self, count)

    original = writing.RowWriter._write
    monkeypatch.setattr(writing, "_CHUNK_BYTES", 200)
    monkeypatch.setattr(writing.RowWriter, "_write", write)
    with pytest.raises(LauncherError, match=r"cannot write .*a\.h5: .*No space left"):
        prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "drop", ranks=3)
    assert [path.name for path in tmp_path.iterdir()] == ["messy.csv"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("disk")])
@pytest.mark.parametrize("function", ["create_dataset", "write_facts", "fsync"])
def test_a_disk_that_is_full_at_other_times(messy, tmp_path, monkeypatch, function, error):
    """When the file is laid out, when all else is written behind the rows, and when it is closed."""

    def fail(*_, **__):
        raise error

    words = (*WORDS, "--missing", "drop")
    where = {"write_facts": last_pass, "fsync": os}.get(function, h5py.File)
    with monkeypatch.context() as patched:
        patched.setattr(where, function, fail)
        with pytest.raises(LauncherError, match=r"cannot write .*a\.h5: (No space left|disk)"):
            prepare(messy, tmp_path / "a.h5", *words, ranks=2)
    assert [path.name for path in tmp_path.iterdir()] == ["messy.csv"]


def test_a_folder_that_nothing_can_be_written_to(tmp_path):
    """Is found out before anything is read: here not even the input is there. A dry run needs no folder to write to."""
    with pytest.raises(LauncherError, match=r"cannot write /proc/a\.h5: "):
        prepare(tmp_path / "none.csv", "/proc/a.h5", ranks=2)
    with pytest.raises(DataError, match=r"none\.csv"):
        prepare(tmp_path / "none.csv", "/proc/a.h5", "--dry-run")


@pytest.mark.parametrize("limit_bytes", [100, 4000])
def test_a_disk_that_is_really_full(messy, tmp_path, limit_bytes):
    """HDF5 would complain of it again from where nobody can catch it, which pytest would show as a warning."""
    refusal = pytest.raises(LauncherError, match=r"cannot write .*a\.h5: File too large")
    with raw_files.full_disk(limit_bytes), refusal:
        prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "drop", ranks=2)
    assert [path.name for path in tmp_path.iterdir()] == ["messy.csv"]


def test_what_a_kill_left_is_removed(messy, tmp_path):
    """By the next one that is to write the same file, also if it finds nothing to write; a dry run removes nothing."""
    left = tmp_path / ".a.h5.partial"
    left.write_text("half of one")
    with pytest.raises(DataError):
        prepare(messy, tmp_path / "a.h5", *WORDS, "--dry-run")
    assert left.exists()
    with pytest.raises(DataError):
        prepare(messy, tmp_path / "a.h5", *WORDS)
    assert not left.exists()


def test_numbers_that_the_type_cannot_hold(messy, tmp_path):
    """Are refused; nothing is rounded to whole numbers silently."""
    with pytest.raises(DataError, match="--dtype uint8 can hold"):
        prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "drop", "--dtype", "uint8", ranks=2)
    assert [path.name for path in tmp_path.iterdir()] == ["messy.csv"]


def _check_texts(path) -> None:
    """As the process that looks at a file before it is opened."""
    with h5py.File(path) as file:
        trust.check_texts(trust.check(file, path.stat().st_size))


def _objects(path) -> int:
    """Groups and data sets of a file."""
    names = []
    with h5py.File(path) as file:
        file.visit(names.append)
    return 1 + len(names)


def test_more_objects_than_training_reads_are_not_written(messy, tmp_path, monkeypatch):
    """What prepare lets through the reader does, to the last one; and it says what to do."""
    words = (messy, tmp_path / "a.h5", *WORDS, "--missing", "drop", "--force")
    prepare(*words)
    count = _objects(tmp_path / "a.h5")
    monkeypatch.setattr(trust, "OBJECTS_MAX", count)
    prepare(*words)
    assert load(tmp_path / "a.h5").class_count == 3
    monkeypatch.setattr(trust, "OBJECTS_MAX", count - 1)
    with pytest.raises(DataError, match=f"at most {count - 1} objects"):
        load(tmp_path / "a.h5")
    (tmp_path / "a.h5").unlink()
    with pytest.raises(DataError, match=f"messy.csv: .*objects.*got {count}.*--drop-columns"):
        prepare(*words, ranks=2)
    assert [path.name for path in tmp_path.iterdir()] == ["messy.csv"]


def test_more_texts_than_training_reads_are_not_written(tmp_path, monkeypatch):
    """Neither in all, nor as names of classes that the longest of them makes large."""
    rows = [[f"{'a' * 100}{i % 20}", i, f"{i % 3}-{'e' * 400 * (i % 3 == 2)}"] for i in range(60)]
    path = write_csv(tmp_path / "t.csv", rows, "name", "n", "label")
    words = (path, tmp_path / "a.h5", "--force", "--categories", "codes")
    prepare(*words)
    with h5py.File(tmp_path / "a.h5") as file:
        texts = [
            *file["about/categories/0"][()],
            *file["about/columns"][()],
            *file.attrs["classes"],
        ]
        total = sum(map(len, [*texts, file.attrs["format"]]))
    monkeypatch.setattr(trust, "TEXT_BYTES_MAX", total)
    prepare(*words)
    _check_texts(tmp_path / "a.h5")
    monkeypatch.setattr(trust, "TEXT_BYTES_MAX", total - 1)
    with pytest.raises(DataError, match=f"at most {total - 1} bytes"):
        _check_texts(tmp_path / "a.h5")
    with pytest.raises(DataError, match=f"got {total}, 2030 of them in about/categories/0"):
        prepare(*words)
    words = (*words, "--drop-columns", "name")
    assert prepare(*words)["row_shape"] == [1]
    monkeypatch.setattr(trust, "TEXT_BYTES_MAX", 3 * 402 - 1)
    with pytest.raises(DataError, match="class names: expected 3 texts of at most 401 bytes"):
        prepare(*words)


def test_rows_larger_than_training_reads_are_not_written(tmp_path, monkeypatch):
    """A chunk holds one at least, and the shift and scale of all its numbers."""
    x, y = images(20)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    words = (tmp_path / "a.npz", tmp_path / "a.h5", "--force")
    monkeypatch.setattr(trust, "CHUNK_BYTES_MAX", 64 * 8)
    assert prepare(*words)["row_shape"] == [8, 8]
    monkeypatch.setattr(trust, "CHUNK_BYTES_MAX", 64 * 8 - 1)
    with pytest.raises(DataError, match="at most 63 numbers in a row, got 64"):
        prepare(*words)


def test_no_rows_left(tmp_path):
    """Says what became of them."""
    path = write_csv(tmp_path / "t.csv", [["", i % 2] for i in range(9)], "n", "label")
    with pytest.raises(DataError, match=r"got none of 9; dropped: 9 with missing values"):
        prepare(path, tmp_path / "a.h5", "--missing", "drop")


def test_files_of_a_later_version_are_refused(messy, tmp_path):
    """By training and by inspect; of this version, and without one, they open."""
    prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "drop")
    assert load(tmp_path / "a.h5").class_count == 3
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        assert file.attrs["format_version"] == 1
        file.attrs["format_version"] = VERSION + 1
    later = f"format_version: expected {VERSION} or lower, got {VERSION + 1}"
    with pytest.raises(DataError, match=later):
        load(tmp_path / "a.h5")
    with pytest.raises(DataError, match="format_version"):
        inspection.text(tmp_path / "a.h5", 3)


def test_every_number_of_rows_has_its_checksum(messy, tmp_path):
    """A flipped byte in the rows is an error, not another number."""
    prepare(messy, tmp_path / "a.h5", *WORDS, "--missing", "drop")
    with h5py.File(tmp_path / "a.h5") as file:
        assert all(file[f"{split}/{name}"].fletcher32 for split in SPLITS for name in "xy")
        where = file["train/x"].id.get_chunk_info(0).byte_offset
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[where + 100] ^= 1
    (tmp_path / "a.h5").write_bytes(raw)
    with pytest.raises(DataError, match="train/x"):
        load(tmp_path / "a.h5")


def test_many_columns_and_classes_are_not_all_printed(tmp_path):
    """A page holds the report."""
    x, y = images(300, (12, 12), classes=50)
    facts = prepare(
        write_csv(tmp_path / "t.csv", [[*r.ravel(), c] for r, c in zip(x, y, strict=True)]),
        tmp_path / "a.h5",
        "--label",
        "-1",
    )
    assert facts["dtype"] == "uint8" and facts["row_shape"] == [144]
    assert len(summary.text(facts).splitlines()) < 60
