"""Arrays and images in files of their own formats, and what training reads of them, from any number of ranks."""

import gzip

import h5py
import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError, DataError
from tests.serial.data_files import load, read_all
from tests.serial.raw_files import (
    images,
    prepare,
    same_on_ranks,
    write_cifar,
    write_csv,
    write_idx,
)
from tests.serial.test_prepare import rows_of


def test_npz_as_keras_has_it(tmp_path):
    """mnist.npz: uint8 stays uint8, test rows stay test rows, bytes are divided by 255 as training does."""
    x, y = images(300, (28, 28))
    np.savez_compressed(
        tmp_path / "mnist.npz", x_train=x[:240], y_train=y[:240], x_test=x[240:], y_test=y[240:]
    )
    facts = same_on_ranks(tmp_path / "a.h5", tmp_path / "mnist.npz", "--block", "20000")
    assert facts["splits"] == {"train": 213, "validation": 27, "test": 60}
    assert facts["dtype"] == "uint8" and facts["normalisation"]["method"] == "pixels"
    assert np.array_equal(rows_of(tmp_path / "a.h5")["test"], x[240:])
    data = load(tmp_path / "a.h5", np.float64)
    assert data.feature_shape == (28, 28) and data.class_count == 10
    assert np.allclose(read_all(data, "test")[0], x[240:] / 255)
    assert np.array_equal(read_all(data, "test")[1], y[240:])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("x", "y"), ()),
        (("data", "target"), ()),
        (("pixels", "kinds"), ("--x", "pixels", "--y", "kinds")),
        (("train_images", "train_labels"), ()),
        (("a_val", "b_val"), ("--x", "a_{split}", "--y", "b_{split}", "--split", "1")),
    ],
)
def test_names_of_arrays(tmp_path, names, words):
    """Usual ones are found, others are given; with {split} for several."""
    x, y = images(40)
    arrays = {names[0]: x, names[1]: y}
    if "a_val" in names:
        arrays |= {"a_train": x[:30], "b_train": y[:30]}
    np.savez(tmp_path / "a.npz", **arrays)
    assert prepare(tmp_path / "a.npz", tmp_path / "a.h5", *words)["rows_read"] >= 40
    with pytest.raises(ConfigurationError, match=r"--x, --y: .* has no pair 'p' and 'q'"):
        prepare(tmp_path / "a.npz", tmp_path / "b.h5", "--x", "p", "--y", "q")


def test_npy_pairs_and_matrices(tmp_path):
    """Two files, or one with the label in a column."""
    x = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    y = np.arange(60) % 3
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    facts = same_on_ranks(
        tmp_path / "a.h5", tmp_path / "x.npy", tmp_path / "y.npy", "--block", "256"
    )
    assert facts["dtype"] == "float32" and facts["row_shape"] == [5]
    np.save(tmp_path / "m.npy", np.column_stack([y, x.astype(float)]))
    facts = same_on_ranks(tmp_path / "b.h5", tmp_path / "m.npy", "--label", "0", "--block", "256")
    for a, b in zip(rows_of(tmp_path / "a.h5").values(), rows_of(tmp_path / "b.h5").values(), strict=True):  # fmt: skip
        assert np.array_equal(a, b)


def test_nothing_is_unpickled(tmp_path):
    """Arrays of objects are refused by name."""
    np.savez(tmp_path / "a.npz", x=np.array([{}], object), y=np.zeros(1))
    with pytest.raises(DataError, match="Python objects, which are not read"):
        prepare(tmp_path / "a.npz", tmp_path / "a.h5")
    np.save(tmp_path / "m.npy", np.array([[None]], object))
    with pytest.raises(DataError, match="Python objects"):
        prepare(tmp_path / "m.npy", tmp_path / "a.h5", "--label", "0")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match="not a NumPy archive"):
        prepare(tmp_path / "b.npz", tmp_path / "a.h5")


def test_idx_as_mnist_is_published(tmp_path):
    """Four gzipped files in any order; train and t10k say the splits."""
    x, y = images(120, (28, 28))
    files = [
        write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", y[100:]),
        write_idx(tmp_path / "train-images-idx3-ubyte.gz", x[:100]),
        write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", x[100:]),
        write_idx(tmp_path / "train-labels-idx1-ubyte.gz", y[:100]),
    ]
    facts = same_on_ranks(tmp_path / "a.h5", *files, "--block", "10000")
    assert facts["splits"] == {"train": 89, "validation": 11, "test": 20}
    assert np.array_equal(rows_of(tmp_path / "a.h5")["test"], x[100:])
    facts = prepare(*files[1:4:2], tmp_path / "b.h5", "--split", "0.8,0.1,0.1")
    assert facts["splits"] == {"train": 80, "validation": 10, "test": 10}


