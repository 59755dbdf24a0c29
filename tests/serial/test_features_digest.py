"""What tells rows from others with the same labels."""

import h5py
import numpy as np
import pytest

from lepton_mpi.data import rows
from tests.serial.data_files import load


def _write(path, x, y):
    with h5py.File(path, "w") as file:
        file["train/x"], file["train/y"] = x, y
    return path


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    x = random.standard_normal((500, 3, 4)).astype("f4")
    return tmp_path, x, (np.arange(500) % 3).astype("i4")


def _digest(path, way="auto", **more):
    return load(path, held_out={}, way=way, **more).splits["train"].features_digest()


@pytest.mark.parametrize("whole_bytes", [16 << 20, 1000], ids=["whole", "stretches"])
def test_it_is_that_of_the_features_alone(table, monkeypatch, whole_bytes):
    """However they are read, and in however many files; labels do not matter, one number does, and so does the order."""
    monkeypatch.setattr(rows, "_WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(rows, "_PART_BYTES", 500)
    folder, x, y = table
    path = _write(folder / "a.h5", x, y)
    digest = _digest(path)
    assert {_digest(path, way) for way in ("memory", "mapped", "streamed")} == {digest}
    assert _digest(_write(folder / "b.h5", x, y[::-1])) == digest
    parts = [
        _write(folder / f"{n}.h5", x[i : i + 250], y[i : i + 250]) for n, i in enumerate((0, 250))
    ]
    assert _digest(list(map(str, parts))) == digest != _digest(list(map(str, parts[::-1])))
    other = x.copy()
    other[499, 2, 3] += 1
    assert _digest(_write(folder / "c.h5", other, y)) != digest
    assert _digest(_write(folder / "d.h5", x[::-1], y)) != digest


def test_little_of_a_large_table_is_read(table, monkeypatch):
    """64 stretches, the first and the last rows among them."""
    monkeypatch.setattr(rows, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(rows, "_PART_BYTES", 96)
    folder, x, y = table
    found = load(_write(folder / "a.h5", x, y), held_out={}, way="streamed").splits["train"]
    read = []
    kind = type(found.table)
    reading = kind.read
    monkeypatch.setattr(
        kind,
        "read",
        lambda self, name, a, b, out: read.append((a, b)) or reading(self, name, a, b, out),
    )
    found.features_digest()
    assert len(read) == 64 and sum(b - a for a, b in read) == 128
    assert read[0] == (0, 2) and read[-1] == (498, 500)


@pytest.mark.parametrize("count", [1, 2])
def test_few_rows(table, monkeypatch, count):
    """Fewer than there are stretches."""
    monkeypatch.setattr(rows, "_WHOLE_BYTES", 10)
    folder, x, y = table
    path = _write(folder / "a.h5", x[:count], y[:count])
    assert _digest(path) != _digest(_write(folder / "b.h5", x[1 : count + 1], y[:count]))
