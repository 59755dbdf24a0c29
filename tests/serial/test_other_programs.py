"""HDF5 files as other programs write them: what training takes as it is, what ``prepare`` reads, and the way on for the rest."""

import h5py
import numpy as np
import pytest

from lepton_mpi.data.files.array_names import find_pairs
from lepton_mpi.errors import ConfigurationError, DataError
from tests.serial.data_files import load, read_all, table, write
from tests.serial.raw_files import prepare, same_on_ranks
from tests.serial.test_prepare import rows_of

X, Y = table(60, (4,))


def _refused(path, **options) -> str:
    """The line in which training refuses a file."""
    with pytest.raises(DataError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _command(message: str) -> list[str]:
    """The words behind ``prepare`` of the command that a message names, which must work."""
    return message.rpartition("python -m lepton_mpi prepare ")[2].split()


# -- names of splits and arrays ----------------------------------------------------------------------

_SPELLINGS = [
    ("{s}/{n}", "x", "y"),
    ("{n}_{s}", "x", "y"),
    ("{s}_{n}", "x", "y"),
    ("{n}_{s}", "X", "y"),
    ("{s}/{n}", "images", "labels"),
    ("{s}_set_{n}", "x", "y"),
    ("{n}{s}", "X", "Y"),
    ("{s}_{n}", "data", "label"),
]


def _named(pattern: str, x: str, y: str, words: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Rows 0 to 39 for training, and behind them 10 for each other split."""
    contents, bounds = {}, [0, 40, 50, 60]
    for word, start, stop in zip(words, bounds, bounds[1:], strict=False):
        for name, rows in ((x, X[start:stop]), (y, Y[start:stop])):
            contents[pattern.format(s=word, n=name)] = rows
    return contents


@pytest.mark.parametrize("val", ["validation", "valid", "val", "dev"])
@pytest.mark.parametrize("spelling", _SPELLINGS, ids=str)
def test_the_users_validation_rows_are_used_by_training_and_prepare(tmp_path, spelling, val):
    """Under each of their usual names, in HDF5 and in archives; the right rows in the right split."""
    contents = _named(*spelling, ("train", val, "test"))
    data = load(write(tmp_path / "a.h5", contents), np.float64)
    np.savez(tmp_path / "a.npz", **{name.replace("/", "__"): v for name, v in contents.items()})
    prepare(tmp_path / "a.h5", tmp_path / "h.h5", "--normalise", "none")
    inputs = [rows_of(tmp_path / "h.h5")]
    if "/" not in spelling[0]:
        prepare(tmp_path / "a.npz", tmp_path / "z.h5", "--normalise", "none")
        inputs.append(rows_of(tmp_path / "z.h5"))
    for split, start, stop in (("train", 0, 40), ("validation", 40, 50), ("test", 50, 60)):
        assert np.array_equal(read_all(data, split)[0], X[start:stop].reshape(-1, 4)), split
        for rows in inputs:
            assert np.array_equal(rows[split], X[start:stop]), split


def test_rows_without_a_split_beside_test_rows(tmp_path):
    """x and y are divided, x_test and y_test stay for testing."""
    contents = {"X": X[:50], "y": Y[:50], "X_test": X[50:], "y_test": Y[50:]}
    path = write(tmp_path / "a.h5", contents)
    data = load(path, np.float64)
    assert np.array_equal(read_all(data, "test")[0], X[50:])
    assert data.splits["train"].row_count == 40 and data.splits["validation"].row_count == 10
    facts = prepare(path, tmp_path / "b.h5")
    assert np.array_equal(rows_of(tmp_path / "b.h5")["test"], X[50:])
    assert facts["splits"]["train"] + facts["splits"]["validation"] == 50


def test_names_that_mean_the_same_are_asked_about():
    """Two validation splits, and features without labels."""
    pair = ["x_train", "y_train"]
    with pytest.raises(DataError, match=r"one array of validation rows, got x_valid and x_val"):
        find_pairs([*pair, "x_val", "y_val", "x_valid", "y_valid"])
    with pytest.raises(DataError, match=r"x_test: expected y_test beside it"):
        find_pairs([*pair, "x_test"])
    with pytest.raises(DataError, match=r"expected one name of an array, got X and x"):
        find_pairs(["X", "x", "y"])


def test_other_names_are_given_to_training_too(tmp_path):
    """By --x and --y, with {split} for several splits; nothing else is looked at."""
    contents = {
        "run/train/a": X[:40],
        "run/train/b": Y[:40],
        "run/dev/a": X[40:],
        "run/dev/b": Y[40:],
    }
    path = write(tmp_path / "a.h5", contents)
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = h5py.ExternalLink("secret.h5", "/x")
    data = load(path, np.float64, arrays=("run/{split}/a", "run/{split}/b"))
    assert np.array_equal(read_all(data, "validation")[0], X[40:])
    with pytest.raises(
        ConfigurationError, match=r"no pair 'x' and 'y'; it has x; .* --labels FILE"
    ):
        find_pairs(["x"], "x", "y")
    with pytest.raises(ConfigurationError, match=r"--x, --y: .*a.h5 has no pair 'p' and 'q'"):
        with h5py.File(path, "r+") as file:
            del file["elsewhere"]
        load(path, arrays=("p", "q"))


# -- what stands beside the rows ---------------------------------------------------------------------


def _beside(file: h5py.File) -> None:
    """What other programs put into a file: none of it is read."""
    file["train/filename"] = [f"img_{i}.png" for i in range(60)]
    file["train/kind"] = np.array([b"fixed"] * 60)
    file["sample"] = np.arange(60)
    file["sample"].make_scale("sample")
    file["train/x"].dims[0].attach_scale(file["sample"])
    file["log"] = np.zeros(3, "f4,f4")
    file["refs"] = np.array([file.ref] * 3, h5py.ref_dtype)
    file.create_dataset("lists", (3,), h5py.vlen_dtype("f8"))
    file.create_dataset("packed", data=np.zeros((10, 4)), compression="lzf")
    file.create_dataset("later", (1000, 4), "f8", chunks=(10, 4))
    file["types/kind"] = np.dtype("f4")
    file.attrs["history"] = h5py.Empty("f8")
    file["train/y"].attrs["owner"] = file.ref


def test_what_stands_beside_the_rows_is_no_reason_to_refuse_them(tmp_path):
    """Texts, scales, records, references, filters: told if they look like rows, and not read."""
    path = write(tmp_path / "a.h5", {"train/x": X, "train/y": Y})
    with h5py.File(path, "r+") as file:
        _beside(file)
    data = load(path, np.float64, held_out={"validation": 0, "test": 0})
    assert np.array_equal(read_all(data, "train")[0], X)
    assert "not used: train/filename, train/kind" in data.notes[0]
    facts = same_on_ranks(tmp_path / "b.h5", path, "--split", "1")
    assert np.array_equal(rows_of(tmp_path / "b.h5")["train"], X)
    assert "not used: train/filename, train/kind" in facts["notes"]


@pytest.mark.parametrize(
    "make",
    [
        lambda file: file.create_dataset("raw", (9,), "f8", external=[("secret", 0, 72)]),
        lambda file: file.__setitem__("raw", h5py.ExternalLink("secret.h5", "/x")),
        lambda file: file.__setitem__("other/again", file["/"]),
    ],
    ids=["external storage", "external link", "circle"],
)
def test_what_leads_out_of_the_file_is_refused_wherever_it_is(tmp_path, make):
    """With the way on: names, with which nothing else is looked at."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y})
    with h5py.File(path, "r+") as file:
        make(file)
    assert "with --x and --y nothing is looked at but what they name" in _refused(path)
    data = load(path, np.float64, {"validation": 0, "test": 0}, arrays=("x", "y"))
    assert np.array_equal(read_all(data, "train")[0], X)


def test_text_labels_are_refused_with_a_command_that_works(tmp_path, monkeypatch):
    """By training, which takes numbers; prepare codes them."""
    monkeypatch.chdir(tmp_path)
    path = write(
        tmp_path / "a.h5", {"images": X, "labels": np.array(["cat", "dog", "eel"])[Y].tolist()}
    )
    message = _refused(path)
    assert "/labels: expected numbers as they are, got texts" in message
    facts = prepare(*_command(message), "--split", "1")
    assert [one["name"] for one in facts["classes"]] == ["cat", "dog", "eel"]
    assert rows_of(tmp_path / "a.prepared.h5", "y")["train"].tolist() == Y.tolist()


# -- labels ------------------------------------------------------------------------------------------

_EYE = np.eye(3)[Y]


@pytest.mark.parametrize(
    ("y", "is_float"),
    [
        (Y.astype("f4"), True),
        (Y[:, None], False),
        (Y.astype("u1")[:, None, None, None], False),
        (_EYE.astype("i8"), False),
        (_EYE.astype("f4"), True),
        (_EYE.astype(bool), False),
        (_EYE[:, :, None], True),
    ],
    ids=["floats", "(N,1)", "(N,1,1,1)", "one-hot", "float one-hot", "bool one-hot", "(N,3,1)"],
)
def test_labels_are_the_same_classes_however_they_are_stored(tmp_path, y, is_float):
    """In HDF5 for training and prepare, in archives, and in two arrays."""
    path = write(tmp_path / "a.h5", {"x": X, "y": y})
    data = load(path, held_out={"validation": 0, "test": 0}, y_kind="classes")
    assert data.splits["train"].y.tolist() == Y.tolist() and data.class_count == 3
    if is_float:
        assert "--loss cross_entropy takes them as classes" in load(path).notes[0]
    np.savez(tmp_path / "a.npz", x=X, y=y)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", y)
    for inputs in ([path], [tmp_path / "a.npz"], [tmp_path / "x.npy", tmp_path / "y.npy"]):
        facts = prepare(*inputs, tmp_path / "b.h5", "--split", "1", "--force")
        assert rows_of(tmp_path / "b.h5", "y")["train"].tolist() == Y.tolist()
        assert [one["name"] for one in facts["classes"]] == ["0", "1", "2"]


def test_classes_without_a_row_stay_where_one_hot_rows_have_their_place(tmp_path):
    """A column without a 1 is a class all the same, and training is told of it."""
    path = write(tmp_path / "a.h5", {"x": X, "y": np.eye(5)[Y + 1]})
    facts = prepare(path, tmp_path / "b.h5", "--split", "1")
    assert len(facts["classes"]) == 5
    assert rows_of(tmp_path / "b.h5", "y")["train"].tolist() == (Y + 1).tolist()
    data = load(path, y_kind="classes")
    assert data.class_count == 5
    assert "no training row of 2 of 5 classes: 0, 4" in data.notes


def test_classes_from_1_are_told(tmp_path):
    """Class 0 has an output and no row."""
    data = load(write(tmp_path / "a.h5", {"x": X, "y": Y + 1}))
    assert data.class_count == 4 and data.notes == ("no training row of 1 of 4 classes: 0",)


@pytest.mark.parametrize(("value", "rows"), [(-1, 60), (255, 60), (255, 600), (65535, 60)])
def test_a_label_that_may_mean_none_is_asked_about_by_training(tmp_path, monkeypatch, value, rows):
    """However many rows there are; both commands of the message work."""
    monkeypatch.chdir(tmp_path)
    y = np.resize(Y, rows).astype("i4")
    y[[7, 8]] = value
    path = write(tmp_path / "a.h5", {"x": np.resize(X, (rows, 4)), "y": y})
    message = _refused(path)
    assert f"/y: row 7: {'expected a class from 0 up, got ' * (value < 0)}{value}" in message
    words = message.partition("python -m lepton_mpi prepare ")[2].split()
    facts = prepare(*words[: words.index("drop") + 1], "--split", "1")
    assert facts["dropped"] == {"without a label": 2}
    assert [one["name"] for one in facts["classes"]] == ["0", "1", "2"]
    if value > 0:
        facts = prepare(*words[:2], "--no-label", "none", "--force")
        assert [one["name"] for one in facts["classes"]] == ["0", "1", "2", str(value)]


def test_255_among_classes_that_go_on_to_it_is_a_class(tmp_path):
    """As in a file of all bytes."""
    y = np.resize(np.arange(256), 600)
    data = load(write(tmp_path / "a.h5", {"x": np.resize(X, (600, 4)), "y": y.astype("u1")}))
    assert data.class_count == 256 and data.notes == ()


@pytest.mark.parametrize("value", [np.nan, 0.5, 1.0])
def test_rows_that_are_not_one_hot_are_named(tmp_path, value):
    """With the option that takes them as targets."""
    y = _EYE.copy()
    y[7] = [value, 0, 1]
    path = write(tmp_path / "a.h5", {"x": X, "y": y})
    assert "/y: row 7: expected one 1, at the class, and else 0" in _refused(path, y_kind="classes")
    with pytest.raises(DataError, match=r"row 7: expected a one-hot label, .* --task regression"):
        prepare(path, tmp_path / "b.h5")


def test_floats_that_are_no_classes_stay_targets_without_a_word(tmp_path):
    """And with classes asked for, the first that is not whole is named."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y + 0.25})
    assert load(path).notes == () and load(path).target_count == 1
    assert "/y: row 0: expected a whole number, the class, got 0.25" in _refused(
        path, y_kind="classes"
    )
    many = write(tmp_path / "b.h5", {"x": X, "y": np.arange(60) * 1000.0})
    assert load(many).notes == ()


# -- MATLAB, NetCDF, AnnData, pandas -----------------------------------------------------------------


def _matlab(path, **arrays) -> None:
    """As MATLAB saves arrays with -v7.3: dimensions in reverse order, a head of its own before the file."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            values = np.atleast_2d(np.asarray(values))
            made = file.create_dataset(name, data=values.T, chunks=True, compression="gzip")
            made.attrs["MATLAB_class"] = np.bytes_("double")
        file["#refs#/a"] = np.array([file.ref], h5py.ref_dtype)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\0\2IM")


@pytest.mark.parametrize("column", [True, False], ids=["y is a column", "y is a row"])
def test_matlabs_arrays_are_turned(tmp_path, monkeypatch, column):
    """A matrix has rows of samples, images have them last; training names the command."""
    monkeypatch.chdir(tmp_path)
    path, y = tmp_path / "a.mat", (Y + 1.0)
    _matlab(path, X=X, y=y[:, None] if column else y[None])
    message = _refused(path)
    assert "/X: expected numbers as they are, got an array of MATLAB" in message
    facts = prepare(*_command(message), "--split", "1")
    assert np.array_equal(rows_of(tmp_path / "a.prepared.h5")["train"], X)
    assert rows_of(tmp_path / "a.prepared.h5", "y")["train"].tolist() == Y.tolist()
    assert [one["name"] for one in facts["classes"]] == ["1", "2", "3"]
    assert "X: turned as MATLAB shows it, 60x4, rows are its first dimension" in facts["notes"]
    images = np.arange(60 * 5 * 6 * 3, dtype=np.float64).reshape(5, 6, 3, 60)
    _matlab(path, X=images, y=y[:, None])
    same_on_ranks(tmp_path / "b.h5", path, "--split", "1", "--block", "3000")
    assert np.array_equal(rows_of(tmp_path / "b.h5")["train"], np.moveaxis(images, -1, 0))


def test_matlabs_square_matrices_are_asked_about(tmp_path):
    """Rows or columns? --rows says."""
    _matlab(tmp_path / "a.mat", X=X[:4], y=Y[:4])
    with pytest.raises(ConfigurationError, match=r"--rows: .*X: .* Say --rows first or last"):
        prepare(tmp_path / "a.mat", tmp_path / "a.h5")
    for rows, expected in (("first", X[:4]), ("last", X[:4].T)):
        words = ("--rows", rows, "--split", "1", "--force", "--task", "classification")
        prepare(tmp_path / "a.mat", tmp_path / "a.h5", *words)
        assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], expected)
    _matlab(tmp_path / "b.mat", X=X, y=Y[:50])
    with pytest.raises(DataError, match=r"X: expected a dimension of 50 rows"):
        prepare(tmp_path / "b.mat", tmp_path / "b.h5")


