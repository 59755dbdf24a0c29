"""Parquet, which format a file is taken for, what fits none of them, several files, and damaged ones."""

import gzip
import importlib.util
import io
import os
import random
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError, DataError, LeptonError
from tests.serial.raw_files import (
    images,
    prepare,
    same_on_ranks,
    write_cifar,
    write_csv,
    write_idx,
    write_sounds,
)
from tests.serial.test_prepare import rows_of

needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None,
    reason="pyarrow, the extra parquet, is not installed",
)


# -- Parquet -----------------------------------------------------------------------------------------


@needs_pyarrow
def test_parquet_is_the_table_of_its_csv(tmp_path):
    """The same rows, codes, gaps and splits; row groups are the blocks."""
    import pyarrow
    from pyarrow import parquet

    random = np.random.default_rng(0)
    rows = [
        [repr(float(random.normal())), int(random.integers(9)), ["red", "blue", ""][i % 3], i % 2]
        for i in range(100)
    ]
    csv = write_csv(tmp_path / "t.csv", rows, "a", "b", "colour", "label")
    columns = {
        "a": [float(row[0]) for row in rows],
        "b": [row[1] for row in rows],
        "colour": pyarrow.array([row[2] or None for row in rows]).dictionary_encode(),
        "label": [row[3] for row in rows],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet", row_group_size=17)
    same_on_ranks(tmp_path / "a.h5", tmp_path / "t.parquet", "--missing", "median")
    prepare(csv, tmp_path / "b.h5", "--missing", "median")
    for name in ("x", "y"):
        for a, b in zip(rows_of(tmp_path / "a.h5", name).values(), rows_of(tmp_path / "b.h5", name).values(), strict=True):  # fmt: skip
            assert np.array_equal(a, b)
    times = pyarrow.table({"t": pyarrow.array([0, 1], pyarrow.timestamp("s")), "label": [0, 1]})
    parquet.write_table(times, tmp_path / "u.parquet")
    with pytest.raises(DataError, match=r"column 't': expected numbers or texts, got timestamp"):
        prepare(tmp_path / "u.parquet", tmp_path / "c.h5")
    (tmp_path / "v.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        prepare(tmp_path / "v.parquet", tmp_path / "c.h5")


# -- which format ------------------------------------------------------------------------------------


def test_formats_are_told_by_names(tmp_path):
    """And asked for, where a name tells nothing."""
    (tmp_path / "a.xyz").write_text("x,y\n1,0\n2,1\n")
    with pytest.raises(ConfigurationError, match="cannot tell the format"):
        prepare(tmp_path / "a.xyz", tmp_path / "a.h5")
    assert prepare(tmp_path / "a.xyz", tmp_path / "a.h5", "--format", "csv")["rows_read"] == 2
    (tmp_path / "b.txt").write_text("hello")
    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n")
    with pytest.raises(ConfigurationError, match="inputs of one format, got csv"):
        prepare(tmp_path / "a.csv", tmp_path / "b.txt", tmp_path / "b.h5")
    with pytest.raises(DataError, match="no such file"):
        prepare(tmp_path / "none.csv", tmp_path / "b.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected images or .wav files"):
        prepare(tmp_path / "empty", tmp_path / "b.h5")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--label", "y"), "--label: is for tables, got arrays; --x and --y name arrays"),
        (("--context", "8"), "--context: is for text, got inputs of format numpy"),
        (("--header", "none"), "--header: is for csv"),
        (("--missing-words", "-999"), "--missing-words: is for tables, got arrays"),
    ],
)
def test_options_of_other_formats_are_refused(tmp_path, words, expected):
    """Rather than ignored."""
    x, y = images(20)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with pytest.raises(ConfigurationError) as refused:
        prepare(tmp_path / "a.npz", tmp_path / "a.h5", *words)
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("rows", b"a,b,label\n1,2,0\n", "it is a text: python -m lepton_mpi prepare"),
        ("rows.bak", b"\x89HDF\r\n\x1a\n", "it is HDF5: python -m lepton_mpi prepare"),
        ("rows.part", b"PAR1" + bytes(9), "--label NAME --format parquet"),
        ("rows.pkl", b"\x80\x04\x95" + bytes(9), "it is pickled, which is not read because"),
        ("rows.zip", b"PK\x03\x04" + bytes(9), "it is a zip archive: unpack it"),
        ("rows.xls", b"\xd0\xcf\x11\xe0" + bytes(9), "save it as CSV"),
        ("rows.bz2", b"BZh9" + bytes(9), "it is packed by bzip2: unpack it first"),
        ("cat.png", b"\x89PNG\r\n\x1a\n", "a folder with a folder of pictures for each class"),
        ("rows.new", b"\xfe\xed\xfa\xce" + bytes(9), "expected one of csv, numpy, idx"),
    ],
)
def test_a_name_that_tells_nothing_is_answered_by_the_first_bytes(tmp_path, name, head, words):
    """With the way on; nothing of the file is believed."""
    (tmp_path / name).write_bytes(head)
    with pytest.raises(ConfigurationError, match=r"cannot tell the format of .* by its name") as e:
        prepare(tmp_path / name, tmp_path / "o.h5")
    assert words in str(e.value) and "\n" not in str(e.value)


