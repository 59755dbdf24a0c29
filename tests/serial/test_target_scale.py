"""Targets are scaled for training by what prepare found, and everything that people see is scaled back."""

import json

import h5py
import numpy as np
import pytest
from sklearn import metrics
from sklearn.preprocessing import StandardScaler

from lepton_mpi.batch import Batch
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.run.checkpoint import target_scale_attribute
from lepton_mpi.tasks.registry import make_task
from tests.serial.data_files import load
from tests.serial.raw_files import prepare, same_on_ranks, write_csv
from tests.serial.test_prepare import rows_of

REGRESSION = ("--task", "regression")


def prices(rows: int = 200) -> np.ndarray:
    """About 200 000, all above 0, in whole cents."""
    return np.round(np.exp(np.random.default_rng(0).normal(12, 0.5, rows)), 2)


def price_file(path, kind: str, y: np.ndarray):
    """A table of one feature and these targets, or arrays of them; and the options that name the label."""
    x = np.random.default_rng(1).normal(size=len(y))
    if kind == "csv":
        return write_csv(path.with_suffix(".csv"), list(zip(x, y, strict=True)), "x", "price"), ("--label", "price")  # fmt: skip
    if kind == "npy":
        np.save(path.with_suffix(".npy"), np.column_stack([x, y]))
        return path.with_suffix(".npy"), ("--label", "1")
    if kind == "npz":
        np.savez(path.with_suffix(".npz"), x=x[:, None], y=y)
        return path.with_suffix(".npz"), ()
    if kind == "hdf5":
        with h5py.File(path.with_suffix(".hdf5"), "w") as file:
            file["x"], file["y"] = x[:, None], y
        return path.with_suffix(".hdf5"), ()
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"x": x, "price": y}), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet"), ("--label", "price")


every_reader = pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "npz", "hdf5"])


@pytest.mark.slow(but_every=4)
@every_reader
@pytest.mark.parametrize("way", ["standard", "log", "none"])
def test_targets_are_scaled_by_training_rows(tmp_path, kind, way):
    """As scikit-learn's StandardScaler fitted on them; stored as they are; the same file from any number of ranks."""
    path, words = price_file(tmp_path / "a", kind, prices())
    facts = same_on_ranks(tmp_path / "a.h5", path, *words, *REGRESSION, "--target-scale", way)
    stored, log = rows_of(tmp_path / "a.h5", "y"), way == "log"
    assert sorted(np.concatenate(list(stored.values()))) == sorted(prices())
    seen = {split: np.log1p(y) if log else y for split, y in stored.items()}
    scaler = StandardScaler().fit(seen["train"][:, None])
    data = load(tmp_path / "a.h5")
    for split, rows in data.splits.items():
        expected = seen[split][:, None] if way == "none" else scaler.transform(seen[split][:, None])
        assert rows.y.dtype == np.float32
        np.testing.assert_allclose(rows.y, expected, rtol=1e-5, atol=1e-6)
    with h5py.File(tmp_path / "a.h5") as file:
        assert ("target_shift" in file["normalisation"]) == (way != "none")
    assert facts["targets"][0]["scale"] == way
    assert np.isclose(facts["targets"][0]["mean"], stored["train"].mean())