@pytest.mark.parametrize("kind", ["i2", "i4", "f4", "f8"])
def test_idx_of_other_types(tmp_path, kind):
    """Big endian in the file, this machine's order in the output."""
    x = (np.arange(120).reshape(20, 2, 3) - 50).astype(kind)
    files = [write_idx(tmp_path / "x.idx", x), write_idx(tmp_path / "y.idx", (np.arange(20) % 2).astype("u1"))]  # fmt: skip
    prepare(*files, tmp_path / "a.h5", "--split", "1")
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], x)


@pytest.mark.parametrize(
    "names",
    [
        ("emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte", "emnist-letters-test-images-idx3-ubyte", "emnist-letters-test-labels-idx1-ubyte"),
        ("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int", "qmnist-test10k-images-idx3-ubyte", "qmnist-test10k-labels-idx2-int"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("mnist_train_images.idx", "mnist_train_labels.idx", "mnist_val_images.idx", "mnist_val_labels.idx"),
    ],
    ids=["EMNIST", "QMNIST", "with a point", "own"],
)  # fmt: skip
@pytest.mark.parametrize("as_folder", [False, True])
def test_idx_under_any_usual_name(tmp_path, names, as_folder):
    """As files in any order, and as torchvision's folder, where each may be there packed and unpacked."""
    x, y = images(40)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in zip(names, (x[:30], y[:30], x[30:], y[30:]), strict=True):
        if name.endswith("-int"):  # the class, and where the picture comes from
            array = np.column_stack([array, *[np.arange(len(array))] * 7]).astype("i4")
        write_idx(folder / name, array)
        write_idx(folder / f"{name}.gz", array)
    files = [tmp_path / "MNIST"] if as_folder else [folder / name for name in names[::-1]]
    prepare(*files, tmp_path / "a.h5", "--split", "1", "--task", "classification")
    other = "validation" if "val" in names[2] else "test"
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], x[:30])
    assert np.array_equal(rows_of(tmp_path / "a.h5")[other], x[30:])
    assert rows_of(tmp_path / "a.h5", "y")["train"].tolist() == y[:30].tolist()
    assert rows_of(tmp_path / "a.h5", "y")[other].tolist() == y[30:].tolist()


def test_a_folder_of_several_sets_of_idx_is_asked_about(tmp_path):
    """As EMNIST is packed."""
    for name in ("emnist-letters", "emnist-digits"):
        write_idx(tmp_path / f"{name}-train-images-idx3-ubyte", images(20)[0])
        write_idx(tmp_path / f"{name}-train-labels-idx1-ubyte", images(20)[1])
    with pytest.raises(DataError, match=r"expected one set, got emnist-digits, emnist-letters"):
        prepare(tmp_path, tmp_path / "a.h5")


def test_cifars_pickled_version_is_named(tmp_path):
    """A folder, and each of its files; nothing of it is read."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"\x80\x04\x95no")
    for words in ((folder,), (folder, "--format", "cifar"), (folder / "data_batch_1",)):
        with pytest.raises(
            DataError, match=r"CIFAR's Python version, which is pickled .* cifar-10-binary"
        ):
            prepare(*words, tmp_path / "a.h5")


def test_damaged_idx(tmp_path):
    """Cut, of another kind, without labels."""
    x, y = images(10)
    good, labels = write_idx(tmp_path / "x.idx", x), write_idx(tmp_path / "y.idx", y)
    (tmp_path / "cut.idx").write_bytes(good.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"cut.idx: expected 656 bytes .* got 655"):
        prepare(tmp_path / "cut.idx", labels, tmp_path / "a.h5")
    (tmp_path / "odd.idx").write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises(DataError, match=r"odd.idx: cannot be read"):
        prepare(tmp_path / "odd.idx", labels, tmp_path / "a.h5")
    with pytest.raises(DataError, match="a file of labels for each file of images"):
        prepare(good, tmp_path / "a.h5", "--format", "idx")


def test_cifar_10(tmp_path):
    """A folder as it is unpacked: batches, a test batch, the names of the classes."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    first = write_cifar(folder / "data_batch_1.bin", 30)
    write_cifar(folder / "data_batch_2.bin", 30, seed=1)
    test = write_cifar(folder / "test_batch.bin", 20, seed=2)
    (folder / "batches.meta.txt").write_text("\n".join(f"kind{i}" for i in range(10)) + "\n\n")
    facts = same_on_ranks(tmp_path / "a.h5", folder, "--split", "1", "--block", "9000")
    assert facts["splits"] == {"train": 60, "validation": 0, "test": 20}
    rows = rows_of(tmp_path / "a.h5")
    assert np.array_equal(rows["train"][:30], first) and np.array_equal(rows["test"], test)
    assert load(tmp_path / "a.h5").class_names[3] == "kind3"
    (folder / "data_batch_1.bin").write_bytes(b"x" * 3000)
    with pytest.raises(
        DataError, match=r"data_batch_1.bin: expected whole records of 3073 or 3074"
    ):
        prepare(folder, tmp_path / "b.h5")


