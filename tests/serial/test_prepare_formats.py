"""Every format in its true form, read into what training reads, the same from any number of ranks."""

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
from scipy.io import wavfile

from lepton_mpi.errors import ConfigurationError, DataError, LauncherError, LeptonError
from lepton_mpi.prepare import options
from lepton_mpi.prepare.readers import wav_folders
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.watchdog import PhaseClock
from tests.serial.data_files import load, read_all
from tests.serial.raw_files import digest, images, prepare, write_csv, write_idx
from tests.serial.test_prepare import rows_of
from tests.serial.thread_ranks import on_ranks

needs_pillow = pytest.mark.skipif(
    importlib.util.find_spec("PIL") is None, reason="Pillow, the extra images, is not installed"
)
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None,
    reason="pyarrow, the extra parquet, is not installed",
)


def same_on_ranks(out: Path, *words: object) -> dict:
    """The facts; the files of 1, 2, 3 and 8 ranks are the same bits."""
    facts = prepare(*words, out, "--force")
    first = digest(out)
    for ranks in (2, 3, 8):
        prepare(*words, out, "--force", ranks=ranks)
        assert digest(out) == first, ranks
    return facts


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


def _cifar(path: Path, rows: int, label_bytes: int = 1, seed: int = 0) -> np.ndarray:
    """A file of records as published; returns the images (rows, 32, 32, 3)."""
    x, y = images(rows, (32, 32, 3), classes=10, seed=seed)
    planes = x.transpose(0, 3, 1, 2).reshape(rows, -1)
    labels = [y[:, None]] if label_bytes == 1 else [(y // 5)[:, None], y[:, None]]
    path.write_bytes(np.concatenate([*labels, planes], axis=1).astype(np.uint8).tobytes())
    return x


def test_cifar_10(tmp_path):
    """A folder as it is unpacked: batches, a test batch, the names of the classes."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    first = _cifar(folder / "data_batch_1.bin", 30)
    _cifar(folder / "data_batch_2.bin", 30, seed=1)
    test = _cifar(folder / "test_batch.bin", 20, seed=2)
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
    _cifar(tmp_path / "train.bin", 40, label_bytes=2)
    _cifar(tmp_path / "test.bin", 10, label_bytes=2)
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


# -- text --------------------------------------------------------------------------------------------

TEXT = "Der Mond ist aufgegangen, die goldnen Sternlein prangen.\n" * 20


def test_characters_as_tokens(tmp_path):
    """x is a window of ids, y the next; the vocabulary gives the text back; no window crosses a split."""
    (tmp_path / "song.txt").write_text(TEXT)
    facts = same_on_ranks(
        tmp_path / "a.h5", tmp_path / "song.txt", "--context", "8", "--block", "999"
    )
    tokens = len(TEXT)
    stops = [round(tokens * 0.8), round(tokens * 0.9), tokens]
    lengths = np.diff([0, *stops])
    assert list(facts["splits"].values()) == [length - 8 for length in lengths]
    with h5py.File(tmp_path / "a.h5") as file:
        vocabulary = file["about/vocabulary"].asstr()[:]
        assert sorted(set(TEXT)) == vocabulary.tolist()
        assert file["train/x"].dtype == np.uint8
        assert (file["normalisation/shift"][()] == 0).all() and (file["normalisation/scale"][()] == 1).all()  # fmt: skip
        start = 0
        for split, stop in zip(("train", "validation", "test"), stops, strict=True):
            x, y = file[f"{split}/x"][()], file[f"{split}/y"][()]
            for i in range(len(x)):
                window = "".join(vocabulary[x[i]]) + vocabulary[y[i]]
                assert window == TEXT[start + i : start + i + 9]
            start = stop
    assert load(tmp_path / "a.h5").class_names[:2] == ("'\\n'", "' '")


def test_bytes_as_tokens_and_strides(tmp_path):
    """256 ids, whatever the file holds; windows further apart."""
    raw = bytes(range(256)) * 3
    (tmp_path / "a.txt").write_bytes(raw)
    words = (tmp_path / "a.txt", "--tokens", "bytes", "--context", "4", "--stride", "3", "--split", "1")  # fmt: skip
    same_on_ranks(tmp_path / "a.h5", *words, "--block", "100")
    x, y = rows_of(tmp_path / "a.h5")["train"], rows_of(tmp_path / "a.h5", "y")["train"]
    expected = [list(raw[i : i + 5]) for i in range(0, len(raw) - 4, 3)]
    assert np.array_equal(np.column_stack([x, y]), expected)


def test_text_of_many_characters_needs_more_than_bytes(tmp_path):
    """Ids above 255 are int32."""
    (tmp_path / "a.txt").write_text("".join(map(chr, range(0x4E00, 0x4E00 + 400))) * 2)
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--context", "2", "--split", "1")
    assert rows_of(tmp_path / "a.h5")["train"].dtype == np.int32
    assert rows_of(tmp_path / "a.h5", "y")["train"].dtype == np.int32


@pytest.mark.parametrize(
    ("raw", "words", "expected"),
    [
        (b"short", (), "expected more than --context 32 tokens"),
        (b"ab\n\xff" * 50, (), "line 2: expected text in utf-8, got byte 0xff"),
        (b"a\0b" * 50, (), "got a character 0; --tokens bytes"),
    ],
)
def test_texts_that_are_none(tmp_path, raw, words, expected):
    """Each is told why."""
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(DataError) as refused:
        prepare(tmp_path / "a.txt", tmp_path / "a.h5", *words)
    assert expected in str(refused.value)


# -- sounds ------------------------------------------------------------------------------------------


def _sounds(folder: Path, rate: int = 8000, seconds: float = 0.5) -> Path:
    """Two classes of tones, four files each."""
    for number in range(8):
        kind = folder / ("high" if number % 2 else "low")
        kind.mkdir(parents=True, exist_ok=True)
        time = np.arange(int(rate * seconds)) / rate
        tone = np.sin(2 * np.pi * (2000 if number % 2 else 300) * time + number)
        wavfile.write(kind / f"{number}.wav", rate, (tone * 20000).astype(np.int16))
    return folder


def test_sounds_by_class(tmp_path):
    """Log-mel spectrograms: the tone is in its band; silence follows shorter files, and the report says so."""
    folder = _sounds(tmp_path / "sounds")
    words = (folder, "--split", "1", "--seconds", "1", "--mel-bands", "20", "--block", "20000")
    facts = same_on_ranks(tmp_path / "a.h5", *words)
    assert facts["row_shape"] == [98, 20] and facts["dtype"] == "float32"
    assert "8 shorter files" in facts["notes"][0]
    x, y = rows_of(tmp_path / "a.h5")["train"], rows_of(tmp_path / "a.h5", "y")["train"]
    loudest = x[:, :40].mean(axis=1).argmax(axis=1)
    assert (loudest[y == 0] > 12).all() and (loudest[y == 1] < 6).all()
    assert np.allclose(x[:, 60:], np.log(1e-10))
    assert load(tmp_path / "a.h5").class_names == ("high", "low")


def test_mel_triangles_cover_the_spectrum():
    """Neighbours add up to 1 between the first and the last middle."""
    weights = wav_folders.mel_triangles(16000, 4096, 24)
    total = weights.sum(axis=0)
    middles = weights.argmax(axis=1)
    assert np.allclose(total[middles[0] + 1 : middles[-1]], 1)
    assert (np.diff(middles) > 0).all() and (weights >= 0).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_samples_of_all_types_are_the_same_signal(kind):
    """From -1 to 1; of two channels the mean."""
    signal = np.array([-0.5, 0.0, 0.25])
    if kind == np.uint8:
        samples = (signal * 128 + 128).astype(kind)
    else:
        samples = (signal * (1 if kind == np.float32 else -float(np.iinfo(kind).min))).astype(kind)
    assert np.allclose(wav_folders.as_signal(samples), signal)
    assert np.allclose(wav_folders.as_signal(np.column_stack([samples, samples])), signal)


def test_looking_at_many_sounds_is_progress(tmp_path, monkeypatch):
    """For the time limit, on every rank, also on those that wait for the one that looks."""
    folder, entered = _sounds(tmp_path / "sounds"), []
    chosen = options.parse([str(folder), "a.h5"])
    monkeypatch.setattr(wav_folders, "_FILES_OF_ROUND", 3)
    monkeypatch.setattr(PhaseClock, "enter", lambda _, phase, step=0: entered.append((phase, step)))
    on_ranks(2, lambda world: wav_folders.open_wav((Input(folder),), chosen, world))
    assert sorted(step for step in entered if step[0] != "start") == [
        ("compute", first) for first in (0, 0, 3, 3, 6, 6)
    ]


def test_sounds_that_differ(tmp_path):
    """Another rate is refused, or resampled if asked; damaged files are named."""
    folder = _sounds(tmp_path / "sounds")
    wavfile.write(folder / "low" / "odd.wav", 16000, np.zeros(8000, np.int16))
    with pytest.raises(
        DataError, match=r"odd.wav: expected 8000 samples a second .* --sample-rate"
    ):
        prepare(folder, tmp_path / "a.h5")
    facts = prepare(folder, tmp_path / "a.h5", "--sample-rate", "8000", "--seconds", "0.5")
    assert facts["row_shape"] == [48, 40]
    (folder / "low" / "bad.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(DataError, match=r"bad.wav: not a readable .wav file"):
        prepare(folder, tmp_path / "b.h5")


# -- images ------------------------------------------------------------------------------------------


def _pictures(folder: Path, rows: int = 24, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    """PNG files of three classes; returns the pixels, in the order of names."""
    from PIL import Image

    x, y = images(rows, shape, classes=3)
    for number in range(rows):
        kind = folder / f"kind{y[number]}"
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[number]).save(kind / f"{number:03d}.png")
    return x[np.argsort(y, kind="stable")]


@needs_pillow
def test_images_by_class(tmp_path):
    """Pixels as they are, in the order of class and name."""
    x = _pictures(tmp_path / "pictures")
    words = (tmp_path / "pictures", "--split", "1", "--block", "300")
    facts = same_on_ranks(tmp_path / "a.h5", *words)
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], x)
    assert [c["name"] for c in facts["classes"]] == ["kind0", "kind1", "kind2"]
    assert facts["normalisation"] == {"method": "pixels", "per": "channel"}


@needs_pillow
def test_images_by_split_and_class(tmp_path):
    """Folders train and test hold folders of classes; grey images have no channel."""
    train = _pictures(tmp_path / "pictures" / "train", 12, (4, 4))
    _pictures(tmp_path / "pictures" / "test", 6, (4, 4))
    facts = prepare(tmp_path / "pictures", tmp_path / "a.h5", "--split", "1")
    assert facts["splits"] == {"train": 12, "validation": 0, "test": 6}
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], train)


@needs_pillow
def test_images_that_differ(tmp_path):
    """In size, in colour, in being images; each is named, with what to do."""
    from PIL import Image

    folder = tmp_path / "pictures"
    _pictures(folder)
    odd = folder / "kind2" / "odd.png"
    Image.new("RGB", (9, 9)).save(odd)
    with pytest.raises(
        DataError, match=r"odd.png: expected 6x5 pixels .* got 9x9; see --image-size"
    ):
        prepare(folder, tmp_path / "a.h5", ranks=2)
    assert prepare(folder, tmp_path / "a.h5", "--image-size", "7x8")["row_shape"] == [7, 8, 3]
    Image.new("L", (5, 6)).save(odd)
    with pytest.raises(DataError, match=r"odd.png: expected a rgb image .* got grey; see --colour"):
        prepare(folder, tmp_path / "b.h5")
    assert prepare(folder, tmp_path / "b.h5", "--colour", "grey")["row_shape"] == [6, 5]
    odd.write_bytes(b"\x89PNG no image")
    with pytest.raises(DataError, match=r"odd.png: not a readable image"):
        prepare(folder, tmp_path / "c.h5", ranks=3)


def test_images_without_pillow(tmp_path, monkeypatch):
    """Says what to install."""
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    (tmp_path / "pictures" / "a" / "1.png").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(LauncherError, match=r"pip install 'lepton_mpi\[images\]'"):
        prepare(tmp_path / "pictures", tmp_path / "a.h5")


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
    facts = prepare(*words, "--categorical", "column 1")
    assert facts["dropped"] == {"without a label": 3, "with missing values": 6}
    assert [one["name"] for one in facts["classes"]] == ["0", "1"]
    with h5py.File(out) as file:
        assert [float(text) for text in file["about/categories/1"].asstr()[:]] == [0, 1, 2, 3]
    facts = prepare(*words, "--group", "column 1")
    assert facts["dropped"] == {"without a label": 3, "with missing values": 6}


def test_labels_that_cifar_does_not_have_are_refused(tmp_path):
    """Rather than read as the fine ones."""
    _cifar(tmp_path / "train.bin", 30, label_bytes=2)
    out = tmp_path / "a.h5"
    with pytest.raises(ConfigurationError, match=r"got 'corase', did you mean coarse\?"):
        prepare(tmp_path / "train.bin", out, "--label", "corase")
    assert prepare(tmp_path / "train.bin", out, "--label", "fine")["rows_read"] == 30
    _cifar(tmp_path / "data.bin", 30)
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
    with pytest.raises(DataError, match=r"x_test: expected targets .* x_train, 2 a row, got 1"):
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
    _cifar(folder / "data.bin", 4)
    (folder / "s.txt").write_text("Und der Mond scheint helle. " * 30)
    sounds = _sounds(folder / "sounds")
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
