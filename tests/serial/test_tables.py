"""Many files as one data set: patterns, order, splits that some of them lack rows of, and files that do not fit."""

import os
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.data.files import hdf5
from lepton_mpi.data.files.stored_file import StoredFile
from lepton_mpi.data.files.stored_rows import StoredRows
from lepton_mpi.data.tables import Table
from lepton_mpi.errors import DataError
from tests.serial.data_files import load, read_all, table, write

WAYS = ["memory", "streamed"]
NOTHING = {"validation": 0.0, "test": 0.0}
SIZES = {"train": [5, 0, 7, 1], "validation": [0, 0, 3, 2], "test": [2, 2, 0, 0]}


def _write_parts(folder, sizes=SIZES, dtype="f8", y_dtype="i8") -> tuple[list, dict]:
    """Files of these numbers of rows by split; their paths, and the rows of each split in order."""
    paths, whole, start = [], {split: ([], []) for split in sizes}, 0
    for number in range(len(sizes["train"])):
        contents = {}
        for split, counts in sizes.items():
            rows = counts[number]
            x, y = table(start + rows)
            x, y = x[start:].astype(dtype), y[start:].astype(y_dtype)
            contents |= {f"{split}/x": x, f"{split}/y": y}
            whole[split][0].append(x)
            whole[split][1].append(y)
            start += rows
        paths.append(write(folder / f"part{number}.h5", contents))
    return paths, {
        split: tuple(np.concatenate(parts) for parts in pair) for split, pair in whole.items()
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_splits_of_files_follow_each_other(tmp_path, way, order):
    """In the order in which the files are named, also where some of them have no rows of a split."""
    paths, _ = _write_parts(tmp_path)
    data = load([paths[number] for number in order], np.float64, way=way)
    assert data.paths == tuple(paths[number] for number in order)
    assert data.name == f"{paths[order[0]].name} and 3 more"
    for split, counts in SIZES.items():
        x, y = read_all(data, split)
        expected = []
        for number in order:
            with h5py.File(paths[number]) as file:
                expected.append((file[f"{split}/x"][()], file[f"{split}/y"][()]))
        np.testing.assert_array_equal(x, np.concatenate([rows for rows, _ in expected]))
        np.testing.assert_array_equal(y, np.concatenate([labels for _, labels in expected]))
        assert data.splits[split].row_count == sum(counts)


def test_patterns_name_files_in_the_order_of_their_names(tmp_path, monkeypatch):
    """Beside names, in the place of the pattern; a name with such signs that is there is a name."""
    paths, _ = _write_parts(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = hdf5.locate_all(["part3.h5", "part[0-2].h5", "digits"])
    assert [path.name for path in found] == [
        *("part3.h5", "part0.h5", "part1.h5", "part2.h5"),
        "digits.h5",
    ]
    paths[0].rename(tmp_path / "part[12].h5")
    assert [path.name for path in hdf5.locate_all(["part[12].h5"])] == ["part[12].h5"]
    assert load(tmp_path / "part*.h5").splits["train"].row_count == 13


@pytest.mark.parametrize("other", ["part0.h5", "./part0.h5", "{}/part0.h5", "link.h5", "hard.h5*"])
def test_a_file_that_is_given_twice_is_refused(tmp_path, monkeypatch, other):
    """By the same name, by another one, by a link, or by a pattern; but for copies, which are other files."""
    _write_parts(tmp_path)
    monkeypatch.chdir(tmp_path)
    os.symlink("part0.h5", "link.h5")
    if other == "hard.h5*":
        os.symlink("part0.h5", "hard.h5")
    with pytest.raises(DataError, match=r"part0\.h5: expected every file once, got it 2 times"):
        hdf5.locate_all(["part0.h5", "part1.h5", other.format(tmp_path)])
    assert len(hdf5.locate_all(["part0.h5", "part1.h5"])) == 2


def test_a_pattern_that_names_nothing_is_refused(tmp_path):
    """As it was given."""
    with pytest.raises(DataError, match=r"none\*\.h5: no file has such a name"):
        hdf5.locate_all([str(tmp_path / "none*.h5")])


def _fitting(**changes: object) -> dict[str, object]:
    x, y = table(6)
    contents = {"train/x": x, "train/y": y, "test/x": x, "test/y": y} | changes
    return {name: values for name, values in contents.items() if values is not None}


X4, Y = table(6, (4,))
MISFITS = {
    "rows of shape": (
        _fitting(**{"train/x": X4, "test/x": X4}),
        {},
        "expected rows of shape (3,) as in {first}, got (4,)",
    ),
    "names": (
        _fitting(),
        {"classes": ["a", "b", "c"]},
        "expected classes () as in {first}, got ('a', 'b', 'c')",
    ),
    "targets": (
        _fitting(**{"train/y": Y / 2, "test/y": Y / 2}),
        {},
        "expected targets a row 0 as in {first}, got 1",
    ),
    "splits": (
        _fitting(**{"test/x": None, "test/y": None}),
        {},
        "expected splits train, test as in {first}, got train",
    ),
    "shift": (
        _fitting(**{"normalisation/shift": np.ones(3)}),
        {},
        "normalisation/shift: expected the numbers of {first}, got others: prepare the files together",
    ),
    "bytes": (
        _fitting(
            **{"train/x": Y.repeat(3).reshape(6, 3).astype("u1"), "test/x": np.ones((6, 3), "u1")}
        ),
        {},
        "normalisation/scale: expected the numbers of {first}, got others: prepare the files together",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_files_that_do_not_fit_are_named(tmp_path, misfit):
    """Both of them, what was expected and what came."""
    contents, attributes, words = MISFITS[misfit]
    first = write(tmp_path / "first.h5", _fitting())
    good = write(tmp_path / "good.h5", _fitting())
    other = write(tmp_path / "other.h5", contents, **attributes)
    with pytest.raises(DataError) as error:
        load([first, good, other])
    message = str(error.value)
    assert message.startswith(f"{other}: ") and words.format(first=first) in message


def test_types_may_differ_from_file_to_file(tmp_path):
    """Numbers are those of the type asked for; each file has classes of a type of its own."""
    one, parts = _write_parts(tmp_path, dtype="f4", y_dtype="u1")
    x, y = table(4)
    more = write(
        tmp_path / "more.h5",
        {f"{split}/{n}": v for split in SIZES for n, v in (("x", x.astype(">i2")), ("y", y))},
    )
    for way in WAYS:
        rows, labels = read_all(load([*one, more], np.float64, way=way), "train")
        np.testing.assert_array_equal(rows, np.concatenate([parts["train"][0], x]))
        np.testing.assert_array_equal(labels, np.concatenate([parts["train"][1], y]))


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_row_is_named_by_its_place_in_its_file(tmp_path, way):
    """A class or a number that is wrong in the third file."""
    paths, _ = _write_parts(tmp_path)
    with h5py.File(paths[2], "r+") as file:
        file["train/y"][4] = -1
    with pytest.raises(DataError) as error:
        load(paths, way=way)
    assert str(error.value).startswith(
        f"{paths[2]}: /train/y: row 4: expected a class from 0 up, got -1; if"
    )


def _table_of(paths) -> Table:
    x, y = [], []
    for path in paths:
        with h5py.File(path, "r", locking=False) as file:
            stays_open = StoredFile(path, file)
            x.append(StoredRows(stays_open, file["train/x"]))
            y.append(StoredRows(stays_open, file["train/y"]))
    return Table({"x": Input("numbers", (3,))}, {"x": x}, y, 0)


def test_every_span_of_rows_is_read(tmp_path):
    """Also those that begin or end where a file does."""
    paths, parts = _write_parts(tmp_path)
    rows, (x, y) = _table_of(paths), parts["train"]
    for start in range(14):
        for stop in range(start, 14):
            got_x, got_y = np.full((stop - start, 3), -1.0), np.full(stop - start, -1, np.int32)
            rows.will_need(start, stop)
            rows.read("x", start, stop, got_x)
            rows.read_y(start, stop, got_y)
            np.testing.assert_array_equal(got_x, x[start:stop])
            np.testing.assert_array_equal(got_y, y[start:stop])
    assert rows.place_of(12) == f"{paths[3]}: /train/y: row 0"


@pytest.mark.parametrize("block_bytes", [1, 48, 100, 1 << 20])
def test_blocks_are_of_one_file_and_of_whole_chunks(tmp_path, block_bytes):
    """They ascend from the first row to the end, and none is empty."""
    paths, parts = [], [40, 0, 7, 31]
    for number, count in enumerate(parts):
        path = tmp_path / f"{number}.h5"
        x, chunks = np.zeros((count, 3), "f4"), (2 + number, 3)
        with h5py.File(path, "w") as file:
            file.create_dataset("train/x", data=x, chunks=chunks, maxshape=(None, 3))
            file["train/y"] = np.zeros(count, int)
        paths.append(path)
    blocks = _table_of(paths).blocks(block_bytes)
    assert blocks.dtype == np.int64 and blocks[0] == 0 and blocks[-1] == sum(parts)
    assert (np.diff(blocks) > 0).all()
    begins = np.cumsum([0, *parts])
    assert set(begins) <= set(blocks)
    for start in blocks[:-1]:
        number = np.flatnonzero(begins <= start)[-1]
        assert (start - begins[number]) % (2 + number) == 0
        assert block_bytes > 1 or start + 2 + number >= blocks[blocks > start][0]


@pytest.mark.slow
def test_more_files_than_may_be_open_at_first(tmp_path):
    """The limit is raised where that is allowed; where it is not, a line says so."""
    x, y = table(2)
    for number in range(60):
        write(tmp_path / f"{number:02}.h5", {"x": x, "y": y})
    program = (
        "import resource, sys\n"
        "from tests.serial.data_files import load\n"
        "from lepton_mpi.errors import DataError\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "for limits in (50, hard), (210, 210):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, limits)\n"
        "    try: print(load(sys.argv[1] + '/*.h5').splits['train'].row_count)\n"
        "    except DataError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, refused = done.stdout.splitlines()
    assert rows == "77"  # 0.64 of 120
    assert refused.startswith("60 files: expected at most 10, since a process may open 210 here")


def test_only_one_file_keeps_a_chunk_in_memory(tmp_path):
    """Of 20 files with chunks of 200 kB, whose rows are read in turns, no more than a few chunks are kept."""
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.h5")
        with h5py.File(paths[-1], "w") as file:
            x = np.full((100, 500), number, "f4")
            for name, values in (("x", x), ("y", x[:, 0].astype(int))):
                file.create_dataset(
                    f"train/{name}", data=values, chunks=values.shape, compression="gzip"
                )
    rows, out = _table_of(paths), np.empty((10, 500), "f4")
    tracemalloc.start()
    for start in (*range(0, 2000, 50), *range(1980, 0, -70)):
        rows.read("x", start, start + 10, out)
        np.testing.assert_array_equal(out[:, 0], np.arange(start, start + 10) // 100)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * 200_000
