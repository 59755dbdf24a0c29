"""``prepare --like FILE``: other rows get the columns, codes, fills, classes and normalisation of FILE."""

import json

import h5py
import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare import inspection
from lepton_mpi.prepare.encoding import Encoding
from tests.serial.data_files import OneRank, load
from tests.serial.raw_files import digest, images, prepare, same_on_ranks, write_csv, write_pictures
from tests.serial.test_prepare import rows_of

NAMES = ("day", "price", "colour", "size", "n", "buys")


def shop(rows: int = 120, seed: int = 0) -> list[list]:
    """A date, a price in another notation, categories of three and of two, a number with gaps, and a class."""
    random = np.random.default_rng(seed)
    days = np.datetime64("2023-01-20") + random.integers(0, 300, rows)
    out = []
    for i, day in enumerate(days.astype(str)):
        colour, size = random.choice(["red", "green", "blue"]), random.choice(["s", "l", "l"])
        price = f'"${random.integers(900, 9000):,}"'
        gap = "" if i % 9 == 4 else f"{random.normal():.3f}"
        out.append([f"{day[8:]}/{day[5:7]}/{day[:4]}", price, colour, size, gap, "yes" if colour == "red" else "no"])  # fmt: skip
    return out


WORDS = ("--label", "buys", "--dates", "day=dmy", "--numbers", "price", "--missing", "mean")


@pytest.fixture
def made(tmp_path):
    """A file that was made of a table, and the table's rows."""
    path = write_csv(tmp_path / "shop.csv", shop(), *NAMES)
    prepare(path, tmp_path / "shop.h5", *WORDS, "--split", "1")
    return tmp_path / "shop.h5"


def attributes(path):
    """Shift, scale, class names and names of columns."""
    with h5py.File(path) as file:
        return (
            *(file[f"normalisation/{name}"][()].tolist() for name in ("shift", "scale")),
            file.attrs["classes"].tolist(),
            file["about/columns"][()].tolist(),
        )


def test_the_same_rows_are_the_same_numbers(made, tmp_path):
    """All for testing, whatever the order of the columns and however many others there are; on any number of ranks."""
    rows = [["x", *reversed(row)] for row in shop()]
    path = write_csv(tmp_path / "new.csv", rows, "extra", *reversed(NAMES))
    facts = same_on_ranks(tmp_path / "new.h5", path, "--like", made, "--block", "300")
    assert facts["splits"] == {"train": 0, "validation": 0, "test": 120}
    assert any("left out 1 other columns: extra" in note for note in facts["notes"])
    for name in "xy":
        assert np.array_equal(rows_of(tmp_path / "new.h5", name)["test"], rows_of(made, name)["train"])  # fmt: skip
    assert attributes(tmp_path / "new.h5") == attributes(made)


def test_rows_of_a_month_without_blue(made, tmp_path):
    """Get the codes and the fill of all months, from a Parquet file as well; splits may be asked for."""
    rows = [row for row in shop(200, 1) if row[2] != "blue"]
    path = write_csv(tmp_path / "new.csv", rows, *NAMES)
    prepare(path, tmp_path / "new.h5", "--like", made)
    x = rows_of(tmp_path / "new.h5")["test"]
    with h5py.File(made) as file:
        names = file["about/columns"].asstr()[:].tolist()
        mean = file["train/x"][:, names.index("n")]
    assert names == ["day", "price", "colour=blue", "colour=green", "colour=red", "size", "n"]
    assert x[:, 2].sum() == 0 and np.array_equal(x[:, 4], [row[2] == "red" for row in rows])
    assert np.array_equal(x[:, 1], [float(row[1].strip('"$').replace(",", "")) for row in rows])
    gaps = np.array([row[4] == "" for row in rows])
    known = [float(row[4]) for row in shop() if row[4]]
    assert np.allclose(x[gaps, 6], np.mean(known)) and len(set(mean)) > 50
    facts = prepare(path, tmp_path / "b.h5", "--like", made, "--split", "0.5,0,0.5")
    assert facts["splits"]["train"] > 60 and facts["splits"]["test"] > 60
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))
    columns["price"] = [price.strip('"') for price in columns["price"]]
    columns["n"] = [float(n) if n else None for n in columns["n"]]
    parquet.write_table(pyarrow.table(columns), tmp_path / "new.parquet")
    prepare(tmp_path / "new.parquet", tmp_path / "c.h5", "--like", made)
    assert np.array_equal(rows_of(tmp_path / "c.h5")["test"], x)


