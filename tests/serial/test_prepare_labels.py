"""Labels that stand in files of their own, and tables that name files."""

import h5py
import numpy as np
import pytest
from scipy.io import wavfile

from lepton_mpi.errors import ConfigurationError, DataError
from tests.serial.data_files import table, write
from tests.serial.raw_files import prepare, same_on_ranks, write_csv, write_idx
from tests.serial.test_prepare import rows_of
from tests.serial.test_prepare_folders import KINDS, WORDS, suffix_of, write_file

X, Y = table(60, (4,))


def _features(kind: str, folder):
    """A file of features alone, and the words that prepare it."""
    if kind == "hdf5":
        return write(folder / "x.h5", {"x": X}), ()
    if kind == "npy":
        np.save(folder / "x.npy", X)
        return folder / "x.npy", ()
    if kind == "npz":
        np.savez(folder / "x.npz", pixels=X)
        return folder / "x.npz", ()
    np.savetxt(folder / "x.txt", X, "%16.7e")
    return folder / "x.txt", ("--format", "csv", "--header", "none")


def _labels(kind: str, folder):
    """The same classes in a file of each kind."""
    path = folder / f"labels.{kind}"
    if kind == "npy":
        np.save(path, Y[:, None])
    elif kind == "npz":
        np.savez(path, labels_of_mine=np.eye(3)[Y])
    elif kind == "h5":
        write(path, {"y": Y.astype("u1")[:, None, None, None]})
    elif kind == "idx":
        write_idx(path, Y.astype("u1"))
    elif kind == "mat":
        write(path, {"y": Y.astype("f8")[None]})
        with h5py.File(path, "r+") as file:
            file["y"].attrs["MATLAB_class"] = np.bytes_("double")
    else:
        path.write_text("\ufeff" + "\r\n".join(map(str, Y)) + "\r\n")
    return path


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("labels", ["npy", "npz", "h5", "idx", "mat", "txt"])
@pytest.mark.parametrize("features", ["hdf5", "npy", "npz", "csv"])
def test_labels_of_a_file_join_the_rows_of_another(tmp_path, features, labels):
    """Whatever either of them is."""
    path, words = _features(features, tmp_path)
    given = (
        path,
        "--labels",
        _labels(labels, tmp_path),
        *words,
        "--split",
        "1",
        "--normalise",
        "none",
    )
    facts = same_on_ranks(tmp_path / "a.h5", *given, "--block", "300")
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], X)
    assert rows_of(tmp_path / "a.h5", "y")["train"].tolist() == Y.tolist()
    assert [one["name"] for one in facts["classes"]] == ["0", "1", "2"]


def test_labels_of_each_split(tmp_path):
    """PCam: six files; y of shape (N,1,1,1)."""
    words, files = [], []
    bounds = {"train": (0, 40), "validation": (40, 50), "test": (50, 60)}
    for split, (start, stop) in bounds.items():
        x = write(tmp_path / f"{split}_x.h5", {"x": X[start:stop]})
        y = write(tmp_path / f"{split}_y.h5", {"y": Y[start:stop, None, None, None]})
        words.append(f"{split}={x}")
        files.append(str(y))
    with pytest.raises(DataError, match=r"x: expected y beside it.* or .*--labels FILE"):
        prepare(words[0], tmp_path / "a.h5")
    facts = prepare(*words, tmp_path / "a.h5", "--labels", ",".join(files))
    assert facts["splits"] == {"train": 40, "validation": 10, "test": 10}
    for split, (start, stop) in bounds.items():
        assert rows_of(tmp_path / "a.h5", "y")[split].tolist() == Y[start:stop].tolist()
    with pytest.raises(
        DataError, match=r"test_y.h5: y: expected a label for each of the 40 rows of train_x.h5: x"
    ):
        prepare(*words, tmp_path / "b.h5", "--labels", ",".join(reversed(files)))
    with pytest.raises(DataError, match=r"--labels: expected labels for each of train_x"):
        prepare(*words, tmp_path / "b.h5", "--labels", files[0])


