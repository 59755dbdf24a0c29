"""From a file to batches, in one process."""

import numpy as np
import pytest

from lepton_mpi.chunks import share
from lepton_mpi.data import kernels, loader, order
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.dataset import normalised_in_memory, renormalised
from lepton_mpi.data.files import hdf5
from lepton_mpi.data.files.file_format import FORMAT
from lepton_mpi.data.loader import Wanted
from tests import reference
from tests.serial.data_files import HELD_OUT, OneRank, load, read_all, table, write
from tests.serial.raw_files import prepare

NAMES = {
    "groups": {"train": "train/{}", "validation": "validation/{}", "test": "test/{}"},
    "suffixes": {"train": "{}_train", "validation": "{}_validation", "test": "{}_test"},
}


def _splits(layout: str, sizes: dict[str, int]) -> tuple[dict, dict]:
    """Contents of a file with these splits, cut from one table; the parts by split."""
    x, y = table(sum(sizes.values()))
    contents, parts, start = {}, {}, 0
    for split, rows in sizes.items():
        parts[split] = x[start : start + rows], y[start : start + rows]
        contents |= {
            NAMES[layout][split].format(name): part
            for name, part in zip("xy", parts[split], strict=True)
        }
        start += rows
    return contents, parts


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", NAMES)
def test_splits_of_the_file_are_taken_as_they_are(tmp_path, layout, dtype):
    """Three splits in groups or under suffixed names come out in the order of the file, in the type asked for."""
    contents, parts = _splits(layout, {"train": 11, "validation": 4, "test": 5})
    data = load(write(tmp_path / "a.h5", contents), dtype)
    assert (
        data.feature_shape == (3,) and data.class_names == ("0", "1", "2") and data.class_count == 3
    )
    for split, (x, y) in parts.items():
        rows, labels = read_all(data, split)
        assert rows.dtype == dtype and labels.dtype == np.int32
        np.testing.assert_array_equal(rows, x)
        np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("missing", ["validation", "test"])
def test_a_missing_split_is_held_out_of_the_training_rows(tmp_path, layout, missing):
    """A fifth of the training rows replaces the missing split; the other split stays as the file has it."""
    sizes = {"train": 20, "validation": 4, "test": 5}
    del sizes[missing]
    contents, parts = _splits(layout, sizes)
    data = load(write(tmp_path / "a.h5", contents))
    (other,) = sizes.keys() - {"train"}
    np.testing.assert_array_equal(read_all(data, other)[0], parts[other][0])
    assert data.splits["train"].row_count == 16 and data.splits[missing].row_count == 4
    together = np.concatenate([read_all(data, "train")[0], read_all(data, missing)[0]])
    np.testing.assert_array_equal(np.sort(together[:, 0]), parts["train"][0][:, 0])


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_nothing_is_held_out_of_a_file_that_prepare_wrote(tmp_path, missing):
    """Its rows may depend on each other, and then figures on some of them would be too good."""
    sizes = {"train": 20, "validation": 4, "test": 5}
    del sizes[missing]
    contents, _ = _splits("groups", sizes)
    path = write(tmp_path / "a.h5", contents, format=np.bytes_(FORMAT))
    data = load(path)
    assert {split: rows.row_count for split, rows in data.splits.items()} == {missing: 0, **sizes}
    other = write(tmp_path / "b.h5", contents)
    assert load([other, path]).splits["train"].row_count == 40
    assert load([other]).splits["train"].row_count == 16
    write(other, contents, format=np.arange(3))
    assert load(other).splits["train"].row_count == 16


def test_windows_of_a_text_are_not_tested_on_what_was_trained(tmp_path):
    """Of a file of training windows alone, as ``prepare`` writes it, none is held out."""
    (tmp_path / "book.txt").write_text("Full fathom five thy father lies. " * 20)
    facts = prepare(f"train={tmp_path / 'book.txt'}", tmp_path / "a.h5", "--context", "8")
    data = load(tmp_path / "a.h5")
    counts = {split: rows.row_count for split, rows in data.splits.items()}
    assert counts == {"validation": 0, "test": 0} | {k: v for k, v in facts["splits"].items() if v}