def test_what_the_file_does_not_know_is_named(made, tmp_path):
    """Categories, classes, texts where numbers were, columns; unknown categories may be missing."""
    rows = shop(60, 2)
    rows[7][2], rows[9][3], rows[11][2] = "pink", "xl", "teal"
    path = write_csv(tmp_path / "new.csv", rows, *NAMES)
    words = (path, tmp_path / "new.h5", "--like", made)
    with pytest.raises(DataError, match=r"column 'colour': 'pink', 'teal'; column 'size': 'xl'; --unknown missing"):  # fmt: skip
        prepare(*words, ranks=2)
    prepare(*words, "--unknown", "missing")
    x = rows_of(tmp_path / "new.h5")["test"]
    assert x[7, 2:5].sum() == 1  # the commonest colour, as --missing mean said
    assert np.isfinite(x).all()
    rows = shop(60, 2)
    rows[3][5] = "maybe"
    path = write_csv(tmp_path / "a.csv", rows, *NAMES)
    with pytest.raises(DataError, match="expected classes of the file of --like, no, yes, got 'maybe'"):  # fmt: skip
        prepare(path, tmp_path / "a.h5", "--like", made)
    path = write_csv(tmp_path / "b.csv", [row[1:] for row in shop(60)], *NAMES[1:])
    with pytest.raises(ConfigurationError, match="has no column 'day'"):
        prepare(path, tmp_path / "b.h5", "--like", made)
    path = write_csv(tmp_path / "c.csv", [[*row[:4], "low", row[5]] for row in shop(60)], *NAMES)
    with pytest.raises(DataError, match="column 'n': 'low'"):
        prepare(path, tmp_path / "c.h5", "--like", made, "--unknown", "missing")
    with pytest.raises(ConfigurationError, match="--normalise: is decided by the file of --like"):
        prepare(path, tmp_path / "c.h5", "--like", made, "--normalise", "robust")
    with pytest.raises(ConfigurationError, match="--unknown missing: expected --like"):
        prepare(path, tmp_path / "c.h5", "--label", "buys", "--unknown", "missing")


def test_two_categories_that_a_gap_was_never_in(tmp_path):
    """An unknown one is the commoner, where the file was made without gaps."""
    rows = [[i % 7, "l" if i % 3 else "s", i % 2] for i in range(60)]
    made = tmp_path / "a.h5"
    prepare(write_csv(tmp_path / "a.csv", rows, "n", "size", "label"), made)
    rows[5][1] = "xl"
    path = write_csv(tmp_path / "b.csv", rows, "n", "size", "label")
    prepare(path, tmp_path / "b.h5", "--like", made, "--unknown", "missing")
    assert rows_of(tmp_path / "b.h5")["test"][5].tolist() == [5, 0]  # l


@pytest.mark.parametrize("way", ["standard", "log"])
def test_targets_are_scaled_as_in_the_file(tmp_path, way):
    """Not by their own mean."""
    rows = [[i % 7, 1000 + 10 * i] for i in range(100)]
    made = tmp_path / "a.h5"
    words = ("--label", "price", "--task", "regression")
    prepare(write_csv(tmp_path / "a.csv", rows, "n", "price"), made, *words, "--target-scale", way)
    path = write_csv(tmp_path / "b.csv", [[n, price * 3] for n, price in rows], "n", "price")
    prepare(path, tmp_path / "b.h5", "--like", made)
    with h5py.File(made) as a, h5py.File(tmp_path / "b.h5") as b:
        for name in ("target_shift", "target_scale", "target_log"):
            assert np.array_equal(a[f"normalisation/{name}"][()], b[f"normalisation/{name}"][()])
        assert sorted(b["test/y"][()]) == [3 * price for _, price in rows]