def test_arrays_with_rows_last(tmp_path):
    """Of other programs: --rows last, which the message names."""
    path = write(tmp_path / "a.h5", {"x": X.T, "y": Y})
    np.savez(tmp_path / "a.npz", x=X.T, y=Y)
    for given in (path, tmp_path / "a.npz"):
        with pytest.raises(DataError, match=r"a label for each of 4 rows, got 60; --rows last"):
            prepare(given, tmp_path / "b.h5", "--force")
        prepare(given, tmp_path / "b.h5", "--rows", "last", "--split", "1", "--force")
        assert np.array_equal(rows_of(tmp_path / "b.h5")["train"], X)


def test_numbers_that_netcdf_packs_are_unpacked(tmp_path, monkeypatch):
    """scale_factor, add_offset and _FillValue; a gap is a gap, in labels too. Training refuses them with the command."""
    monkeypatch.chdir(tmp_path)
    raw = np.arange(240).reshape(60, 4).astype("i2")
    raw[5, 2], kinds = -999, Y.astype("i1")
    kinds[9] = -1
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.attrs["_NCProperties"] = b"version=2,netcdf=4.9.2"
        file["x"], file["y"] = raw, kinds
        file["x"].attrs.update(
            {"scale_factor": [0.01], "add_offset": 3.0, "_FillValue": np.int16(-999)}
        )
        file["y"].attrs["_FillValue"] = np.array([-1], "i1")
        file.create_dataset("band", (4,), "f4").make_scale("This is a netCDF dimension")
    message = _refused(tmp_path / "a.nc")
    assert "packed, or of which some stand for none" in message
    with pytest.raises(DataError, match=r"row 5, number 2 of the row: expected a value, got none"):
        prepare(tmp_path / "a.nc", tmp_path / "b.h5")
    facts = prepare(*_command(message), "--missing", "drop", "--split", "1", "--normalise", "none")
    kept = np.delete(np.arange(60), [5, 9])
    rows = rows_of(tmp_path / "a.prepared.h5")["train"]
    assert np.array_equal(rows, raw[kept] * 0.01 + 3.0)
    assert facts["dropped"] == {"without a label": 1, "with missing values": 1}
    assert rows_of(tmp_path / "a.prepared.h5", "y")["train"].tolist() == Y[kept].tolist()