def test_one_table_is_split_in_three(tmp_path):
    """Of x and y alone, test rows are held out first, validation rows from the rest; every row in one split."""
    x, y = table(100)
    path = write(tmp_path / "a.h5", {"x": x, "y": y})
    data = load(path)
    assert {split: rows.row_count for split, rows in data.splits.items()} == {
        "train": 64,
        "validation": 16,
        "test": 20,
    }
    used = np.concatenate([rows.indices for rows in data.splits.values()])
    np.testing.assert_array_equal(np.sort(used), np.arange(100))
    rows, labels = read_all(data, "validation")
    np.testing.assert_array_equal(rows[:, 0] // 3 % 3, labels)
    np.testing.assert_array_equal(load(path).splits["test"].indices, data.splits["test"].indices)
    assert not np.array_equal(
        load(path, seed=1).splits["test"].indices, data.splits["test"].indices
    )


def test_nothing_is_held_out_where_nothing_is_wanted(tmp_path):
    """Fractions of 0 leave all rows to training and make empty splits."""
    x, y = table(10)
    data = load(
        write(tmp_path / "a.h5", {"x": x, "y": y}), held_out={"validation": 0.0, "test": 0.0}
    )
    assert [data.splits[split].row_count for split in ("train", "validation", "test")] == [10, 0, 0]


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 2, 2)])
def test_rows_keep_their_shape(tmp_path, shape):
    """Batches have the shape of the file's rows; a row may be a single number."""
    x, y = table(6, shape)
    data = load(write(tmp_path / "a.h5", {"train/x": x, "train/y": y, "test/x": x, "test/y": y}))
    assert data.feature_shape == shape
    np.testing.assert_array_equal(read_all(data, "test")[0], x)


def test_labels_may_be_a_column(tmp_path):
    """y of shape (rows, 1) is as good as (rows,)."""
    x, y = table(6)
    data = load(
        write(tmp_path / "a.h5", {"train/x": x, "train/y": y[:, None], "test/x": x, "test/y": y})
    )
    np.testing.assert_array_equal(data.splits["train"].y[:6], y)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u4", "i8", "f2", ">f4", ">f8", "f8", "?"])
def test_numbers_of_any_type_are_converted(tmp_path, dtype):
    """Whole numbers, floats of any size and byte order, and bool; uint8 alone is scaled."""
    x = np.array([[0, 1], [1, 0], [1, 1], [0, 0]]).astype(dtype)
    data = load(
        write(
            tmp_path / "a.h5",
            {"train/x": x, "train/y": [0, 1, 0, 1], "test/x": x, "test/y": [0, 1, 0, 1]},
        )
    )
    scale = 1 / 255 if dtype == "u1" else 1
    np.testing.assert_allclose(read_all(data, "test")[0], x.astype(float) * scale, rtol=1e-7)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i8", "u8", ">i4", "?"])
def test_labels_of_any_whole_type_are_taken(tmp_path, dtype):
    """Labels may be signed, unsigned, of either byte order, or bool."""
    x, y = table(6, classes=2)
    data = load(
        write(
            tmp_path / "a.h5", {"train/x": x, "train/y": y.astype(dtype), "test/x": x, "test/y": y}
        )
    )
    np.testing.assert_array_equal(data.splits["train"].y, y)


# -- normalisation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["memory", "streamed"])
@pytest.mark.parametrize("stored", [np.float64, np.int64, np.int32, np.uint32])
@pytest.mark.parametrize("name", ["x", "times"])
def test_large_numbers_that_differ_by_little_keep_their_digits(tmp_path, way, stored, name):
    """The shift is taken off in the type that is stored: seconds since 1970 are one float32 for two minutes."""
    times = (1_700_000_000 + np.arange(60) * (1 if np.dtype(stored).kind in "iu" else 0.25)).astype(
        stored
    )
    shift, scale = times.mean(), 1 / times.std()
    place = "normalisation" if name == "x" else f"normalisation/inputs/{name}"
    where = "{}/x" if name == "x" else "{}/inputs/times"
    contents = {f"{place}/shift": np.array([shift]), f"{place}/scale": np.array([scale])}
    for split, part in (("train", slice(0, 40)), ("validation", slice(40, 50)), ("test", slice(50, 60))):  # fmt: skip
        contents[where.format(split)] = times[part, None]
        contents[f"{split}/y"] = np.arange(60)[part] % 2
    path = write(tmp_path / "a.h5", contents)
    expected = ((times.astype(np.float64) - shift) * scale).astype(np.float32)[:40]
    data = load(path, np.float32, way=way)
    x, _ = read_all(data, "train")
    np.testing.assert_allclose(x[:, 0], expected, rtol=1e-6, atol=1e-6)
    other = renormalised(data, (np.array([shift + 3]), np.array([scale / 2])))
    x, _ = read_all(other, "train")
    np.testing.assert_allclose(x[:, 0], (expected - 3 * scale) / 2, rtol=1e-5, atol=1e-6)
    if way == "memory" and name == "x":
        x, _ = read_all(normalised_in_memory(data, OneRank()), "train")
        np.testing.assert_allclose(x[:, 0], expected, rtol=1e-6, atol=1e-6)