def test_texts_gaps_headers_and_targets(tmp_path):
    """Names of classes, a first line that names the column, a line without a label, numbers to predict."""
    path, words = _features("csv", tmp_path)
    lines = ["species", *(("cat", "dog", "eel")[label] for label in Y)]
    lines[8] = ""
    (tmp_path / "y.txt").write_text("\n".join(lines) + "\n")
    given = (path, *words, "--labels", tmp_path / "y.txt", "--split", "1")
    with pytest.raises(DataError, match=r"y.txt: row 7: expected a label, got none \(1 missing"):
        prepare(*given, tmp_path / "a.h5")
    facts = prepare(*given, tmp_path / "a.h5", "--missing", "drop")
    assert [one["name"] for one in facts["classes"]] == ["cat", "dog", "eel"]
    assert rows_of(tmp_path / "a.h5", "y")["train"].tolist() == np.delete(Y, 7).tolist()
    (tmp_path / "t.txt").write_text(
        "price\n" + "\n".join(f"{value / 7:.6f}" for value in range(60))
    )
    words = (*words, "--labels", tmp_path / "t.txt", "--task", "regression", "--split", "1")
    prepare(path, tmp_path / "b.h5", *words)
    targets = rows_of(tmp_path / "b.h5", "y")["train"].reshape(-1)
    assert np.allclose(targets, np.round(np.arange(60) / 7, 6))


def test_equal_rows_with_other_labels_are_no_duplicates(tmp_path):
    """The label counts, as it does where it stands beside the rows."""
    np.save(tmp_path / "x.npy", np.tile(X[:6], (2, 1)))
    np.save(tmp_path / "y.npy", np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 1, 2, 0]))
    facts = prepare(tmp_path / "x.npy", tmp_path / "a.h5", "--labels", tmp_path / "y.npy")
    assert facts["duplicates"] == 3


def test_files_of_labels_that_are_none(tmp_path):
    """A missing one, a table, one of another width."""
    path, _ = _features("npy", tmp_path)
    with pytest.raises(
        DataError, match=r"--labels: .*none.txt: no such file; --label names a column"
    ):
        prepare(path, tmp_path / "a.h5", "--labels", tmp_path / "none.txt")
    table = write_csv(tmp_path / "y.csv", [[i, i % 2] for i in range(60)], "id", "label")
    with pytest.raises(
        ConfigurationError, match=r"y.csv: line 1: expected a label a line, got 'id,label'"
    ):
        prepare(path, tmp_path / "a.h5", "--labels", table)
    rows = [[i, i, i] for i in range(60)]
    tables = [write_csv(tmp_path / "x.csv", rows), write_csv(tmp_path / "l.csv", [[1], [2]] * 30)]
    with pytest.raises(DataError, match=r"1 column in place of 3; --labels .*l.csv, if it holds"):
        prepare(*tables, tmp_path / "a.h5", "--header", "none")
    with pytest.raises(ConfigurationError, match=r"--labels: is for .*, got inputs of format text"):
        (tmp_path / "a.txt").write_text("hello " * 100)
        prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--labels", table)


def test_a_hostile_file_of_labels_is_refused(tmp_path):
    """It is looked at like any other."""
    path, _ = _features("npy", tmp_path)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset("y", (60,), "i8", external=[("/dev/zero", 0, 480)])
    with pytest.raises(
        DataError, match=r"y.h5: /y: expected data in the file itself, got external storage"
    ):
        prepare(path, tmp_path / "a.h5", "--labels", tmp_path / "y.h5")


# -- tables of files ---------------------------------------------------------------------------------


def _files(kind: str, folder) -> list[str]:
    """24 files in two folders of folds; returns their names without folder."""
    names = [f"{number:02d}-{number % 3}{suffix_of(kind)}" for number in range(24)]
    for number, name in enumerate(names):
        write_file(kind, folder / f"fold{number % 2 + 1}" / name, number)
    return names