def test_images_are_normalised_as_in_the_file(tmp_path):
    """Rows of another shape are refused."""
    x, y = images(60, (6, 5, 3), classes=3)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    prepare(tmp_path / "a.npz", tmp_path / "a.h5", "--normalise", "standard")
    np.savez(tmp_path / "b.npz", x=x[:10] // 2, y=y[:10])
    facts = same_on_ranks(tmp_path / "b.h5", tmp_path / "b.npz", "--like", tmp_path / "a.h5")
    assert facts["splits"]["test"] == 10
    assert attributes_of_arrays(tmp_path / "a.h5") == attributes_of_arrays(tmp_path / "b.h5")
    np.savez(tmp_path / "c.npz", x=x[:, :5], y=y)
    with pytest.raises(DataError, match=r"expected rows of shape \(6, 5, 3\) as in the file of --like"):  # fmt: skip
        prepare(tmp_path / "c.npz", tmp_path / "c.h5", "--like", tmp_path / "a.h5")


def test_windows_of_a_text_have_the_ids_of_the_file(tmp_path):
    """And its context; a text of other characters was numbered anew before. Unknown characters are named."""
    (tmp_path / "a.txt").write_text("abcdefgh" * 40)
    (tmp_path / "b.txt").write_text("hgfe" * 20)
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--context", "5")
    facts = same_on_ranks(tmp_path / "b.h5", tmp_path / "b.txt", "--like", tmp_path / "a.h5", "--block", "64")  # fmt: skip
    assert facts["splits"] == {"train": 0, "validation": 0, "test": 75}
    x, y = (rows_of(tmp_path / "b.h5", name)["test"] for name in "xy")
    letters = np.array(list("abcdefgh"))
    assert "".join(letters[x[1]]) == "gfehg" and letters[y[1]] == "f"
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert np.array_equal(a["about/vocabulary"][()], b["about/vocabulary"][()])
        assert np.array_equal(a.attrs["classes"], b.attrs["classes"])
    (tmp_path / "c.txt").write_text("abxyz" * 20)
    with h5py.File(tmp_path / "b.h5", "r+") as file:  # as an earlier version wrote it
        facts = json.loads(file["about/encoding"][()].tobytes())
        del facts["vocabulary"], file["about/encoding"]
        file["about/encoding"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with pytest.raises(DataError, match="keeps no tokens; prepare it anew"):
        prepare(tmp_path / "a.txt", tmp_path / "c.h5", "--like", tmp_path / "b.h5")
    with pytest.raises(DataError, match="a text of the 8 tokens of the file of --like, got others: 'x', 'y', 'z'"):  # fmt: skip
        prepare(tmp_path / "c.txt", tmp_path / "c.h5", "--like", tmp_path / "a.h5", ranks=2)


def test_pictures_are_made_as_those_of_the_file(tmp_path):
    """Of its size and colours, without a word; arrays of that shape are taken, too."""
    pytest.importorskip("PIL")
    write_pictures(tmp_path / "a")
    prepare(tmp_path / "a", tmp_path / "a.h5", "--image-size", "4x3", "--colour", "grey")
    prepare(tmp_path / "a", tmp_path / "b.h5", "--like", tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert b["test/x"].shape[1:] == a["train/x"].shape[1:]
        stored = np.concatenate([a[f"{split}/x"][()] for split in ("train", "validation", "test")])
        both = [np.sort(x.reshape(24, -1), axis=0) for x in (stored, b["test/x"][()])]
        assert np.array_equal(*both)
    np.savez(tmp_path / "c.npz", x=stored)
    assert prepare(tmp_path / "c.npz", tmp_path / "c.h5", "--like", tmp_path / "a.h5")["splits"]["test"] == 24  # fmt: skip


def attributes_of_arrays(path):
    """Shift, scale and class names."""
    with h5py.File(path) as file:
        return (
            *(file[f"normalisation/{name}"][()].tolist() for name in ("shift", "scale")),
            file.attrs["classes"].tolist(),
        )


def test_rows_to_score_are_read_for_scoring_alone(made, tmp_path):
    """Evaluation reads them, inspect shows them, and training says what they are."""
    path = write_csv(tmp_path / "new.csv", shop(60, 3), *NAMES)
    prepare(path, tmp_path / "new.h5", "--like", made)
    from lepton_mpi.data import loader

    wanted = loader.Wanted(np.dtype(np.float32), for_training=False)
    data = loader.load(str(tmp_path / "new.h5"), wanted, OneRank())
    assert data.splits["test"].row_count == 60 and data.splits["train"].row_count == 0
    assert data.class_names == ("no", "yes")
    with pytest.raises(DataError, match="expected rows to train on, got none: the file has others"):
        load(tmp_path / "new.h5")
    assert "colour=red" in inspection.text(tmp_path / "new.h5", 40)
    with h5py.File(tmp_path / "new.h5", "r+") as file:
        del file["about/encoding"]
    with pytest.raises(DataError, match="train"):
        loader.load(str(tmp_path / "new.h5"), wanted, OneRank())


def test_rows_to_score_alone_ask_for_the_file(tmp_path):
    """Nothing can be fitted on them."""
    path = write_csv(tmp_path / "a.csv", [[i, i % 2] for i in range(20)], "n", "label")
    for words in ((path, "--split", "0,0,1"), (f"test={path}",)):
        source, *rest = words
        with pytest.raises(DataError, match=r"expected rows to train on.*--like FILE"):
            prepare(source, tmp_path / "a.h5", *rest)


def test_a_file_made_like_another_is_as_good_as_it(made, tmp_path):
    """To the last bit."""
    path = write_csv(tmp_path / "new.csv", shop(60, 3), *NAMES)
    prepare(path, tmp_path / "a.h5", "--like", made)
    prepare(path, tmp_path / "b.h5", "--like", tmp_path / "a.h5")
    assert digest(tmp_path / "a.h5") == digest(tmp_path / "b.h5")


def test_encodings_of_strangers_are_checked(made, tmp_path):
    """Bytes that are no JSON, and JSON of something else."""
    path = write_csv(tmp_path / "new.csv", shop(60, 3), *NAMES)
    with h5py.File(made) as file:
        good = json.loads(file["about/encoding"][()].tobytes())
    assert Encoding.from_bytes(json.dumps(good).encode()).columns == Encoding.from_bytes(json.dumps(good).encode()).columns  # fmt: skip
    wrong = [b"", b"{}", b"[1]", b"\xff", json.dumps(good | {"version": 9}).encode()]
    wrong += [json.dumps(good | {"scale": [1]}).encode(), b"[" * 100_000]
    wrong += [json.dumps(good | {"options": {"columns": 3}}).encode()]
    wrong += [
        json.dumps(good | {"one_hot": [99]}).encode(),
        json.dumps(good | {"fill": [1]}).encode(),
    ]
    wrong += [json.dumps(good | {"categories": {}}).encode()]
    for raw in wrong:
        with h5py.File(made, "r+") as file:
            del file["about/encoding"]
            file["about/encoding"] = np.frombuffer(raw, np.uint8)
        with pytest.raises((DataError, ConfigurationError)):
            prepare(path, tmp_path / "a.h5", "--like", made)
    with h5py.File(made, "r+") as file:
        del file["about/encoding"]
    with pytest.raises(DataError, match="expected a file that prepare made with about/encoding"):
        prepare(path, tmp_path / "a.h5", "--like", made)
