"""Categories as columns, which labels are classes, and rows in small classes."""

import importlib.util

import h5py
import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder

from lepton_mpi.errors import DataError
from tests.serial.data_files import load, read_all
from tests.serial.raw_files import images, prepare, same_on_ranks, write_csv
from tests.serial.test_prepare import rows_of

needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None,
    reason="pyarrow, the extra parquet, is not installed",
)
ALL = ("--split", "1")


def shop(rows: int = 120) -> list[list]:
    """A number, a category of three, one of two, and a class."""
    random = np.random.default_rng(0)
    colours, sizes = random.choice(["red", "green", "blue"], rows), random.choice(["s", "l"], rows)
    return [[f"{random.normal():.3f}", c, s, ["no", "yes"][c == "red"]] for c, s in zip(colours, sizes, strict=True)]  # fmt: skip


NAMES = ("n", "colour", "size", "buys")


def shop_file(path, kind: str, rows: list[list]):
    """As a CSV file, or as Parquet, of texts and of dictionaries."""
    if kind == "csv":
        return write_csv(path.with_suffix(".csv"), rows, *NAMES)
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))
    columns["n"] = [float(value) for value in columns["n"]]
    if kind == "dictionaries":
        columns["colour"] = pyarrow.array(columns["colour"]).dictionary_encode()
    parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"), row_group_size=30)
    return path.with_suffix(".parquet")


every_reader = pytest.mark.parametrize("kind", ["csv", "parquet", "dictionaries"])


@every_reader
def test_categories_become_columns(tmp_path, kind):
    """As scikit-learn makes them, of two categories one column; not scaled, and named in the file."""
    rows = shop()
    path = shop_file(tmp_path / "a", kind, rows)
    facts = same_on_ranks(tmp_path / "a.h5", path, "--label", "buys", "--block", "300", *ALL)
    encoder = OneHotEncoder(sparse_output=False, drop="if_binary")
    expected = encoder.fit_transform([row[1:3] for row in rows])
    stored = rows_of(tmp_path / "a.h5")["train"]
    assert np.array_equal(stored[:, 1:], expected)
    assert np.array_equal(stored[:, 0], [float(row[0]) for row in rows])
    with h5py.File(tmp_path / "a.h5") as file:
        names = file["about/columns"].asstr()[:].tolist()
        assert names == ["n", "colour=blue", "colour=green", "colour=red", "size"]
        assert file["about/categories/4"].asstr()[:].tolist() == ["l", "s"]
    x, _ = read_all(load(tmp_path / "a.h5", np.float64), "train")
    assert np.array_equal(x[:, 1:], expected) and abs(x[:, 0].mean()) < 1e-12
    assert [column["stored"] for column in facts["columns"]] == [1, 3, 1]


def test_the_report_has_a_line_for_each_feature(tmp_path, capsys):
    """With the number of categories, whatever comes behind it; and names the label."""
    rows = [[c, n, s, y] for n, c, s, y in shop()]
    path = write_csv(tmp_path / "a.csv", rows, "colour", "n", "size", "buys")
    prepare(path, tmp_path / "a.h5", "--label", "buys")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:1] == ["colour"] and "3 categories, one-hot" in line for line in lines)
    (line,) = [line for line in lines if line.split()[:1] == ["n"]]
    assert line.split()[1].startswith("-2.")
    assert "2 of the label column 'buys'" in " ".join(lines)
    path = write_csv(tmp_path / "b.csv", rows, "colour", "n", "size", "class")
    assert any("label 'class', by its name" in note for note in prepare(path, tmp_path / "b.h5")["notes"])  # fmt: skip


@every_reader
def test_a_missing_category(tmp_path, kind):
    """Is the commonest of the training rows, or one of its own."""
    rows = shop()
    rows[7][1] = rows[9][1] = "NA"
    path = shop_file(tmp_path / "a", kind, rows)
    words = ("--label", "buys", *ALL)
    with pytest.raises(DataError, match="column 'colour': expected a value, got none"):
        prepare(path, tmp_path / "a.h5", *words)
    prepare(path, tmp_path / "a.h5", *words, "--missing", "mean")
    colours = [row[1] for row in rows if row[1] != "NA"]
    commonest = max(sorted(set(colours)), key=colours.count)
    place = ["blue", "green", "red"].index(commonest)
    assert rows_of(tmp_path / "a.h5")["train"][7, 1:4].argmax() == place
    prepare(path, tmp_path / "b.h5", *words, "--missing", "constant=unknown")
    assert rows_of(tmp_path / "b.h5")["train"][7, 1:5].tolist() == [0, 0, 0, 1]