def test_words_for_missing_cells_are_refused_where_no_cell_is_text(tmp_path):
    """Rather than ignored; --missing itself is for all."""
    x, y = images(20)
    pair = [write_idx(tmp_path / "x.idx", x), write_idx(tmp_path / "y.idx", y)]
    with pytest.raises(ConfigurationError, match="--missing-words: is for csv, parquet, numpy"):
        prepare(*pair, tmp_path / "a.h5", "--missing-words", "0")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    words = (tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "a.h5")
    with pytest.raises(ConfigurationError, match="--missing-words: is for tables"):
        prepare(*words, "--missing-words", "0")
    assert prepare(*words, "--missing", "drop")["rows_read"] == 20


def _table_of(kind: str, folder: Path, numbers: np.ndarray) -> Path:
    """The same columns as text, as a matrix and as Parquet."""
    if kind == "csv":
        return write_csv(folder / "t.csv", numbers.tolist(), "column 0", "column 1", "column 2")
    if kind == "npy":
        np.save(folder / "t.npy", numbers)
        return folder / "t.npy"
    import pyarrow
    from pyarrow import parquet

    columns = {f"column {i}": numbers[:, i] for i in range(numbers.shape[1])}
    parquet.write_table(pyarrow.table(columns), folder / "t.parquet", row_group_size=7)
    return folder / "t.parquet"


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("kind", ["csv", "npy", pytest.param("parquet", marks=needs_pyarrow)])
def test_numbers_that_mean_missing_do_so_in_every_column_of_every_table(tmp_path, kind, dtype):
    """In labels, groups and categories as in numbers: -999 is no class, no group, no category."""
    numbers = np.array([[i, i % 4, i % 2] for i in range(40)], dtype)
    for column in range(3):
        numbers[10 * column : 10 * column + 3, column] = -999
    path, out = _table_of(kind, tmp_path, numbers), tmp_path / "a.h5"
    words = (path, out, "--label", "column 2", "--missing-words", "-999", "--missing", "drop")
    words = (*words, "--split", "1", "--force", "--block", "64")
    facts = prepare(*words, "--categorical", "column 1", "--categories", "codes")
    assert facts["dropped"] == {"without a label": 3, "with missing values": 6}
    assert [one["name"] for one in facts["classes"]] == ["0", "1"]
    with h5py.File(out) as file:
        assert [float(text) for text in file["about/categories/1"].asstr()[:]] == [0, 1, 2, 3]
    facts = prepare(*words, "--group", "column 1")
    assert facts["dropped"] == {"without a label": 3, "with missing values": 6}


