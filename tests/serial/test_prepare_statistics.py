"""Statistics of training rows against NumPy and scikit-learn on the gathered rows."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from lepton_mpi.errors import DataError
from lepton_mpi.prepare import statistics, statistics_kernels
from tests import reference
from tests.serial.raw_files import digest, prepare, write_csv

values = st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, np.nan, 5e-324, 1e300, -1e300])


def _quantiles(x: np.ndarray, fractions: tuple[float, ...], pieces: int = 3) -> np.ndarray:
    """Of a table cut into pieces, on one rank."""
    counts = (~np.isnan(x)).sum(axis=0).astype(float)
    return statistics.quantiles(
        fractions, counts, lambda: iter(np.array_split(x, pieces)), lambda total: total
    )


@given(arrays.arrays(float, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=values))
def test_quantiles_are_those_of_numpy(x):
    """Exactly: the same elements, the same interpolation; missing values count for nothing."""
    fractions = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 1.0)
    found = _quantiles(x, fractions)
    for column in range(x.shape[1]):
        present = x[:, column][~np.isnan(x[:, column])]
        if not present.size:
            assert np.isnan(found[:, column]).all()
            continue
        expected = np.quantile(present, fractions)
        assert np.array_equal(found[:, column], expected), (found[:, column], expected)


def test_quantiles_in_groups_of_columns(monkeypatch):
    """More columns than there are counters for are done one group after the other."""
    x = np.random.default_rng(0).standard_normal((50, 7))
    whole = _quantiles(x, (0.3,))
    monkeypatch.setattr(statistics, "_COUNTER_BYTES", 8 * 2 * 3 << 11)
    assert np.array_equal(_quantiles(x, (0.3,)), whole)


@given(
    arrays.arrays(np.uint64, (5, 2)),
    st.sampled_from([(53, 11), (42, 11), (0, 9)]),
    st.integers(0, 4),
)
def test_digits_are_counted(keys, digit, row):
    """The kernel and its twin, for prefixes that occur and such that do not."""
    shift, bits = digit
    prefix = (keys[row, 0] >> np.uint64(shift)) >> np.uint64(bits)
    prefixes = np.array([[prefix, 7], [0, prefix]], np.uint64)
    counts, expected = (np.zeros((2, 2, 1 << bits), np.int64) for _ in range(2))
    statistics_kernels.count_digits(keys, prefixes, shift, bits, counts)
    reference.count_digits(keys, prefixes, shift, bits, expected)
    assert np.array_equal(counts, expected)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e3, 1e8]))
def test_moments_of_pieces_are_those_of_the_whole(pieces, seed, offset):
    """However many pieces, also far from zero."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((100, 3)) * [1, 1e-3, 1e3] + offset
    x[random.random(x.shape) < 0.1] = np.nan
    found = statistics.moments(statistics.moments_of(part) for part in np.array_split(x, pieces))
    assert np.array_equal(found.count, (~np.isnan(x)).sum(axis=0))
    exact = x.astype(np.longdouble)
    # The correction of the mean is itself rounded, by the size of the numbers.
    bound = 4 * np.finfo(float).eps * np.nanmean(abs(x), axis=0)
    assert (abs(found.mean - np.nanmean(exact, axis=0)) <= bound).all()
    assert np.allclose(found.std, np.nanstd(exact, axis=0).astype(float), rtol=1e-12, atol=0)
    assert np.array_equal(found.minimum, np.nanmin(x, axis=0))
    assert np.array_equal(found.maximum, np.nanmax(x, axis=0))


def test_the_tree_does_not_depend_on_who_pushes():
    """The same leaves make the same tree, of logarithmic height."""
    for count in range(1, 40):
        tree = statistics.MergeTree(lambda a, b: (a, b))
        for leaf in range(count):
            tree.push(leaf)
        assert _height(tree.result()) == int(np.ceil(np.log2(count)))


def _height(node) -> int:
    return 1 + max(map(_height, node)) if isinstance(node, tuple) else 0


# -- in the file -------------------------------------------------------------------------------------

