"""Files that cannot be learnt from: one line that names file, data set and row, and no other exception."""

import warnings

import h5py
import numpy as np
import pytest

from lepton_mpi.errors import DataError
from tests.serial.data_files import load, table, write


def _message(path, **options) -> str:
    """The one line in which ``path`` is refused, without its beginning, the path."""
    with pytest.raises(DataError) as caught:
        load(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


def _with(changes: dict[str, object], split: str = "train") -> dict[str, object]:
    """A good file of two splits with some data sets replaced; None takes one away."""
    x, y = table(12)
    contents = {"train/x": x, "train/y": y, "test/x": x.copy(), "test/y": y.copy()}
    contents |= {f"{split}/{name}": values for name, values in changes.items()}
    return {name: values for name, values in contents.items() if values is not None}


def _set(name: str, row: int, value, split: str = "train") -> dict[str, object]:
    """A good file in which one row of a data set has another value."""
    contents = _with({})
    contents[f"{split}/{name}"][row] = value
    return contents


# -- rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("split", ["train", "test"])
def test_numbers_that_are_not_finite_are_named(tmp_path, value, split):
    """NaN and infinities are refused with data set, row and value, without a warning from NumPy."""
    contents = _with({})
    contents[f"{split}/x"][7, 1] = value
    message = _message(write(tmp_path / "a.h5", contents))
    assert message == f"/{split}/x: row 7: expected finite numbers, got {value}"


def test_infinities_of_both_signs_raise_no_warning(tmp_path):
    """Their sum is NaN, about which NumPy would print a line of its own."""
    contents = _with({})
    contents["train/x"][3], contents["train/x"][4] = np.inf, -np.inf
    assert "/train/x: row 3: " in _message(write(tmp_path / "a.h5", contents))


def test_large_finite_numbers_are_taken_without_a_warning(tmp_path):
    """Numbers whose sum overflows are finite all the same."""
    x, _y = table(12)
    path = write(tmp_path / "a.h5", _with({"x": np.full_like(x, 3e38)}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path, np.float32).splits["train"].x.max() == np.float32(3e38)


def test_numbers_too_large_for_float32_are_named(tmp_path):
    """1e300 is infinite in float32, and finite in float64."""
    path = write(tmp_path / "a.h5", _set("x", 5, 1e300))
    assert "/train/x: row 5: " in _message(path, dtype=np.float32)
    load(path, np.float64)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("label", [-1, -(2**40)])
def test_negative_labels_are_named(tmp_path, split, label):
    """A negative label is refused with data set, row and value."""
    message = _message(write(tmp_path / "a.h5", _set("y", 9, label, split)))
    expected = f"/{split}/y: row 9: expected a class from 0 up, got {label}; if it means none: "
    assert message.startswith(expected) and f"--no-label={label} --missing drop" in message


@pytest.mark.parametrize("label", [3, 2**40])
def test_labels_without_a_name_are_named(tmp_path, label):
    """With names for 3 classes, a label of 3 is refused."""
    message = _message(write(tmp_path / "a.h5", _set("y", 9, label), classes=["a", "b", "c"]))
    assert message == f"/train/y: row 9: expected a class from 0 to 2, got {label}"


def test_labels_of_the_test_rows_must_occur_in_training(tmp_path):
    """Without names, classes are those of the training rows."""
    message = _message(write(tmp_path / "a.h5", _set("y", 4, 3, "test")))
    assert "/test/y: row 4: " in message and "from 0 to 2" in message and message.endswith("got 3")


@pytest.mark.parametrize("label", [12, 10**6, 2**62])
def test_there_cannot_be_more_classes_than_rows(tmp_path, label):
    """A label of the size of a measurement is refused instead of making a network of a million outputs."""
    message = _message(write(tmp_path / "a.h5", _set("y", 6, label)))
    assert "/train/y: row 6: " in message and message.endswith(f"got class {label}")


def test_unsigned_labels_beyond_int64_are_named(tmp_path):
    """2**64 - 1 does not turn into -1."""
    _, y = table(12)
    y = y.astype(np.uint64)
    y[5] = 2**64 - 1
    assert "/train/y: row 5: " in _message(write(tmp_path / "a.h5", _with({"y": y})))


# -- data sets ---------------------------------------------------------------------------------------

X, Y = table(12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": X[:-1]}, ["/train/y: expected 11 rows as in /train/x, got 12"]),
        ({"y": Y[:-1]}, ["/train/y: expected 12 rows as in /train/x, got 11"]),
        (
            {"y": Y.astype("S1")},
            ["/train/y: expected numbers as they are, got texts", "--x {split}/x --y {split}/y"],
        ),
        (
            {"y": np.eye(12, 3, dtype=int)},
            ["/test/y: expected labels of 3 numbers as in /train/y, got shape (12,)"],
        ),
        (
            {"y": np.zeros((12, 3, 2), int)},
            ["/train/y: expected whole numbers of shape (rows,)", "(12, 3, 2)"],
        ),
        ({"y": 3}, ["/train/y: expected whole numbers of shape (rows,)", "()"]),
        ({"x": X.astype("S8")}, ["/train/x: expected numbers as they are, got texts"]),
        ({"x": X.astype(complex)}, ["/train/x: expected numbers, got records"]),
        ({"x": np.zeros(12, "f4,f4")}, ["/train/x: expected numbers, got records"]),
        ({"x": 3.0}, ["/train/x: expected numbers of shape (rows, ...)", "()"]),
        ({"y": None}, ["train/x: expected train/y beside it, got test/x"]),
        ({"x": None}, ["train/y: expected train/x beside it, got test/x"]),
        ({"y": None, "y/z": Y}, ["train/x: expected train/y beside it, got test/x"]),
        ({"x": X[:0], "y": Y[:0]}, ["/train/x: expected rows to train on, got none"]),
    ],
    ids=[
        "x too short",
        "y too short",
        "text labels",
        "one-hot labels",
        "labels of three dimensions",
        "scalar label",
        "text",
        "complex",
        "records",
        "scalar",
        "no y",
        "no x",
        "y is a group",
        "no rows",
    ],
)
def test_data_sets_of_another_kind_are_named(tmp_path, changes, words):
    """Wrong types, shapes and lengths, and missing data sets: what was expected and what came."""
    message = _message(write(tmp_path / "a.h5", _with(changes)))
    for word in words:
        assert word in message


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("split", ["train", "test"])
def test_targets_that_are_not_finite_are_named(tmp_path, value, split):
    """NaN, infinities, and numbers that are infinite in float32."""
    contents = _with({"y": Y.astype(float)}) | {"test/y": Y.astype(float)}
    contents[f"{split}/y"][7] = value
    message = _message(write(tmp_path / "a.h5", contents))
    expected = np.float32(min(value, np.inf)) if value != 1e300 else np.float32(np.inf)
    assert message == f"/{split}/y: row 7: expected finite numbers, got {expected}"


@pytest.mark.parametrize(
    ("changes", "y_kind", "words"),
    [
        (
            {"y": Y + 0.5},
            "classes",
            ["/train/y: row 0: expected a whole number, the class, got 0.5", "mse"],
        ),
        ({"y": Y.astype("S1")}, "targets", ["/train/y: expected numbers as they are, got texts"]),
        ({"y": np.zeros((12, 0))}, "auto", ["/train/y: expected numbers of shape", "(12, 0)"]),
        ({"y": np.zeros((12, 2, 2))}, "auto", ["/train/y: expected numbers of", "(12, 2, 2)"]),
        ({"y": 3.0}, "auto", ["/train/y: expected numbers of shape", "()"]),
        ({"y": np.zeros((12, 2))}, "auto", ["/test/y: expected labels of 2 numbers", "(12,)"]),
        ({"y": np.zeros(11)}, "auto", ["/train/y: expected 12 rows as in /train/x, got 11"]),
    ],
    ids=["classes", "text", "none", "too deep", "scalar", "other count", "too short"],
)
def test_targets_of_another_kind_are_named(tmp_path, changes, y_kind, words):
    """What was expected of ``y`` where classes or targets are asked for, and what came."""
    path = write(tmp_path / "a.h5", _with(changes))
    with pytest.raises(DataError) as caught:
        load(path, y_kind=y_kind)
    for word in words:
        assert word in str(caught.value)


def test_floats_with_names_for_classes_are_no_targets(tmp_path):
    """Classes that a program has stored as floats are not taken for numbers to predict; they must be whole."""
    path = write(tmp_path / "a.h5", _with({"y": Y.astype(float)}), classes=["a", "b", "c"])
    assert load(path).splits["train"].y.tolist()[:4] == [0, 1, 2, 0]
    path = write(tmp_path / "b.h5", _with({"y": Y + 0.5}), classes=["a", "b", "c"])
    assert "/train/y: row 0: expected a whole number, the class, got 0.5" in _message(path)


def test_rows_without_a_feature_are_refused(tmp_path):
    """Nothing can be learnt from rows of no numbers."""
    message = _message(write(tmp_path / "a.h5", {"x": X[:, :0], "y": Y}))
    assert "/x: expected" in message and "0)" in message


def test_splits_must_have_rows_of_one_shape(tmp_path):
    """Test rows of another shape than the training rows are refused."""
    message = _message(write(tmp_path / "a.h5", _with({"x": X[:, :2]}, "test")))
    assert message == "/test/x: expected rows of shape (3,) as in /train/x, got (2,)"


@pytest.mark.parametrize(
    "contents",
    [{}, {"pixels": X, "kinds": Y}, {"train": X, "test": X}, {"test/x": X, "test/y": Y}],
    ids=["nothing", "other names", "train is a data set", "test rows only"],
)
def test_files_without_training_rows_say_what_they_have(tmp_path, contents):
    """A file without any of the accepted layouts is told which they are, and what was found."""
    message = _message(write(tmp_path / "a.h5", contents))
    assert (
        "expected arrays such as train/x and train/y, or x_train and y_train, or x and y" in message
    )
    assert (
        f"got {', '.join(sorted(contents)) or 'nothing'}; --x NAME --y NAME say what is meant"
        in message
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_files_too_small_to_be_split_are_refused(tmp_path, rows):
    """If all rows are held out, there is nothing to train on."""
    message = _message(
        write(tmp_path / "a.h5", {"x": X[:rows], "y": Y[:rows]}),
        held_out={"validation": 0.9, "test": 0.9},
    )
    assert "rows" in message


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("normalisation/shift", np.zeros(4)),
        ("normalisation/scale", np.array([1.0, np.nan, 1.0])),
        ("normalisation/scale", "one"),
        ("normalisation/shift/inner", 1.0),
        ("normalisation", 1.0),
    ],
    ids=["wrong shape", "NaN", "text", "group", "no group"],
)
def test_wrong_normalisation_is_named(tmp_path, name, values):
    """Shift and scale must be finite numbers, one or one for each feature."""
    assert "normalisation" in _message(write(tmp_path / "a.h5", _with({}) | {name: values}))