def test_labels_that_cifar_does_not_have_are_refused(tmp_path):
    """Rather than read as the fine ones."""
    write_cifar(tmp_path / "train.bin", 30, label_bytes=2)
    out = tmp_path / "a.h5"
    with pytest.raises(ConfigurationError, match=r"got 'corase', did you mean coarse\?"):
        prepare(tmp_path / "train.bin", out, "--label", "corase")
    assert prepare(tmp_path / "train.bin", out, "--label", "fine")["rows_read"] == 30
    write_cifar(tmp_path / "data.bin", 30)
    with pytest.raises(ConfigurationError, match="CIFAR-10 has one label, got 'coarse'"):
        prepare(tmp_path / "data.bin", tmp_path / "b.h5", "--label", "coarse")


def test_names_of_archives(tmp_path):
    """In capitals as well; an archive is no array, whatever its name."""
    x, y = images(20)
    for name in ("A.NPZ", "b.npy"):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, x=x, y=y)
    assert prepare(tmp_path / "A.NPZ", tmp_path / "a.h5")["rows_read"] == 20
    with pytest.raises(DataError, match=r"b.npy: not a NumPy array but an archive"):
        prepare(tmp_path / "b.npy", tmp_path / "b.h5")
    with pytest.raises(
        ConfigurationError, match=r"expected .npz archives or .npy arrays, got both"
    ):
        prepare(tmp_path / "A.NPZ", tmp_path / "b.npy", tmp_path / "b.h5")


def test_targets_of_another_number_are_refused(tmp_path):
    """Naming both arrays; and a label that is a single value."""
    x = np.arange(40.0).reshape(20, 2)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=x, x_test=x, y_test=x[:, 0])
    with pytest.raises(DataError, match=r"x_test: expected labels of 2 numbers .* x_train, got 1"):
        prepare(tmp_path / "a.npz", tmp_path / "a.h5", "--task", "regression")
    np.savez(tmp_path / "b.npz", x=x, y=5)
    with pytest.raises(DataError, match="expected a label for each row, got a single value"):
        prepare(tmp_path / "b.npz", tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["csv", "numpy", "idx", "hdf5", "cifar", "images", "wav", "text"])
def test_a_folder_for_a_file_and_the_other_way_round(tmp_path, kind):
    """One line, whichever format is asked for."""
    if kind == "images":
        pytest.importorskip("PIL")
    path = tmp_path / "thing"
    if kind in ("images", "wav"):
        path.write_bytes(b"no")
    else:
        path.mkdir()
    with pytest.raises(DataError) as refused:
        prepare(path, tmp_path / "a.h5", "--format", kind)
    assert "thing: " in str(refused.value) and "\n" not in str(refused.value)


def test_several_tables_are_one(tmp_path):
    """If their columns are the same."""
    a = write_csv(tmp_path / "a.csv", [[i, i % 2] for i in range(30)], "x", "y")
    b = write_csv(tmp_path / "b.csv", [[i, i % 2] for i in range(30, 50)], "x", "y")
    facts = same_on_ranks(tmp_path / "a.h5", a, b, "--split", "1", "--block", "64")
    assert rows_of(tmp_path / "a.h5")["train"][:, 0].tolist() == list(range(50))
    assert [source[0] for source in facts["sources"]] == ["a.csv", "b.csv"]
    c = write_csv(tmp_path / "c.csv", [[1, 2]], "x", "z")
    with pytest.raises(
        DataError, match=r"c.csv: expected the columns of .*a.csv, got 'z' in place of 'y'"
    ):
        prepare(a, c, tmp_path / "b.h5")


def test_a_stream_of_bytes_is_not_kept(tmp_path):
    """A gzipped file that ends early is damaged, and says so."""
    buffer = io.BytesIO(gzip.compress(b"x,y\n" + b"1,2\n" * 9000))
    (tmp_path / "a.csv.gz").write_bytes(buffer.getvalue()[:-20])
    with pytest.raises(DataError, match=r"a.csv.gz: damaged"):
        prepare(tmp_path / "a.csv.gz", tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["csv", "hdf5", pytest.param("parquet", marks=needs_pyarrow)])