SCALERS = {
    "standard": (StandardScaler, "mean_", "scale_"),
    "minmax": (MinMaxScaler, "data_min_", "data_range_"),
    "robust": (RobustScaler, "center_", "scale_"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """300 rows of numbers of very different size, one column constant, one of whole numbers."""
    random = np.random.default_rng(5)
    x = random.standard_normal((300, 6)) * [1, 1e-6, 1e6, 30, 0, 1] + [0, 1, 1e7, -3, 0.1, 0]
    x[:, 3] = np.round(x[:, 3])
    rows = [[*map(repr, map(float, row)), number % 3] for number, row in enumerate(x)]
    return write_csv(tmp_path_factory.mktemp("table") / "table.csv", rows, *"abcdef", "label")


@pytest.mark.parametrize("method", SCALERS)
def test_normalisation_is_that_of_scikit_learn(table, tmp_path, method):
    """To 1e-12, for 1, 2, 3 and 8 ranks, fitted on training rows alone; and the files are the same bits."""
    digests = set()
    for ranks in (1, 2, 3, 8):
        path = tmp_path / f"{ranks}.h5"
        prepare(table, path, "--normalise", method, "--block", "2000", ranks=ranks)
        digests.add(digest(path))
    assert len(digests) == 1
    kind, shift_name, spread_name = SCALERS[method]
    with h5py.File(path) as file:
        assert file["train/x"].shape == (240, 6)
        scaler = kind().fit(file["train/x"][()])
        shift, scale = file["normalisation/shift"][()], file["normalisation/scale"][()]
        assert np.allclose(shift, getattr(scaler, shift_name), rtol=1e-12, atol=0)
        spread = getattr(scaler, spread_name)
        assert np.allclose(1 / scale, np.where(spread == 0, 1, spread), rtol=1e-12, atol=0)
        rows = (file["test/x"][()] - shift) * scale
        assert np.allclose(rows, scaler.transform(file["test/x"][()]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["standard", "minmax"])
def test_numbers_too_large_for_statistics_are_refused(tmp_path, method):
    """Rather than scaled by 0; without normalisation they are taken as they are."""
    rows = [[f"{(-1) ** i * 1.7e308}", 1, i % 2] for i in range(0, 40)]
    rows += [[f"{(-1) ** (i // 2) * 1.7e308}", 1, i % 2] for i in range(40)]
    path = write_csv(tmp_path / "t.csv", rows, "a", "b", "label")
    with pytest.raises(DataError, match=r"got up to 1\.7e\+308 in number 0"):
        prepare(path, tmp_path / "a.h5", "--normalise", method, ranks=2)
    prepare(path, tmp_path / "a.h5", "--normalise", "none", "--block", "100")


@pytest.mark.parametrize(
    ("shape", "dtype", "values", "method"),
    [
        ((20,), np.float32, 2, "standard"),
        ((20,), np.uint8, 256, "standard"),
        ((5, 4), np.uint8, 2, "standard"),
        ((5, 4), np.uint8, 17, "standard"),
        ((5, 4), np.uint8, 256, "pixels"),
        ((5, 4, 3), np.float32, 256, "pixels"),
        ((5, 4, 3, 2), np.uint8, 256, "standard"),
    ],
)
def test_bytes_are_pixels_only_in_images(tmp_path, shape, dtype, values, method):
    """Flags, and pictures from 0 to 16, divided by 255 would tell a model next to nothing."""
    x = np.random.default_rng(0).integers(0, values, (60, *shape)).astype(dtype)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(60) % 2)
    facts = prepare(tmp_path / "a.npz", tmp_path / "a.h5")
    assert facts["dtype"] == "uint8" and facts["normalisation"]["method"] == method


@pytest.mark.parametrize("per", ["channel", "all", "feature"])
def test_images_share_statistics_by_channel(tmp_path, per):
    """Rows (4, 5, 3): three numbers, one, or sixty."""
    random = np.random.default_rng(0)
    x = random.normal([0, 5, -2], [1, 2, 3], (60, 4, 5, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(60) % 2)
    prepare(tmp_path / "a.npz", tmp_path / "a.h5", "--per", per, "--normalise", "standard")
    with h5py.File(tmp_path / "a.h5") as file:
        rows = file["train/x"][()].astype(float)
        axes = {"channel": (0, 1, 2), "all": None, "feature": 0}[per]
        mean = np.broadcast_to(rows.mean(axis=axes), (4, 5, 3))
        std = np.broadcast_to(rows.std(axis=axes), (4, 5, 3))
        assert np.allclose(file["normalisation/shift"][()], mean, rtol=1e-12, atol=1e-14)
        assert np.allclose(1 / file["normalisation/scale"][()], std, rtol=1e-12)