@pytest.mark.parametrize(
    ("dtype", "attributes", "valid"),
    [
        ("i2", {"valid_range": np.array([10, 200], "i2")}, (10, 200)),
        ("i2", {"valid_min": np.int16(10)}, (10, 10**6)),
        ("u1", {"valid_max": np.uint8(200), "scale_factor": 0.5}, (0, 200)),
        ("i2", {"valid_range": [10.0, 50.0], "scale_factor": 0.25}, (40, 200)),
        ("f4", {"valid_range": [10.0, 200.0]}, (10, 200)),
        ("i1", {"valid_range": np.array([10, -56], "i1"), "_Unsigned": "true"}, (10, 200)),
    ],
    ids=["range", "min", "max of packed", "range of unpacked", "floats", "unsigned"],
)
def test_numbers_beyond_their_valid_range_are_missing(tmp_path, dtype, attributes, valid):
    """Limits are as stored, but for floats of packed whole numbers; a limit itself is valid."""
    whole = np.arange(240).reshape(60, 4)
    stored = whole.astype("u1").view("i1") if dtype == "i1" else whole.astype(dtype)
    path = write(tmp_path / "a.nc", {"x": stored, "y": Y})
    with h5py.File(path, "r+") as file:
        file["x"].attrs.update(attributes)
    assert "packed, or of which some stand for none" in _refused(path)
    words = ("--missing", "drop", "--split", "1", "--normalise", "none")
    facts = prepare(path, tmp_path / "b.h5", *words)
    kept = ((whole >= valid[0]) & (whole <= valid[1])).all(axis=1)
    assert 0 < facts["dropped"]["with missing values"] == 60 - kept.sum()
    expected = whole[kept] * attributes.get("scale_factor", 1.0)
    assert np.array_equal(rows_of(tmp_path / "b.h5")["train"], expected)
    assert "is missing" in facts["notes"][0]


