"""``lepton_mpi.load``: frames and arrays of a program are read as files are; embeddings; no MPI."""

import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.commands import export
from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prediction import frames
from lepton_mpi.run import trained
from lepton_mpi.run.trained import load_trained
from lepton_mpi.world.alone import Alone
from tests.serial.made_checkpoints import save_random
from tests.serial.predicted import Frame, run, shop_checkpoint
from tests.serial.raw_files import (
    prepare,
    write_csv,
)
from tests.serial.test_prepare_like import NAMES, shop


def test_frames_and_arrays_are_read_as_files_are(tmp_path):
    """Numbers, texts, dates of NumPy, gaps of all kinds, columns in any order; blocks of any length."""
    checkpoint = shop_checkpoint(tmp_path)
    rows = shop(50, 5)
    table = write_csv(tmp_path / "n.csv", rows, *NAMES)
    model = lepton_mpi.load(checkpoint)
    assert model.feature_names == NAMES[:-1] and model.classes_.tolist() == ["no", "yes"]
    expected = model.predict_proba(table)
    columns = dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))
    columns["price"] = [price.strip('"') for price in columns["price"]]
    texts = {name: np.array(cells, object) for name, cells in columns.items()}
    assert np.array_equal(model.predict_proba(Frame(texts)), expected)
    typed = dict(reversed(texts.items())) | {"more": np.zeros(50)}
    typed["n"] = np.array([float(n) if n else np.nan for n in columns["n"]])
    days = ["-".join(reversed(day.split("/"))) for day in columns["day"]]
    typed["day"] = np.array(days, "datetime64[D]")
    typed["price"] = np.array([float(p.strip("$").replace(",", "")) for p in columns["price"]])
    assert np.array_equal(model.predict_proba(Frame(typed)), expected)
    holes = texts | {"n": np.array([float(n) if n else None for n in columns["n"]], object)}
    assert np.array_equal(model.predict_proba(Frame(holes)), expected)
    array = np.column_stack([texts[name] for name in NAMES[:-1]])
    assert np.array_equal(model.predict_proba(array), expected)
    assert np.array_equal(model.predict(array), model.classes_[expected.argmax(axis=1)])


def test_pandas_frames(tmp_path):
    """Categories, whole numbers with gaps, dates."""
    pandas = pytest.importorskip("pandas")
    checkpoint = shop_checkpoint(tmp_path)
    model, table = lepton_mpi.load(checkpoint), tmp_path / "shop.csv"
    expected = model.predict_proba(table)
    frame = pandas.read_csv(table)
    assert np.array_equal(model.predict_proba(frame), expected)
    frame["colour"] = frame["colour"].astype("category")
    frame["size"] = frame["size"].astype("string")
    frame["n"] = frame["n"].astype("Float64")
    frame["day"] = pandas.to_datetime(frame["day"], format="%d/%m/%Y")
    assert np.array_equal(model.predict_proba(frame.sample(frac=1, axis=1, random_state=1)), expected)  # fmt: skip
    part = frame[frame["n"].notna()]
    assert np.array_equal(model.predict_proba(part), expected[frame["n"].notna().to_numpy()])


def test_numbers_in_a_column_of_categories_are_texts(tmp_path):
    """Whole ones without a point, as a file has them, also where a gap has made floats of them."""
    rows = [[[10, 20, 30][i % 3], i % 4, i % 2] for i in range(60)]
    table = write_csv(tmp_path / "a.csv", rows, "zip", "b", "label")
    words = ("--categorical", "zip", "--missing", "mean")
    prepare(table, tmp_path / "a.h5", *words)
    checkpoint = save_random(tmp_path / "runs", tmp_path / "a.h5", hidden=(5,))
    model = lepton_mpi.load(checkpoint)
    expected = model.predict_proba(table)
    zips, b = np.array(rows)[:, 0], np.array(rows)[:, 1]
    for kind in (np.int64, np.float64, str, object):
        assert np.array_equal(model.predict_proba(Frame({"b": b, "zip": zips.astype(kind)})), expected)  # fmt: skip
    with pytest.raises(DataError, match=r"frame: row 1, column 'zip': expected one of the 3 categories .*, got '25'"):  # fmt: skip
        model.predict(Frame({"b": b[:2], "zip": np.array([10, 25])}))