def test_normalisation_too_large_for_the_batches_is_named(tmp_path):
    """1e300 is infinite in float32, of which NumPy would warn, and finite in float64."""
    path = write(tmp_path / "a.h5", _with({}) | {"normalisation/scale": 1e300})
    assert _message(path).startswith("normalisation: expected numbers within float32")
    load(path, np.float64)


@pytest.mark.parametrize("classes", ["abc", 3, [["a", "b"], ["c", "d"]]], ids=str)
def test_wrong_names_of_classes_are_named(tmp_path, classes):
    """``classes`` must be a list of texts; a single text is not a list of letters."""
    assert "classes" in _message(write(tmp_path / "a.h5", _with({}), classes=classes))


# -- files -------------------------------------------------------------------------------------------


def test_missing_files_are_told_the_embedded_names(tmp_path):
    """A misspelt name of an embedded set comes with the names that there are."""
    assert (
        _message(tmp_path / "none.h5")
        == "no such file (embedded data sets: breast_cancer, digits, loans, python_topics, words)"
    )


@pytest.mark.parametrize(
    "content", [b"", b"x,y\n1,2\n", b"\x89HDF\r\n\x1a\n"], ids=["empty", "text", "signature only"]
)
def test_files_that_are_no_hdf5_are_refused(tmp_path, content):
    """An empty file, a text, and a bare signature are not readable HDF5 files."""
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    assert _message(path).startswith("not a readable HDF5 file: ")