def _anndata(path, encoding: str = "csr_matrix", **storage) -> np.ndarray:
    """Cells with counts in compressed sparse rows, and types as categories; returns the counts."""
    dense = np.random.default_rng(0).poisson(0.3, (60, 7)).astype("f4")
    rows, columns = np.nonzero(dense)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = encoding, dense.shape
        group.create_dataset("data", data=dense[rows, columns], **storage)
        group.create_dataset("indices", data=columns, **storage)
        group["indptr"] = np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))])
        codes = Y.astype("i1")
        codes[4] = -1
        file["obs/cell_type/codes"], file["obs/cell_type/categories"] = codes, ["B", "NK", "T"]
        file["obs/_index"] = [f"cell {i}" for i in range(60)]
    return dense


@pytest.mark.parametrize("y", ["obs/cell_type", "obs/cell_type/codes"])
def test_sparse_rows_and_categories_of_anndata(tmp_path, monkeypatch, y):
    """Zeros are filled in, codes have their names, -1 is no label."""
    dense = _anndata(tmp_path / "a.h5ad", chunks=True, compression="gzip")
    words = (tmp_path / "a.h5ad", "--x", "X", "--y", y, "--missing", "drop", "--split", "1")
    facts = same_on_ranks(tmp_path / "b.h5", *words, "--block", "100")
    kept = np.delete(np.arange(60), 4)
    assert np.array_equal(rows_of(tmp_path / "b.h5")["train"], dense[kept])
    assert rows_of(tmp_path / "b.h5", "y")["train"].tolist() == Y[kept].tolist()
    assert [one["name"] for one in facts["classes"]] == ["B", "NK", "T"]
    monkeypatch.chdir(tmp_path)
    message = _refused(tmp_path / "a.h5ad")
    command = _command(message.partition("; or ")[0])
    assert command[2:] == ["--x", "X", "--y", "obs/cell_type"]
    facts = prepare(*command, "--missing", "drop", "--split", "1")
    assert facts["splits"]["train"] == 59
    with pytest.raises(DataError, match=r"expected a label, got none \(1 missing in all\)"):
        prepare(*words[:5], tmp_path / "c.h5")