def test_more_files_than_a_process_may_open(tmp_path, kind):
    """One is open at a time, in every pass."""
    x = np.arange(180).reshape(60, 3) % 7 + 0.5
    x[:, 2] = np.arange(60) % 2
    files = []
    for i in range(30):
        folder = tmp_path / f"{i}"
        folder.mkdir()
        if kind == "hdf5":
            files.append(folder / "t.h5")
            with h5py.File(files[-1], "w") as file:
                file["x"], file["y"] = x[2 * i : 2 * i + 2, :2], [0, 1]
        else:
            files.append(_table_of(kind, folder, x[2 * i : 2 * i + 2]))
    words = () if kind == "hdf5" else ("--label", "column 2")
    prepare(
        *files[:1], tmp_path / "first.h5", *words, "--split", "1"
    )  # imports, libraries' own files
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(len(taken) + 15) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[14] + 1, limits[1]))
    try:
        prepare(*files, tmp_path / "a.h5", *words, "--split", "1", "--memory", "0")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], x[:, :2])


# -- damage ------------------------------------------------------------------------------------------


def _damaged(good: bytes, rng: random.Random) -> bytes:
    """Cut, with other bytes in some places, or with bytes put in."""
    raw, how = bytearray(good), rng.randrange(4)
    at = rng.randrange(len(raw) if how else min(200, len(raw)))
    if how == 0:
        raw[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        del raw[at:]
    elif how == 2:
        raw[at:at] = rng.randbytes(rng.randrange(1, 50))
    else:
        for _ in range(10):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    return bytes(raw)


def _one_of_each(folder: Path) -> dict[str, tuple[Path, tuple]]:
    """Of every format the file to damage, and the words that prepare it."""
    x, y = images(24)
    np.savez_compressed(folder / "a.npz", x=x, y=y)
    np.save(folder / "m.npy", np.column_stack([x.reshape(24, -1), y]))
    pair = [write_idx(folder / "x.idx", x), write_idx(folder / "y.idx", y)]
    rows = [[f"{i * 0.37:.3f}", f'"k, {i % 3}"', i % 2] for i in range(60)]
    table = write_csv(folder / "t.csv", rows, "a", "b", "label")
    packed = write_csv(folder / "t.csv.gz", rows, "a", "b", "label")
    write_cifar(folder / "data.bin", 4)
    (folder / "s.txt").write_text("Und der Mond scheint helle. " * 30)
    sounds = write_sounds(folder / "sounds")
    return {
        "npz": (folder / "a.npz", (folder / "a.npz",)),
        "npy": (folder / "m.npy", (folder / "m.npy", "--label", "-1")),
        "idx": (pair[0], pair),
        "csv": (table, (table,)),
        "gzip": (packed, (packed,)),
        "cifar": (folder / "data.bin", (folder / "data.bin",)),
        "text": (folder / "s.txt", (folder / "s.txt",)),
        "wav": (sounds / "low" / "0.wav", (sounds,)),
    }


@pytest.mark.parametrize("kind", ["npz", "npy", "idx", "csv", "gzip", "cifar", "text", "wav"])
def test_damaged_files_are_told_in_one_line(tmp_path, kind):
    """Or are still good; never another exception."""
    path, words = _one_of_each(tmp_path)[kind]
    good, rng, refused = path.read_bytes(), random.Random(kind), 0
    for _ in range(40):
        path.write_bytes(_damaged(good, rng))
        try:
            prepare(*words, tmp_path / "out.h5", "--force")
        except LeptonError as error:
            refused += 1
            assert error.exit_code in (2, 3) and "\n" not in str(error), error
    assert refused > 2