def test_bytes_stay_bytes_and_are_divided_by_255(tmp_path):
    """uint8 rows are kept in a quarter of the memory and leave as numbers from 0 to 1."""
    x = np.arange(256, dtype=np.uint8).reshape(32, 8)
    y = np.arange(32) % 2
    data = load(write(tmp_path / "a.h5", {"train/x": x, "train/y": y, "test/x": x, "test/y": y}))
    assert data.splits["train"].x.dtype == np.uint8
    rows, _ = read_all(data, "test")
    np.testing.assert_allclose(rows, x / 255, rtol=1e-6)
    assert rows.max() == 1


@pytest.mark.parametrize("shape", [(), (2, 3)], ids=["one number", "by feature"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_shift_and_scale_are_applied(tmp_path, shape, dtype):
    """``(x - shift) * scale``, of one number for all features or one for each; also for bytes."""
    x, y = table(6, (2, 3))
    shift, scale = (
        np.full(shape, 2.0) + np.arange(np.prod(shape)).reshape(shape),
        np.full(shape, 0.5),
    )
    contents = {"train/x": x.astype(dtype), "train/y": y, "test/x": x.astype(dtype), "test/y": y}
    contents |= {"normalisation/shift": shift, "normalisation/scale": scale}
    data = load(write(tmp_path / "a.h5", contents), np.float64)
    np.testing.assert_array_equal(read_all(data, "test")[0], (x - shift) * scale)


def test_renormalised_data_hold_the_same_rows(tmp_path):
    """Another shift and scale change the batches and nothing else."""
    x, y = table(6)
    data = load(
        write(tmp_path / "a.h5", {"train/x": x, "train/y": y, "test/x": x, "test/y": y}), np.float64
    )
    other = renormalised(data, (np.full(3, 1.0), np.full(3, 10.0)))
    np.testing.assert_array_equal(read_all(other, "test")[0], (x - 1) * 10)
    np.testing.assert_array_equal(read_all(data, "test")[0], x)
    assert other.splits is data.splits


# -- classes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["ham", "spam", "eggs"],
        np.array([b"ham", b"spam", b"eggs"]),
        np.array([b"ham", b"spam", b"eggs"], object),
    ],
    ids=["text", "fixed bytes", "variable bytes"],
)
def test_names_of_classes_come_from_the_file(tmp_path, names):
    """The attribute ``classes`` names the classes, in whichever form HDF5 keeps texts."""
    x, y = table(6)
    data = load(write(tmp_path / "a.h5", {"x": x, "y": y}, classes=names))
    assert data.class_names == ("ham", "spam", "eggs")


def test_names_decide_the_number_of_classes(tmp_path):
    """A class that has a name counts, also if no row has it."""
    x, y = table(6, classes=2)
    assert (
        load(write(tmp_path / "a.h5", {"x": x, "y": y}, classes=["a", "b", "c"])).class_count == 3
    )


def test_there_are_two_classes_at_least(tmp_path):
    """Rows of one class are an odd but possible training set."""
    x, y = table(10, classes=1)
    assert load(write(tmp_path / "a.h5", {"x": x, "y": y})).class_count == 2