@pytest.mark.parametrize("damage", ["columns", "starts", "shape", "wide", "by columns"])
def test_sparse_rows_that_are_none_are_named(tmp_path, damage):
    """Indices and bounds are not believed."""
    path = tmp_path / "a.h5ad"
    _anndata(path, "csc_matrix" if damage == "by columns" else "csr_matrix")
    with h5py.File(path, "r+") as file:
        if damage == "columns":
            file["X/indices"][3] = 7
        elif damage == "starts":
            file["X/indptr"][3] = 10**6
        elif damage == "shape":
            file["X"].attrs["shape"] = (61, 7)
        elif damage == "wide":
            file["X"].attrs["shape"] = (60, 10**12)
    with pytest.raises(DataError, match=r"a\.h5ad: X: expected .*(damaged|tocsr)"):
        prepare(path, tmp_path / "b.h5", "--x", "X", "--y", "obs/cell_type", "--missing", "drop")


def test_frames_of_pandas_are_named(tmp_path):
    """Not one array, and read by pandas alone: the way to Parquet."""
    path = write(
        tmp_path / "a.h5",
        {
            "df/axis0": ["a", "b"],
            "df/axis1": np.arange(3),
            "df/block0_values": X[:3],
            "df/block0_items": ["a"],
        },
    )
    for refuse in (lambda: load(path), lambda: prepare(path, tmp_path / "b.h5")):
        with pytest.raises(
            DataError, match=r"got df, a frame of pandas: pandas\.read_hdf\('a\.h5', 'df'\)"
        ):
            refuse()


