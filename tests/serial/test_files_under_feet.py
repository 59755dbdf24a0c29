"""Files that are damaged, cut short, written to, unlinked or out of reach while a run reads them: named, or waited for."""

import errno
import os
import shutil

import h5py
import numpy as np
import pytest

from lepton_mpi import QuietHook
from lepton_mpi.data.files import block_sums, stored_file
from lepton_mpi.data.loader import Wanted, load
from lepton_mpi.errors import DataError
from lepton_mpi.options.config import Config
from lepton_mpi.prepare import writing
from lepton_mpi.run.fit import train
from lepton_mpi.world.world import World
from tests.serial.data_files import OneRank
from tests.serial.raw_files import prepare

_ROWS, _WIDTH = 700, 24


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A file of ``prepare --layout contiguous`` with several blocks of each data set, and one without checksums as earlier versions wrote."""
    folder = tmp_path_factory.mktemp("prepared")
    x = np.random.default_rng(0).integers(0, 256, (_ROWS, _WIDTH)).astype(np.uint8)
    np.savez(folder / "rows.npz", x=x, y=np.arange(_ROWS) % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing.RowWriter.__init__, "__defaults__", (2000,))
        prepare(folder / "rows.npz", folder / "rows.h5", "--layout", "contiguous")
    shutil.copyfile(folder / "rows.h5", folder / "old.h5")
    with h5py.File(folder / "old.h5", "r+") as file:
        del file[block_sums.FOLDER]
    return folder


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
            out = np.empty((stop - start, _WIDTH), kind)
            table.read("x", start, stop, out)
            assert np.array_equal(out, x[start:stop].astype(kind))


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


# -- while a run reads ------------------------------------------------------------------------------


class Change(QuietHook):
    """Does something to the data file after a step."""

    def __init__(self, do, path, step=3):
        self._do, self._path, self._step = do, path, step

    def after_step(self, run):
        if run.step == self._step:
            self._do(self._path)


def _cut(path) -> None:
    os.truncate(path, 5000)


def _empty(path) -> None:
    os.truncate(path, 0)


def _write(path) -> None:
    with open(path, "r+b") as file:
        file.seek(4000)
        file.write(b"?" * 100)
    os.utime(path, ns=(1, 1))  # clocks of file systems are coarse


def _replace(path) -> None:
    other = f"{path}.new"
    shutil.copyfile(path, other)
    os.replace(other, path)


_CHANGES = {
    "cut short": (_cut, "shorter: 5000 bytes, expected"),
    "emptied": (_empty, "shorter: 0 bytes, expected"),
    "written to": (_write, ""),
    "renamed over": (_replace, None),
    "unlinked": (os.unlink, None),
}


@pytest.fixture(scope="module")
def world():
    made = World(100.0)
    yield made
    made.close()


@pytest.mark.parametrize("change", _CHANGES)
@pytest.mark.parametrize("way", ["mapped", "streamed"])
@pytest.mark.parametrize("file", ["rows.h5", "old.h5"])
def test_a_file_that_changes_in_an_epoch(world, prepared, tmp_path, file, way, change):
    """20 cases: the run ends with file, data set and row, or with the bits of one whose file stayed."""
    do, expected = _CHANGES[change]
    path = shutil.copy(prepared / file, tmp_path / file)
    config = Config(
        data=str(path), loader=way, epochs=6, global_batch=32, hidden=(5,), progress="none",
        shuffle="blocks", shuffle_buffer=1000,
    )  # fmt: skip
    if expected is None:
        whole = train(config, world)["weights_digest"]
        assert train(config, world, hooks=[Change(do, path)])["weights_digest"] == whole
        return
    with pytest.raises(DataError) as raised:
        train(config, world, hooks=[Change(do, path)])
    text = str(raised.value)
    assert text.startswith(f"{path}: /train/x: row") and "\n" not in text, text
    assert expected in text or "checksum" in text, text


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