def test_cifar_100(tmp_path):
    """Fine labels, or the coarse ones."""
    write_cifar(tmp_path / "train.bin", 40, label_bytes=2)
    write_cifar(tmp_path / "test.bin", 10, label_bytes=2)
    inputs = (tmp_path / "train.bin", tmp_path / "test.bin")
    assert len(prepare(*inputs, tmp_path / "a.h5")["classes"]) == 100
    assert len(prepare(*inputs, tmp_path / "b.h5", "--label", "coarse")["classes"]) == 20
    assert rows_of(tmp_path / "a.h5", "y")["test"].tolist() == list(range(10))
    assert rows_of(tmp_path / "b.h5", "y")["test"].tolist() == [0] * 5 + [1] * 5


def test_hdf5_of_an_instrument(tmp_path):
    """Any names in any group, beside whatever else is in the file; labels as numbers or texts."""
    x = np.random.default_rng(0).standard_normal((50, 3, 4))
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["run7/detector"], file["run7/kind"] = x, [b"up", b"down"] * 25
        file["run7/log"], file["latest"] = np.zeros(3, "f4,f4"), h5py.SoftLink("/run7")
        file["run7/detector"].attrs["scale"] = file["run7/log"].ref
    words = (tmp_path / "raw.h5", "--x", "run7/detector", "--y", "run7/kind", "--block", "200")
    facts = same_on_ranks(tmp_path / "a.h5", *words)
    assert [c["name"] for c in facts["classes"]] == ["down", "up"]
    assert sum(map(len, rows_of(tmp_path / "a.h5").values())) == 50


def test_hdf5_that_points_elsewhere_is_refused(tmp_path):
    """Links and virtual data could read other files of the user."""
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["y"] = [0, 1]
        file["x"] = h5py.ExternalLink("secret.h5", "/x")
    with pytest.raises(DataError, match="expected data in the file itself, got a link"):
        prepare(tmp_path / "raw.h5", tmp_path / "a.h5")
    with pytest.raises(DataError, match="expected data in the file itself, got a link"):
        prepare(tmp_path / "raw.h5", tmp_path / "a.h5", "--x", "x", "--y", "y")


def test_several_targets(tmp_path):
    """--task regression writes floats of shape (rows, targets), from arrays and tables."""
    x = np.random.default_rng(0).standard_normal((40, 3))
    y = x @ np.ones((3, 2)) + [0, 1]
    np.savez(tmp_path / "a.npz", x=x, y=y)
    same_on_ranks(tmp_path / "a.h5", tmp_path / "a.npz", "--task", "regression", "--split", "1")
    assert np.array_equal(rows_of(tmp_path / "a.h5", "y")["train"], y)
    rows = [[repr(float(v)) for v in row] for row in np.column_stack([x, y])]
    path = write_csv(tmp_path / "t.csv", rows, *"abcpq")
    words = (path, "--task", "regression", "--label", "p,q", "--split", "1", "--block", "500")
    same_on_ranks(tmp_path / "b.h5", *words)
    assert np.array_equal(rows_of(tmp_path / "b.h5", "y")["train"], y)
    prepare(path, tmp_path / "c.h5", "--task", "regression", "--label", "p", "--drop-columns", "q")
    targets = rows_of(tmp_path / "c.h5", "y")
    assert targets["train"].shape == (32,) and targets["train"].dtype == np.float64
    with h5py.File(tmp_path / "c.h5") as file:
        assert "classes" not in file.attrs
    assert load(tmp_path / "b.h5", np.float64).target_count == 2
    assert load(tmp_path / "c.h5").target_count == 1
    counts = write_csv(tmp_path / "u.csv", [[i, 3 * i] for i in range(40)], "x", "y")
    prepare(counts, tmp_path / "d.h5", "--task", "regression")
    assert (
        load(tmp_path / "d.h5").target_count == 1
    )  # whole numbers are targets, too, if they are said to be


@pytest.mark.slow
def test_a_gzipped_table_of_images(tmp_path):
    """785 columns, the label first, as MNIST circulates; read block by block, uint8 in the file."""
    x, y = images(400, (28, 28))
    names = ["label", *(f"{i + 1}x{j + 1}" for i in range(28) for j in range(28))]
    rows = np.column_stack([y, x.reshape(400, -1)]).tolist()
    path = write_csv(tmp_path / "mnist_train.csv.gz", rows, *names)
    assert gzip.decompress(path.read_bytes()).startswith(b"label,1x1")
    words = (path, "--normalise", "pixels", "--block", "100000")
    facts = same_on_ranks(tmp_path / "a.h5", *words)
    assert facts["dtype"] == "uint8" and facts["row_shape"] == [784]
    rows = rows_of(tmp_path / "a.h5")
    assert sum(len(r) for r in rows.values()) == 400
    everything = {row.tobytes() for part in rows.values() for row in part}
    assert everything == {row.tobytes() for row in x}