@pytest.mark.parametrize(
    ("storage", "name"),
    [
        ({"compression": "lzf"}, r"lzf \(32000\)"),
        ({"scaleoffset": 4, "chunks": (10, 4)}, r"scaleoffset \(6\)"),
    ],
)
def test_filters_are_named_with_the_remedy(tmp_path, monkeypatch, storage, name):
    """A command of one line, which makes a file that is taken."""
    with h5py.File(tmp_path / "OLD.h5", "w") as file:
        file.create_dataset("train/x", data=X.astype("f4"), **storage)
        file["train/y"] = Y
    for refuse in (
        lambda: load(tmp_path / "OLD.h5"),
        lambda: prepare(tmp_path / "OLD.h5", tmp_path / "b.h5"),
    ):
        with pytest.raises(DataError, match=name) as caught:
            refuse()
    code = str(caught.value).partition('python -c "')[2].rstrip('"')
    assert "'/train/x'" in code
    monkeypatch.chdir(tmp_path)
    exec(
        code.replace(
            "a['/train/x'][:]", "a['/train/x'][:]; b['train/y'] = a['train/y'][:]; b.close()"
        ),
        {},
    )
    assert load(tmp_path / "NEW.h5").splits["train"].x.max() == pytest.approx(X.max(), abs=1e-3)