@pytest.mark.parametrize("way", ["standard", "log"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_figures_and_predictions_are_in_the_units_of_the_data(tmp_path, way, dtype):
    """As scikit-learn computes them from unscaled predictions."""
    path, words = price_file(tmp_path / "a", "csv", prices())
    prepare(path, tmp_path / "a.h5", *words, *REGRESSION, "--target-scale", way)
    data = load(tmp_path / "a.h5", dtype)
    task, rows = make_task("targets", data), data.splits["train"]
    predicted = rows.y + np.random.default_rng(2).normal(0, 0.1, rows.y.shape).astype(dtype)
    sums = task.new_sums()
    for part in (slice(0, 50), slice(50, None)):
        numbers = np.arange(len(rows.y))[part]
        task.add(sums, Batch(np.zeros((len(numbers), 1)), rows.y[part], numbers, 0), predicted[part])  # fmt: skip
    figures = task.figures(sums, 3.0, len(rows.y))
    true = rows_of(tmp_path / "a.h5", "y")["train"]
    mine = task.columns(predicted)["target"]
    scaled = (mine if way == "standard" else np.log1p(mine), true)
    with h5py.File(tmp_path / "a.h5") as file:
        shift, scale = (file[f"normalisation/target_{name}"][0] for name in ("shift", "scale"))
    np.testing.assert_allclose((scaled[0] - shift) * scale, predicted[:, 0], rtol=1e-5, atol=1e-5)
    expected = {
        "mse": metrics.mean_squared_error(true, mine),
        "mae": metrics.mean_absolute_error(true, mine),
        "r2": metrics.r2_score(true, mine),
    }
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    for name, value in expected.items():
        assert np.isclose(figures[name], value, rtol=tolerance), name
    assert figures["rmse"] > 5_000


def test_several_targets_have_scales_of_their_own(tmp_path):
    """Also one that is constant in the training rows."""
    y = np.column_stack([prices(60), np.arange(60) / 1e6, np.full(60, 7.0)])
    rows = [[i % 7, *targets] for i, targets in enumerate(y.tolist())]
    path = write_csv(tmp_path / "a.csv", rows, "x", "a", "b", "c")
    prepare(path, tmp_path / "a.h5", "--label", "-3,-2,-1", *REGRESSION)
    trained = load(tmp_path / "a.h5", np.float64).splits["train"].y
    assert np.allclose(trained.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(trained.std(axis=0), [1, 1, 0])


def test_large_targets_that_differ_by_little_keep_their_digits(tmp_path):
    """In float32, too: seconds since 1970, half a second apart."""
    y = 1.7e9 + np.arange(200) / 2
    path, words = price_file(tmp_path / "a", "npz", y)
    prepare(path, tmp_path / "a.h5", *words, *REGRESSION)
    data = load(tmp_path / "a.h5")
    back = data.target_scale.unscaled(data.splits["train"].y)[:, 0]
    assert np.allclose(back - 1.7e9, rows_of(tmp_path / "a.h5", "y")["train"] - 1.7e9, atol=1e-4)


def test_logarithms_need_targets_of_at_least_0(tmp_path):
    """Found by prepare, and by the reader of another file that is evaluated."""
    y = prices()
    y[7] = -3
    path, words = price_file(tmp_path / "a", "csv", y)
    with pytest.raises(DataError, match="--target-scale log: expected targets of at least 0, got -3"):  # fmt: skip
        prepare(path, tmp_path / "a.h5", *words, *REGRESSION, "--target-scale", "log", ranks=2)
    with pytest.raises(ConfigurationError, match="--target-scale log: expected --task regression"):
        prepare(path, tmp_path / "a.h5", *words, "--target-scale", "log")
    prepare(path, tmp_path / "a.h5", *words, *REGRESSION, "--target-scale", "none")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["normalisation/target_log"] = np.ones(1, np.uint8)
    with pytest.raises(DataError, match=r"y: row \d+: expected targets whose logarithm can be taken"):  # fmt: skip
        load(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("target_scale", np.zeros(1), "target_scale: expected numbers other than 0"),
        ("target_scale", np.array([np.nan]), "target_scale: expected finite numbers"),
        ("target_shift", np.ones(2), "target_shift: expected finite numbers of shape"),
        ("target_shift", np.array([b"a"]), "target_shift"),
    ],
)
def test_scales_of_strangers_are_checked(tmp_path, name, value, words):
    """Before they are used."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.ones((20, 2)), np.arange(20.0)
        file[f"normalisation/{name}"] = value
    with pytest.raises(DataError, match=words):
        load(tmp_path / "a.h5")


def test_a_scale_goes_through_a_checkpoint_to_the_last_bit():
    """As an attribute; what is none is refused."""
    scale = TargetScale(np.array([1 / 3, 2e5]), np.array([1e-7 / 3, 1.0]), np.array([True, False]))
    text = target_scale_attribute(scale)["target_scale"]
    assert TargetScale.from_json(json.loads(text)).equals(scale)
    assert target_scale_attribute(TargetScale.identity(3)) == {}
    for wrong in ({}, {"shift": [0], "scale": [0], "log": [0]}, {"shift": [0], "scale": [1, 2], "log": [0]}):  # fmt: skip
        with pytest.raises((KeyError, ValueError)):
            TargetScale.from_json(wrong)