def test_wrong_rows_of_a_program(tmp_path, monkeypatch):
    """Rows are counted over all blocks."""
    monkeypatch.setattr(frames, "BLOCK_ROWS", 4)
    monkeypatch.setattr("lepton_mpi.prediction.model.BLOCK_ROWS", 4)
    checkpoint = shop_checkpoint(tmp_path)
    model, (day, price, colour, size, n) = lepton_mpi.load(checkpoint), NAMES[:-1]
    columns = {day: ["03/04/2023"] * 9, price: ["$1"] * 9, colour: ["red"] * 9, size: ["l"] * 9, n: [1.0] * 9}  # fmt: skip
    good = {name: np.array(cells, object) for name, cells in columns.items()}
    assert model.predict(Frame(good)).shape == (9,)
    wrong = good | {colour: np.array(["red"] * 6 + ["pink"] + ["red"] * 2, object)}
    with pytest.raises(DataError, match=r"frame: row 6, column 'colour': .* got 'pink'"):
        model.predict(Frame(wrong))
    with pytest.raises(DataError, match=r"frame has no column 'size'.*its 4 columns are"):
        model.predict(Frame({name: good[name] for name in (day, price, colour, n)}))
    with pytest.raises(DataError, match=r"expected shape \(rows, 5\), day, price, .* got \(2, 4\)"):
        model.predict(np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"expected shape \(rows, 5\), with the columns day, .* got \(2, 4\)"):  # fmt: skip
        model.predict(np.full((2, 4), "a", object))
    with pytest.raises(DataError, match=r"column 'n': expected numbers or texts, got complex128"):
        model.predict(Frame(good | {n: np.zeros(9, complex)}))
    with pytest.raises(DataError, match=r"no such file"):
        model.predict(tmp_path / "none.csv")
    assert model.predict(Frame({name: cells[:0] for name, cells in good.items()})).shape == (0,)
    assert model.predict_proba(np.zeros((0, 5), object)).shape == (0, 2)
    with pytest.raises(ConfigurationError, match=r"unknown: expected error or missing"):
        lepton_mpi.load(checkpoint, unknown="what")
    with pytest.raises(DataError, match=r"no such checkpoint"):
        lepton_mpi.load(tmp_path / "none.h5")


def test_a_folder_is_its_newest_checkpoint(tmp_path, capsys):
    checkpoint = save_random(tmp_path, "digits", hidden=(9,))
    assert lepton_mpi.load(tmp_path).path == checkpoint and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("what", "is_folder"),
    [("load", True), ("predict", False), ("predict prepared", False), ("export", True)],
)
def test_a_checkpoint_is_verified_once(tmp_path, monkeypatch, what, is_folder):
    """Reading all of it, and looking at it in a process of its own, takes a quarter of a second."""
    checkpoint = save_random(tmp_path, "digits", hidden=(9,))
    place = tmp_path if is_folder else checkpoint
    verified = []

    def check(path):
        verified.append(path)
        return probe.check(path)

    monkeypatch.setattr(trained.checkpoint, "probe", SimpleNamespace(**vars(probe) | {"check": check}))  # fmt: skip
    if what == "load":
        lepton_mpi.load(place)
    elif what == "export":
        chosen = export.Options(checkpoint=str(place), file=str(tmp_path / "model.npz"))
        export.export_checkpoint(chosen, Alone())
    else:
        np.save(tmp_path / "rows.npy", np.zeros((3, 8, 8), np.uint8))
        rows = tmp_path / "rows.npy" if what == "predict" else "digits"
        run(place, rows, out=tmp_path / "out.csv")
    assert verified == [checkpoint]


def test_embeddings_are_the_activations_of_a_layer(tmp_path):
    """Of a perceptron against NumPy; the same from a file."""
    checkpoint = save_random(tmp_path, "breast_cancer", hidden=(6,))
    found = load_trained(checkpoint, None, Alone())
    with h5py.File(found.data.paths[0]) as file:
        x = file["test/x"][:].astype(np.float64)
    shift, scale = found.data.normalisation
    weight, bias = (found.parameters[f"layer0/{name}"].astype(np.float64) for name in ("weight", "bias"))  # fmt: skip
    expected = np.maximum((x - shift) * scale @ weight + bias, 0)
    model = lepton_mpi.load(checkpoint)
    assert model.layers == ("layer0", "layer1")
    assert np.allclose(model.embeddings(x, "layer0"), expected, atol=1e-4)
    run(checkpoint, "breast_cancer", out=tmp_path / "e.npz", split="test", embeddings="layer0")
    with np.load(tmp_path / "e.npz") as written:
        assert written["embeddings_columns"].tolist() == [f"layer0 {i}" for i in range(6)]
        assert np.allclose(written["embeddings"], expected, atol=1e-4)
    with pytest.raises(ConfigurationError, match=r"layer 'x': expected one of layer0, layer1"):
        model.embeddings(x, "x")


def test_embeddings_of_a_convolution_and_of_categories(tmp_path):
    """Flattened, of every layer that is named."""
    checkpoint = save_random(tmp_path / "a", "digits", model="cnn")
    model, x = lepton_mpi.load(checkpoint), np.ones((3, 8, 8))
    for layer in model.layers:
        assert model.embeddings(x, layer).shape[0] == 3
    checkpoint = save_random(tmp_path / "b", "loans", model="wide_and_deep")
    layer = lepton_mpi.load(checkpoint).layers[-1]
    run(checkpoint, "loans", out=tmp_path / "p.h5", embeddings=layer, split="test")


_WITHOUT_MPI = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "mpi4py.MPI":
            raise ImportError("MPI is not to be started")

sys.meta_path.insert(0, Refuse())
import numpy as np
import lepton_mpi
model = lepton_mpi.load(sys.argv[1])
print(model.predict(np.zeros((2, 8, 8))).shape, model.predict(sys.argv[2]).shape, model.predict("digits").shape)
print([name for name in sys.modules if name.startswith("mpi4py")])
"""


def test_a_program_starts_no_mpi(tmp_path):
    """Where importing mpi4py.MPI fails, arrays, raw files and prepared ones are predicted."""
    checkpoint = save_random(tmp_path, "digits", hidden=(9,))
    np.save(tmp_path / "x.npy", np.zeros((5, 8, 8)))
    command = [sys.executable, "-c", _WITHOUT_MPI, str(checkpoint), str(tmp_path / "x.npy")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.stdout == "(2,) (5,) (1797,)\n[]\n", ended.stderr