# -- files that are no HDF5 --------------------------------------------------------------------------

_HEADS = {
    "a.csv": (b"a,b,label\n1,2,0\n", "a text: python -m lepton_mpi prepare", "--label NAME"),
    "a.dat": (b"a b c\n1 2 0\n", "a text: python -m lepton_mpi prepare", "--format csv"),
    "a.npz": (b"PK\x03\x04" + bytes(9), "a NumPy archive: python -m lepton_mpi prepare", ".npz"),
    "a.npy": (b"\x93NUMPY\x01\0", "a NumPy array: python -m lepton_mpi prepare", "--label"),
    "a.parquet": (b"PAR1" + bytes(9), "a Parquet file: python -m lepton_mpi prepare", "--label"),
    "a.xlsx": (b"PK\x03\x04" + bytes(9), "a spreadsheet", "save it as CSV"),
    "a.mat": (b"MATLAB 5.0 MAT-file, " + bytes(9), "before v7.3", "-v7.3"),
    "a.nc": (b"CDF\x01" + bytes(9), "NetCDF-3", "nccopy"),
    "a.pkl": (b"\x80\x04\x95" + bytes(9), "pickled, which is not read", "numpy.savez"),
    "t10k-ubyte": (b"\0\0\x08\x03" + bytes(99), "an IDX file: python -m lepton_mpi prepare", "idx"),
}


@pytest.mark.parametrize("name", _HEADS)
def test_what_a_file_is_that_is_no_hdf5(tmp_path, name):
    """By its first bytes, with the command that reads it; a folder too."""
    content, *words = _HEADS[name]
    (tmp_path / name).write_bytes(content)
    message = _refused(tmp_path / name)
    assert message.startswith(f"{tmp_path / name}: not a readable HDF5 file: ")
    assert all(word in message for word in words), message
    assert "a folder: python -m lepton_mpi prepare" in _refused(tmp_path)
