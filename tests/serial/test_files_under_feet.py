"""Files that are damaged or out of reach while they are read: named, or waited for. While a run reads: ``tests/parallel/test_changing_files.py``."""

import errno
import os
import shutil

import h5py
import numpy as np
import pytest

from lepton_mpi.data.files import stored_file
from lepton_mpi.data.loader import Wanted, load
from lepton_mpi.errors import DataError
from tests.serial.checked_files import WIDTH, with_checksums
from tests.serial.data_files import OneRank


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return with_checksums(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def copied(prepared, tmp_path):
    return shutil.copy(prepared / "rows.h5", tmp_path / "rows.h5")


def _rows(path, way: str, dtype=np.float32):
    """All training rows as they are read, and their classes."""
    data = load(str(path), Wanted(np.dtype(dtype), way=way), OneRank())
    rows = data.splits["train"]
    if rows.x is not None:
        return np.array(rows.x), np.array(rows.y)
    slot = rows.new_slot(rows.row_count)
    rows.read_into(slot, rows.table, 0, rows.row_count, 0)
    return slot[0], np.array(rows.y)


@pytest.mark.parametrize("way", ["memory", "mapped", "streamed"])
def test_files_with_and_without_checksums_are_read_alike(prepared, way):
    """Whole, and in parts that begin and end within blocks."""
    x, y = _rows(prepared / "rows.h5", way)
    old_x, old_y = _rows(prepared / "old.h5", way)
    assert np.array_equal(x, old_x) and np.array_equal(y, old_y)
    data = load(str(prepared / "rows.h5"), Wanted(np.dtype("f4"), way="streamed"), OneRank())
    table, generator = data.splits["train"].table, np.random.default_rng(1)
    assert 5 < table.first.chunk_rows < 100
    for _ in range(60):
        start, stop = sorted(generator.integers(0, table.row_count + 1, 2).tolist())
        for kind in (np.uint8, np.float32):
            out = np.empty((stop - start, WIDTH), kind)
            table.read("x", start, stop, out)
            assert np.array_equal(out, x[start:stop].astype(kind))


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("way", ["memory", "mapped", "streamed"])
def test_every_flip_in_rows_is_found(prepared, copied, way):
    """32 of 32, with file, data set and rows; in the file without checksums none would be."""
    with h5py.File(copied) as file:
        places = {
            name: (file[name].id.get_offset(), file[name].nbytes, file[name].shape[0])
            for name in ("train/x", "train/y")
        }
    generator = np.random.default_rng(3)
    for number in range(32):
        name = "train/x" if number % 4 else "train/y"
        start, length, rows = places[name]
        place, bit = int(generator.integers(length)), int(generator.integers(8))
        if name == "train/y":  # so that it stays a class
            place, bit = place - place % (length // rows), 0
        _flip(copied, start + place, bit)
        row = place * rows // length
        with pytest.raises(DataError) as raised:
            _rows(copied, way)
        text = str(raised.value)
        assert text.startswith(f"{copied}: /{name}: rows "), text
        first, last = (int(word) for word in text.split("rows ")[1].split(":")[0].split(" to "))
        assert first <= row <= last and "checksum" in text
        _flip(copied, start + place, bit)
    _rows(copied, way)


def _flip(path, place: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda file: file["about/checksums/train/x"].attrs.__setitem__("rows", 0), "attribute rows"),
        (lambda file: file["about/checksums/train/x"].attrs.__setitem__("rows", np.int64(7)), "uint32 of shape"),
        (lambda file: file["about/checksums/train/x"].attrs.__delitem__("rows"), "attribute rows"),
        (lambda file: file["about/checksums/train/x"].__setitem__(0, 1), "rows 0 to"),
        (lambda file: (file.pop("about/checksums/train/y"), file.create_group("about/checksums/train/y")), "attribute rows"),
    ],
    ids=["no rows", "other rows", "without", "another sum", "a group"],
)  # fmt: skip
def test_checksums_that_cannot_be_are_refused(copied, change, expected):
    with h5py.File(copied, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=expected):
        _rows(copied, "memory")


# -- out of reach -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_file_system_that_comes_back_is_waited_for(prepared, monkeypatch, capsys, number):
    """One line says so; a stale handle is opened again, and the bytes are the same."""
    whole, _ = _rows(prepared / "rows.h5", "streamed")
    real, failures = os.preadv, [number] * 3
    monkeypatch.setattr(stored_file, "_RETRY_SECONDS", 0.01)

    def failing(descriptor, parts, start):
        if failures:
            raise OSError(failures.pop(), os.strerror(number))
        return real(descriptor, parts, start)

    wanted = Wanted(np.dtype("f4"), way="streamed", io_retry=20.0)
    data = load(str(prepared / "rows.h5"), wanted, OneRank())
    rows = data.splits["train"]
    slot = rows.new_slot(rows.row_count)
    monkeypatch.setattr(os, "preadv", failing)
    rows.read_into(slot, rows.table, 0, rows.row_count, 0)
    assert np.array_equal(slot[0], whole) and not failures
    assert capsys.readouterr().err.count("--io-retry") == 1


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_one_that_does_not_come_back_ends_the_run(prepared, monkeypatch, seconds):
    """With the rows that were wanted."""
    monkeypatch.setattr(stored_file, "_RETRY_SECONDS", 0.01)
    wanted = Wanted(np.dtype("f4"), way="streamed", io_retry=seconds)
    rows = load(str(prepared / "rows.h5"), wanted, OneRank()).splits["train"]

    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(DataError, match=r"rows.h5: /train/x: rows 40 to 59: .*Input/output error"):
        rows.read_into(rows.new_slot(20), rows.table, 40, 60, 0)