def test_many_categories_are_asked_about(tmp_path):
    """A column each, or numbers that mean nothing to a dense layer."""
    rows = [[i % 2, f"shop {i % 110}", i % 2] for i in range(440)]
    path = write_csv(tmp_path / "a.csv", rows, "n", "shop", "label")
    with pytest.raises(DataError, match=r"more than 100 categories: 'shop' of 110: --categories one-hot.*codes"):  # fmt: skip
        prepare(path, tmp_path / "a.h5", ranks=2)
    words = (path, tmp_path / "a.h5", "--force", "--categories")
    assert prepare(*words, "one-hot")["row_shape"] == [111]
    assert prepare(*words, "codes")["row_shape"] == [2]


def test_constant_categories_can_be_dropped(tmp_path):
    """With their names; columns behind them keep theirs."""
    rows = [["same", *row] for row in shop()]
    path = write_csv(tmp_path / "a.csv", rows, "c", *NAMES)
    prepare(path, tmp_path / "a.h5", "--label", "buys", "--constant-columns", "drop")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["about/columns"].asstr()[0] == "n" and "about/categories/4" in file
        assert file["train/x"].shape[1] == 5


# -- labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [range(10), range(1, 27), range(40), (1, 10, 100)])
def test_whole_numbers_that_number_classes_are_not_asked_about(tmp_path, values):
    """Digits, letters from 1, and a few numbers."""
    rows = [[i % 7, values[i % len(values)]] for i in range(400)]
    facts = prepare(write_csv(tmp_path / "a.csv", rows, "x", "y"), tmp_path / "a.h5")
    assert [one["name"] for one in facts["classes"]] == list(map(str, values))


def test_the_full_stops_of_uci(tmp_path):
    """Of a test file only: they are the same classes; where all texts have one it stays."""
    rows = [[i, ["<=50K", ">50K"][i % 2]] for i in range(40)]
    write_csv(tmp_path / "a.csv", rows, "age", "income")
    write_csv(tmp_path / "b.csv", [[i, f"{label}."] for i, label in rows], "age", "income")
    inputs = (f"train={tmp_path / 'a.csv'}", f"test={tmp_path / 'b.csv'}")
    facts = prepare(*inputs, tmp_path / "a.h5", "--label", "income")
    assert [one["name"] for one in facts["classes"]] == ["<=50K", ">50K"]
    assert facts["splits"]["test"] == 40 and facts["classes"][0]["rows"][2] == 20
    facts = prepare(tmp_path / "b.csv", tmp_path / "b.h5", "--label", "income")
    assert [one["name"] for one in facts["classes"]] == ["<=50K.", ">50K."]


# -- missing words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_words_for_missing_are_added_to_the_usual_ones(tmp_path, kind):
    """As -200 in one column and NA in another; --only-missing-words makes a text of NA."""
    a = ["-200", "1.5", "0.5", "NA"] * 10
    rows = [[v, i % 3, i % 2] for i, v in enumerate(a)]
    if kind == "csv":
        path = write_csv(tmp_path / "a.csv", rows, "co", "no", "label")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        made = {"co": [None if v == "NA" else float(v) for v in a], "no": [r[1] for r in rows], "label": [r[2] for r in rows]}  # fmt: skip
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table(made), path)
    words = (path, tmp_path / "a.h5", "--missing-words=-200", "--missing", "mean", *ALL)
    assert prepare(*words)["missing_cells"] == 20
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"][:4, 0], [1, 1.5, 0.5, 1])
    if kind == "csv":
        with pytest.raises(DataError, match="expected a number as in 20 other rows, got 'NA'"):
            prepare(*words, "--only-missing-words", "--force")


# -- statistics and splits ---------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", ["standard", "robust", "minmax"])
def test_statistics_are_those_of_the_rows_as_written(tmp_path, normalise):
    """With their repeats, after --balance oversample."""
    rows = [[i * i % 97, int(i % 10 == 0)] for i in range(200)]
    path = write_csv(tmp_path / "a.csv", rows, "x", "label")
    words = ("--balance", "oversample", "--normalise", normalise, "--block", "100")
    facts = same_on_ranks(tmp_path / "a.h5", path, *words)
    stored = rows_of(tmp_path / "a.h5")["train"].astype(np.float64)
    assert facts["repeated"] > 0
    assert np.isclose(facts["units"]["mean"][0], stored.mean(), rtol=1e-12)
    assert np.isclose(facts["units"]["std"][0], stored.std(), rtol=1e-12)
    with h5py.File(tmp_path / "a.h5") as file:
        shift = file["normalisation/shift"][0]
    expected = {"standard": stored.mean(), "robust": np.median(stored), "minmax": stored.min()}
    assert np.isclose(shift, expected[normalise], rtol=1e-12)