@pytest.mark.parametrize("named", ["name", "stem", "path"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_names_the_files_of_a_folder(tmp_path, kind, named):
    """By name, by name without suffix, or by path; the label, the fold and the file belong to each other."""
    names = _files(kind, tmp_path / "files")
    order = np.random.default_rng(0).permutation(24)
    as_named = {
        "name": lambda i: names[i],
        "stem": lambda i: names[i].rpartition(".")[0],
        "path": lambda i: f"fold{i % 2 + 1}/{names[i]}",
    }[named]
    rows = [[i, as_named(i), i % 2 + 1, f"class_{i % 3}"] for i in order]
    labels = write_csv(tmp_path / "labels.csv", rows, "extra", "file", "fold", "class")
    words = (labels, "--files", "file", "--folder", tmp_path / "files", "--label", "class")
    words = (*words, *WORDS[kind], "--group", "fold", "--split", "0.5,0,0.5", "--block", "90")
    facts = same_on_ranks(tmp_path / "a.h5", *words)
    assert facts["splits"] == {"train": 12, "validation": 0, "test": 12}
    # Against a folder by class of the same files, in the table's order.
    for place, number in enumerate(order):
        write_file(kind, tmp_path / "by" / f"class_{number % 3}" / f"{place:02d}", number)
    prepare(tmp_path / "by", tmp_path / "b.h5", "--split", "1", *WORDS[kind])
    expected = dict(
        zip(
            sorted(range(24), key=lambda p: (order[p] % 3, p)),
            rows_of(tmp_path / "b.h5")["train"],
            strict=True,
        )
    )
    x, y = rows_of(tmp_path / "a.h5"), rows_of(tmp_path / "a.h5", "y")
    for split in ("train", "test"):
        folds = {
            order[place] % 2
            for place in range(24)
            if any(np.array_equal(expected[place], row) for row in x[split])
        }
        assert len(folds) == 1
        places = [place for place in range(24) if order[place] % 2 in folds]
        assert all(
            np.array_equal(expected[place], row)
            for place, row in zip(places, x[split], strict=True)
        )
        assert y[split].tolist() == [order[place] % 3 for place in places]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../secret.wav", "expected a file in"),
        ("/etc/passwd", "expected a file in"),
        ("..\\secret.wav", "expected a file in"),
        ("none.wav", "expected one file 'none.wav' in"),
        ("", "expected the name of a file, got none"),
        ("twice.wav", "got 2"),
    ],
)
def test_names_that_are_no_file_of_the_folder_are_refused(tmp_path, name, words):
    """A table cannot have other files read."""
    _files("wav", tmp_path / "files")
    wavfile.write(tmp_path / "secret.wav", 8000, np.zeros(800, "i2"))
    for fold in ("fold1", "fold2"):
        wavfile.write(tmp_path / "files" / fold / "twice.wav", 8000, np.zeros(800, "i2"))
    rows = [["00-0.wav", 0], ["01-1.wav", 1], [name, 1]]
    labels = write_csv(tmp_path / "labels.csv", rows, "file", "label")
    given = (labels, tmp_path / "a.h5", "--files", "file", "--folder", tmp_path / "files")
    with pytest.raises(DataError) as refused:
        prepare(*given, "--seconds", "0.1")
    assert "labels.csv: line 4, column 'file'" in str(refused.value) and words in str(refused.value)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("suffix", [".wav", ".JPG"])
def test_names_of_files_are_no_categories(tmp_path, kind, suffix):
    """They would be as many columns as there are files; --files, --drop-columns and --categorical say what they are."""
    rows = [[f"{i % 9}/{i % 30}{suffix}", i % 7, i % 2] for i in range(60)]
    path = write_csv(tmp_path / "t.csv", rows, "file", "n", "label")
    if kind == "parquet":
        pq = pytest.importorskip("pyarrow.parquet", reason="needs pip install pyarrow")
        csv = pytest.importorskip("pyarrow.csv")
        pq.write_table(csv.read_csv(path), tmp_path / "t.parquet")
        path = tmp_path / "t.parquet"
    with pytest.raises(DataError, match=r"column 'file': names of files, .*--files file --folder"):
        prepare(path, tmp_path / "a.h5")
    facts = prepare(path, tmp_path / "a.h5", "--drop-columns", "file")
    assert facts["row_shape"] == [1]
    facts = prepare(path, tmp_path / "b.h5", "--categorical", "file")
    assert facts["row_shape"] == [61]


def test_a_table_of_files_by_split_and_what_it_does_not_name(tmp_path):
    """train= and test= are kept, files that no table names are counted; targets are read as numbers."""
    names = _files("wav", tmp_path / "files")
    parts = []
    for split, numbers in (("train", range(0, 12)), ("test", range(12, 20))):
        rows = [[names[i], f"{i * 0.5}"] for i in numbers]
        parts.append(f"{split}={write_csv(tmp_path / f'{split}.csv', rows, 'file', 'age')}")
    words = (
        "--files",
        "file",
        "--folder",
        tmp_path / "files",
        "--label",
        "age",
        "--seconds",
        "0.1",
    )
    facts = prepare(*parts, tmp_path / "a.h5", *words, "--task", "regression", "--split", "1")
    assert facts["splits"] == {"train": 12, "validation": 0, "test": 8}
    assert "4 sounds of the folder are not in the table" in facts["notes"]
    with pytest.raises(ConfigurationError, match=r"--files, --folder: expected both"):
        prepare(*parts, tmp_path / "b.h5", *words[:2])


# -- numbers that mean none --------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(-1, 1), (1, 2, 3), (0, 1, 5), (-2, -1, 0, 1)])
def test_labels_that_are_plain_are_not_asked_about(tmp_path, values):
    """Two classes as support vector machines have them, classes from 1, with gaps, and ratings."""
    y = np.array(values)[np.arange(60) % len(values)]
    facts = prepare(write(tmp_path / "a.h5", {"x": X, "y": y}), tmp_path / "b.h5", "--split", "1")
    assert [one["name"] for one in facts["classes"]] == [str(value) for value in values]