def test_folders_and_impossible_names_are_refused(tmp_path):
    """A folder, and a name longer than any file's, are no data sets."""
    assert _message(tmp_path)
    assert _message(tmp_path / ("a" * 300 + ".h5"))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path, part):
    """A file that was copied in part is refused, whatever part it is."""
    path = write(tmp_path / "a.h5", _with({}))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    _message(path)


def test_rows_with_a_wrong_checksum_are_refused(tmp_path):
    """A damaged chunk of a data set with a checksum is refused, and the data set is named."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=X, chunks=X.shape, fletcher32=True)
        file["y"] = Y
    content = path.read_bytes()
    place = content.index(X[5].tobytes())
    path.write_bytes(content[:place] + b"\x11" + content[place + 1 :])
    assert "x" in _message(path).split(": ")[0]


def _external(path, secret):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (12, 3), "f8", external=[(str(secret), 0, 288)])
        file["y"] = Y


def _external_link(path, secret):
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink(str(secret), "x")
        file["y"] = Y


def _virtual(path, secret):
    layout = h5py.VirtualLayout((12, 3), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", (12, 3))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)
        file["y"] = Y


@pytest.mark.parametrize(
    "make", [_external, _external_link, _virtual], ids=["external storage", "link", "virtual"]
)
def test_files_that_read_other_files_are_refused(tmp_path, make):
    """A file from a stranger cannot make training read other files of the user."""
    if make is _external:
        secret = tmp_path / "secret.bin"
        secret.write_bytes(X.tobytes())
    else:
        secret = write(tmp_path / "secret.h5", {"x": X})
    make(tmp_path / "a.h5", secret)
    _message(tmp_path / "a.h5")