@pytest.mark.parametrize("missing", ["mean", "median"])
def test_fills_and_limits_are_those_of_the_rows_as_written(tmp_path, missing):
    """Fitted to training rows with their repeats: what fills a gap, the most frequent category, and where numbers are clipped."""
    rows = [
        [i % 31 if i % 7 else "", "seldom" if i % 10 == 0 else "oft" if i % 3 else "other", int(i % 10 == 0)]
        for i in range(200)
    ]  # fmt: skip
    rows[5][1] = ""
    path = write_csv(tmp_path / "a.csv", rows, "x", "text", "label")
    words = ("--balance", "oversample", "--split", "1,0,0", "--no-stratify", "--normalise", "none")
    words += ("--missing", missing, "--categories", "codes", "--force")
    facts = same_on_ranks(tmp_path / "a.h5", path, *words)
    times = np.array([1 if label == 0 else 9 for *_, label in rows])
    assert facts["repeated"] == 8 * 20
    x = np.array([np.nan if row[0] == "" else row[0] for row in rows])
    written = np.repeat(x, times)
    present = written[~np.isnan(written)]
    fill = present.mean() if missing == "mean" else np.median(present)
    assert fill != (np.nanmean(x) if missing == "mean" else np.nanmedian(x))
    stored = rows_of(tmp_path / "a.h5")["train"]
    np.testing.assert_allclose(np.sort(stored[:, 0]), np.sort(np.where(np.isnan(written), fill, written)))  # fmt: skip
    # Of 20 + 110 + … rows the category of the rare class is the commonest only with its repeats.
    codes = sorted({"seldom", "oft", "other"})
    counts = {text: int(times[[row[1] == text for row in rows]].sum()) for text in codes}
    assert max(counts, key=counts.get) == "seldom"
    of_gap = np.bincount(stored[:, 1].astype(int), minlength=3)
    assert of_gap[codes.index("seldom")] == counts["seldom"] + 1
    clipped = ("--outliers", "quantile=0.1", *words)
    same_on_ranks(tmp_path / "b.h5", path, *clipped)
    low, high = np.quantile(present, [0.1, 0.9])
    stored = rows_of(tmp_path / "b.h5")["train"][:, 0]
    np.testing.assert_allclose([stored.min(), stored.max()], [low, high])


@pytest.mark.parametrize("per", ["channel", "feature"])
def test_statistics_of_images_are_those_of_the_rows_as_written(tmp_path, per):
    """Of every channel, or every pixel."""
    x, _ = images(60, (3, 4, 2), classes=2)
    y = (np.arange(60) % 6 == 0).astype(np.int64)
    x[y == 1] //= 3
    np.savez(tmp_path / "a.npz", x=x, y=y)
    words = ("--balance", "oversample", "--normalise", "standard", "--per", per)
    same_on_ranks(tmp_path / "a.h5", tmp_path / "a.npz", *words)
    stored = rows_of(tmp_path / "a.h5")["train"].astype(np.float64)
    axes = (0, 1, 2) if per == "channel" else 0
    with h5py.File(tmp_path / "a.h5") as file:
        shift, scale = (file[f"normalisation/{name}"][()] for name in ("shift", "scale"))
    expected = np.broadcast_to(stored.mean(axis=axes), stored.shape[1:])
    np.testing.assert_allclose(shift.reshape(expected.shape), expected, rtol=1e-12)
    ones = ((stored - shift.reshape(expected.shape)) * scale.reshape(expected.shape)).std(axis=axes)
    np.testing.assert_allclose(ones, 1, rtol=1e-6)


@pytest.mark.parametrize(("word", "split"), [("dev", "validation"), ("val", "validation"), ("testing", "test")])  # fmt: skip
def test_usual_words_for_splits(tmp_path, word, split):
    """Before an input, and in a column."""
    rows = [[i, i % 2, "train" if i % 4 else word] for i in range(80)]
    path = write_csv(tmp_path / "a.csv", rows, "x", "label", "part")
    assert prepare(path, tmp_path / "a.h5", "--split-column", "part")["splits"][split] == 20
    a = write_csv(tmp_path / "b.csv", [row[:2] for row in rows], "x", "label")
    b = write_csv(tmp_path / "c.csv", [[100 + i, i % 2] for i in range(20)], "x", "label")
    facts = prepare(f"train={a}", f"{word}={b}", tmp_path / "b.h5", "--split", "1")
    assert facts["splits"][split] == 20 and facts["splits"]["train"] == 80


def test_columns_that_float32_rounds_away_are_warned_of(tmp_path, capsys):
    """If nothing shifts them: seconds since 1970, a minute of them."""
    rows = [[1_700_000_000 + i / 4, i % 9, i % 2] for i in range(200)]
    path = write_csv(tmp_path / "a.csv", rows, "time", "n", "label")
    facts = prepare(path, tmp_path / "a.h5")
    assert facts["too_fine"] == [] and facts["dtype"] == "float64"
    facts = prepare(path, tmp_path / "a.h5", "--normalise", "none", "--force")
    assert facts["too_fine"] == ["time"]
    assert "warning: 'time' differ by less than float32 tells" in capsys.readouterr().out
