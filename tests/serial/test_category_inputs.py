"""``prepare --categories inputs``: categories of a table as whole numbers in an input of their own."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.prepare import inspection
from tests.serial.data_files import load
from tests.serial.raw_files import digest, prepare, write_csv

_CARS = [("red", 1.5, "diesel"), ("blue", 2.0, "petrol"), ("red", 2.5, "gas"), ("grey", 3.0, "gas")]


def _write_cars(path: Path, columns: tuple[int, ...] = (0, 1, 2), rows: int = 40) -> Path:
    cells = [
        [*(_CARS[row % 4][c] for c in columns), "yes" if row % 3 else "no"] for row in range(rows)
    ]
    return write_csv(path, cells, *(("colour", "litres", "fuel")[c] for c in columns), "label")


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("layout", ["chunked", "contiguous"])
def test_categories_may_be_an_input_of_their_own(tmp_path, ranks, layout):
    """Whole numbers with how many there are of each; x keeps the numbers, and only they are normalised."""
    path = _write_cars(tmp_path / "cars.csv")
    words = ("--categories", "inputs", "--split", "0.5,0.25,0.25", "--layout", layout)
    words += ("--block", "300")
    prepare(path, tmp_path / "a.h5", *words, ranks=ranks)
    codes = prepare(path, tmp_path / "codes.h5", "--categories", "codes", *words[2:], ranks=1)
    with h5py.File(tmp_path / "a.h5") as file, h5py.File(tmp_path / "codes.h5") as both:
        assert file.attrs["format_version"] == 2 and both.attrs["format_version"] == 1
        for split in ("train", "validation", "test"):
            categories, whole = file[f"{split}/inputs/categories"], both[f"{split}/x"]
            assert categories.attrs["kind"] == b"categories" and categories.dtype == np.uint8
            assert categories.attrs["values"].tolist() == [3, 3]
            np.testing.assert_array_equal(categories, whole[:, [0, 2]])
            np.testing.assert_array_equal(file[f"{split}/x"], whole[:, [1]])
            np.testing.assert_array_equal(file[f"{split}/y"], both[f"{split}/y"])
        assert file["about/columns"][()].tolist() == [b"litres"]
        assert file["about/inputs/columns"][()].tolist() == [b"colour", b"fuel"]
        assert file["about/inputs/categories/1"][()].tolist() == [b"diesel", b"gas", b"petrol"]
        assert file["normalisation/shift"].shape == (1,) and both["normalisation/shift"].shape == (
            3,
        )
        assert "about/categories" not in file
    assert codes["inputs"] == {}
    data = load(tmp_path / "a.h5")
    assert data.inputs == {
        "x": Input("numbers", (1,)),
        "categories": Input("categories", (2,), (3, 3)),
    }


def test_a_table_of_categories_alone(tmp_path):
    """Has no x, no normalisation and no statistics, and is read by name."""
    path = _write_cars(tmp_path / "cars.csv", (0, 2))
    for ranks in (1, 2):
        prepare(
            path, tmp_path / f"{ranks}.h5", "--categories", "inputs", "--block", "300", ranks=ranks
        )
    assert digest(tmp_path / "1.h5") == digest(tmp_path / "2.h5")
    with h5py.File(tmp_path / "1.h5") as file:
        assert "x" not in file["train"] and "normalisation" not in file
        assert "about/columns" not in file and "about/statistics" not in file
    data = load(tmp_path / "1.h5")
    assert list(data.inputs) == ["categories"] and data.normalisation[0].size == 0


@pytest.mark.parametrize("method", ["standard", "minmax", "robust", "pixels", "none"])
def test_categories_alone_have_nothing_to_normalise(tmp_path, method):
    path = _write_cars(tmp_path / "cars.csv", (0, 2))
    facts = prepare(path, tmp_path / "a.h5", "--categories", "inputs", "--normalise", method)
    assert facts["inputs"] == {"categories": {"values": [3, 3]}} and facts["row_shape"] == [0]


def test_categories_apart_are_told(tmp_path, capsys):
    path = _write_cars(tmp_path / "cars.csv")
    prepare(path, tmp_path / "a.h5", "--categories", "inputs")
    said = capsys.readouterr().out
    assert "rows of 1 numbers, stored as float32, and 2 categories in an input of their own" in said
    assert "categories colour (3), fuel (3)" in said
    assert [line.split()[0] for line in said.splitlines() if "e+0" in line or "litres" in line]
    assert inspection.text(tmp_path / "a.h5", 10).startswith(said.split("wrote")[0].rstrip())


def test_missing_and_constant_columns_beside_categories_apart(tmp_path):
    """Gaps in both are filled, constants of both are dropped, and the codes stay with their columns."""
    rows = [
        ["red", 1.0, "gas", 5],
        ["", 2.0, "gas", 5],
        ["blue", "", "gas", 5],
        ["red", 4.0, "gas", 5],
    ]
    path = write_csv(
        tmp_path / "a.csv",
        [[*row, "ab"[i % 2]] for i, row in enumerate(rows * 3)],
        *("p", "q", "r", "s", "label"),
    )
    words = ("--missing", "mean", "--constant-columns", "drop", "--split", "1")
    prepare(path, tmp_path / "a.h5", "--categories", "inputs", *words)
    prepare(path, tmp_path / "b.h5", *words)
    with h5py.File(tmp_path / "a.h5") as file, h5py.File(tmp_path / "b.h5") as both:
        assert file["about/columns"][()].tolist() == [b"q"]
        assert file["about/inputs/columns"][()].tolist() == [b"p"]
        np.testing.assert_array_equal(file["train/inputs/categories"], both["train/x"][:, [0]])
        np.testing.assert_array_equal(file["train/x"], both["train/x"][:, [1]])


def test_no_categories_make_no_inputs(tmp_path):
    """A table of numbers is what it was, whatever is said of categories."""
    path = _write_cars(tmp_path / "cars.csv", (1,))
    prepare(path, tmp_path / "a.h5", "--categories", "inputs")
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file["train"]) == ["x", "y"] and file.attrs["format_version"] == 1