# -- targets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12,), (12, 1), (12, 3)], ids=str)
@pytest.mark.parametrize("source", ["f4", ">f8", "f2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_targets(tmp_path, shape, source, dtype):
    """One number a row or several come out as a matrix of the type asked for, in the order asked for."""
    x, _ = table(12)
    y = np.random.default_rng(0).standard_normal(shape).astype(source)
    contents = {"train/x": x, "train/y": y, "test/x": x, "test/y": y}
    data = load(write(tmp_path / "a.h5", contents), dtype)
    targets = int(np.prod(shape[1:]))
    assert (data.class_count, data.target_count, data.class_names) == (None, targets, ())
    assert data.output_count == targets
    assert data.outputs_text == ("1 target" if targets == 1 else "3 targets")
    reader, indices = BatchReader(data, 8), np.array([5, 5, 0, 11])
    rows, predicted = reader.read(data.splits["test"].read_of(indices))[:2]
    assert predicted.dtype == dtype and predicted.flags.c_contiguous
    np.testing.assert_array_equal(predicted, y.astype(dtype).reshape(12, targets)[indices])
    np.testing.assert_array_equal(rows, x[indices])


@pytest.mark.parametrize("dtype", ["i8", "u1", "?"])
def test_whole_numbers_are_targets_where_they_are_asked_for(tmp_path, dtype):
    """Counts and negative numbers are predicted, not taken for classes."""
    x, y = table(10)
    y = (y - (dtype == "i8")).astype(dtype)
    path = write(tmp_path / "a.h5", {"train/x": x, "train/y": y, "test/x": x, "test/y": y})
    data = load(path, y_kind="targets")
    np.testing.assert_array_equal(read_all(data, "test")[1], y[:, None].astype(np.float32))


@pytest.mark.parametrize("local_size", [1, 3])
def test_ranks_of_a_host_fill_the_targets_together(tmp_path, local_size):
    """Each its part, in blocks of any size; of one table the held out rows have their own targets."""
    x, y = table(10)
    path = write(tmp_path / "a.h5", {"x": x, "y": y[:, None] + [[0.5, 1.5]]})
    filled = 0
    for local_rank in range(local_size):
        data = loader.load(
            str(path), Wanted(np.dtype(np.float64), HELD_OUT), OneRank(local_rank, local_size)
        )
        filled = filled + data.splits["train"].y
    np.testing.assert_array_equal(filled, y[:, None] + [[0.5, 1.5]])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_kernel_that_gathers_targets_matches_its_twin(dtype):
    """And leaves what is behind the batch."""
    targets = np.random.default_rng(0).standard_normal((9, 3)).astype(dtype)
    mine, exact = np.full((6, 3), -1, dtype), np.full((6, 3), -1, dtype)
    for rows in ([], [8, 0, 8]):
        indices = np.array(rows, np.int64)
        count = kernels.gather_targets(targets, indices, mine)
        assert count == reference.gather_targets(targets, indices, exact) == len(rows)
        np.testing.assert_array_equal(mine, exact)


# -- sharing and reading -----------------------------------------------------------------------------


@pytest.mark.parametrize("local_size", [1, 2, 3, 7])
def test_ranks_of_a_host_fill_one_table_together(tmp_path, local_size):
    """Each rank reads its part of every split; together they have read all of it, each row once."""
    x, y = table(10)
    path = write(
        tmp_path / "a.h5", {"train/x": x + 1, "train/y": y, "test/x": x[:5] + 1, "test/y": y[:5]}
    )
    filled = []
    for local_rank in range(local_size):
        host = OneRank(local_rank, local_size)
        data = loader.load(str(path), Wanted(np.dtype(np.float64), HELD_OUT), host)
        assert host.barriers >= 1
        filled.append((data.splits["train"].x, data.splits["test"].x))
    for split, rows in zip(range(2), (x, x[:5]), strict=True):
        np.testing.assert_array_equal(sum(parts[split] for parts in filled), rows + 1)
        assert (sum((parts[split] != 0).astype(int) for parts in filled) == 1).all()


def test_a_batch_lasts_until_the_next_one(tmp_path):
    """Batches of any length up to the longest are views of the same memory, in the order asked for."""
    x, y = table(20)
    data = load(write(tmp_path / "a.h5", {"train/x": x, "train/y": y, "test/x": x, "test/y": y}))
    reader, rows = BatchReader(data, 8), data.splits["test"]
    for indices in ([3, 3, 0], [19], [], list(range(8))):
        batch_x, batch_y = reader.read(rows.read_of(np.array(indices, np.int64)))[:2]
        np.testing.assert_array_equal(batch_x, x[indices])
        np.testing.assert_array_equal(batch_y, y[indices])


@pytest.mark.parametrize("trains", [False, True])
def test_a_batch_longer_than_the_reader_is_refused(tmp_path, trains):
    """More rows than there is room for are refused before any is written past the end of the memory."""
    x, y = table(20)
    data = load(write(tmp_path / "a.h5", {"train/x": x, "train/y": y, "test/x": x, "test/y": y}))
    reader = BatchReader(data, 8)
    beyond_x, beyond_y = np.full((16, 3), -1, np.float32), np.full(16, -1, np.int32)
    # So that a missing check destroys only these.
    reader._inputs[0]._out, reader._gather_y.__self__._out = beyond_x[:8], beyond_y[:8]
    read = data.splits["test"].read_of(np.arange(10))
    with pytest.raises((AssertionError, ValueError)):
        reader.read_for_training(read, 0) if trains else reader.read(read)
    assert (beyond_x[8:] == -1).all() and (beyond_y[8:] == -1).all()


@pytest.mark.parametrize(
    ("source", "target"), [("u1", "f4"), ("u1", "f8"), ("f4", "f4"), ("f8", "f8")]
)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_gather_kernels_match_their_twins(source, target, rows):
    """Rows and labels are gathered as by NumPy's fancy indexing, to one rounding each of shift and scale."""
    generator = np.random.default_rng(1)
    x, labels = (
        generator.integers(0, 256, (9, 4)).astype(source),
        generator.integers(0, 5, 9, np.int32),
    )
    shift, scale = generator.standard_normal((2, 4)).astype(target)
    indices = generator.integers(0, 9, rows)
    mine, exact = np.full((6, 4), -1, target), np.full((6, 4), -1, target)
    kernels.gather_rows(x, indices, shift, scale, mine)
    reference.gather_rows(x, indices, shift, scale, exact)
    np.testing.assert_allclose(mine, exact, rtol=0, atol=4 * np.finfo(target).eps * 256)
    ours, theirs = np.full(6, -1, np.int32), np.full(6, -1, np.int32)
    assert (
        kernels.gather_labels(labels, indices, ours)
        == reference.gather_labels(labels, indices, theirs)
        == rows
    )
    np.testing.assert_array_equal(ours, theirs)


# -- the sets that come with the package -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "train", "test", "shape", "classes"),
    [
        ("digits", 1438, 359, (8, 8), 10),
        ("breast_cancer", 456, 113, (30,), 2),
        ("loans", 7200, 3600, (6,), 2),
        ("words", 480, 180, (48, 16), 10),
    ],
)
def test_embedded_sets_are_what_their_description_says(name, train, test, shape, classes):
    """Rows, shape, classes, and features of a scale that a network can learn from."""
    data = load(name, held_out={"validation": 0.0, "test": 0.0})
    assert data.splits["train"].row_count == train and data.splits["test"].row_count == test
    assert data.feature_shape == shape and data.class_count == classes
    x, y = read_all(data, "train")
    assert np.bincount(y).min() > 0.05 * train
    assert np.abs(x).mean() < 1 and x.std() < 1.5


def test_a_file_of_ones_own_may_have_the_name_of_an_embedded_set(tmp_path, monkeypatch):
    """``digits`` is the embedded set, ``./digits`` and ``digits.h5`` are files."""
    monkeypatch.chdir(tmp_path)
    assert hdf5.locate("digits").parent == hdf5.EMBEDDED
    assert hdf5.locate("./digits").parent != hdf5.EMBEDDED
    assert hdf5.locate("digits.h5").parent != hdf5.EMBEDDED


def test_every_row_of_an_epoch_is_read_once(tmp_path):
    """Steps and shares of 3 ranks, gathered by their readers, give every training row once."""
    x, y = table(50)
    data = load(write(tmp_path / "a.h5", {"x": x, "y": y}), np.float64)
    rows = data.splits["train"]
    in_order = rows.indices[order.epoch_order(rows.row_count, 0, 1)]
    reader, seen = BatchReader(data, 8), []
    for start, stop in reference.step_bounds(rows.row_count, 8):
        for rank in range(3):
            first, last = share(start, stop, 3, rank)
            seen.append(reader.read(rows.read_of(in_order[first:last]))[0].copy())
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)[:, 0]), np.sort(x[rows.indices, 0]))


@pytest.mark.parametrize("way", ["memory", "mapped", "streamed"])
def test_every_block_that_is_read_is_progress(tmp_path, monkeypatch, way):
    """For the time limit: data may be so many that reading them takes longer."""
    x, y = table(40_000, (10,))
    path = write(tmp_path / "a.h5", {"train/x": x, "train/y": y})
    host, entered = OneRank(), []
    monkeypatch.setattr(host.clock, "enter", lambda phase, *_: entered.append(phase))
    data = loader.load(str(path), Wanted(np.dtype(np.float64), HELD_OUT, way=way), host)
    assert entered == ["start"] * (len(data.splits["train"].table.blocks()) - 1)
    assert len(entered) > 2
