"""The same batches whichever way rows are read, on any number of ranks, from any step on."""

import tracemalloc
from itertools import islice

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_mpi.data.batches import BatchReader, MicroBatchReader
from lepton_mpi.data.dataset import normalised_in_memory
from lepton_mpi.data.order import MicroBatches, epoch_order
from lepton_mpi.data.reads import TrainingReads, reads_in_order
from lepton_mpi.data.training_order import training_order
from lepton_mpi.errors import DataError
from tests.serial.data_files import OneRank, load, read_all, table, write
from tests.serial.test_shuffles import numbers_of

NOTHING = {"validation": 0.0, "test": 0.0}
HELD_OUT = {"validation": 0.3, "test": 0.1}
CUT = MicroBatches(20, 6)  # 4 micro-batches, the last of 2 rows


def _write(path, rows: int = 107, dtype: str = "f4", targets: int = 0, **storage: object):
    """Rows that tell where they stood; as they lie for mapping, unless storage says how they are chunked."""
    x, y = table(rows, (5,))
    y = y[:, None] + np.arange(targets) / 4 if targets else y
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=(x % 251).astype(dtype), **storage)
        file["y"] = y
    return path


def _batches(
    data, shuffle, world_size: int, epochs: range, first_step: int = 0, in_place: bool = False
) -> list[list]:
    """(x, y, numbers) of every micro-batch of every step, put together from all ranks."""
    ranks = []
    for numbers in numbers_of(shuffle.micro_batches, world_size):
        reader = BatchReader(data, 64, in_place=in_place)
        assert reader.is_in_place == in_place
        rows = data.splits["train"]
        reads = TrainingReads(rows, shuffle, numbers, epochs, first_step, reader.rows_together)
        inputs, steps = MicroBatchReader(reads, reader), []
        total = len(epochs) * shuffle.micro_batches.step_count(rows.row_count) - first_step
        for _ in range(total):
            steps.append([_copied(inputs.next(0)) for _ in numbers])
        assert next(reads, None) is None
        reads.close()
        ranks.append(steps)
    return [sum(parts, []) for parts in zip(*ranks, strict=True)]  # noqa: RUF017


def _copied(batch) -> tuple[np.ndarray, ...]:
    x = batch.x if batch.places is None else batch.x[batch.places]
    return x.copy(), batch.y.copy(), batch.rows.copy()


def _assert_same(mine: list, expected: list) -> None:
    assert len(mine) == len(expected)
    for step, other in zip(mine, expected, strict=True):
        assert len(step) == len(other)
        for parts, others in zip(step, other, strict=True):
            for array, exact in zip(parts, others, strict=True):
                assert array.dtype == exact.dtype
                np.testing.assert_array_equal(array, exact)


def _order(data, window_rows: int = 12, kind: str = "blocks"):
    rows = data.splits["train"]
    return training_order(data, CUT, 3, kind, window_rows * rows.row_bytes * CUT.count)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of about 8 rows, so that a small file has many."""
    from lepton_mpi.data import training_order as module

    monkeypatch.setattr(module, "BLOCK_BYTES", 8 * 5 * 4)
    monkeypatch.setattr(module, "_BLOCK_BYTES_MIN", 1)


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("held_out", [NOTHING, HELD_OUT], ids=["all rows", "some held out"])
@pytest.mark.parametrize("dtype", ["f4", "u1"])
@pytest.mark.parametrize("targets", [0, 2])
def test_every_way_gives_the_same_batches(tmp_path, dtype, targets, held_out):
    """With blocks in memory, mapped and streamed, on 1 to 5 ranks; some have no micro-batch."""
    path = _write(tmp_path / "a.h5", dtype=dtype, targets=targets)
    expected = None
    for way in ("memory", "mapped", "streamed"):
        data = load(path, held_out=held_out, way=way)
        assert data.way.name == way and data.splits["train"].inputs[0].dtype == dtype
        assert (data.splits["train"].x is None) == (way == "streamed")
        for world_size in (1, 2, 3, 5):
            batches = _batches(data, _order(data), world_size, range(1, 4))
            expected = expected or batches
            _assert_same(batches, expected)
    x, y, numbers = (np.concatenate([p[i] for s in expected for p in s]) for i in range(3))
    rows = load(path, held_out=held_out).splits["train"]
    assert sorted(numbers) == sorted(rows.indices.tolist() * 3)
    with h5py.File(path) as file:
        scale = np.float32(1 / 255 if dtype == "u1" else 1)
        np.testing.assert_array_equal(x, file["x"][()][numbers].astype("f4") * scale)
        np.testing.assert_array_equal(y, file["y"][()][numbers])


@pytest.mark.parametrize("way", ["memory", "mapped", "streamed"])
def test_a_run_goes_on_with_the_rows_that_would_have_come(tmp_path, way):
    """From every step of an epoch, on another number of ranks."""
    data = load(_write(tmp_path / "a.h5"), held_out=HELD_OUT, way=way)
    shuffle = _order(data)
    whole = _batches(data, shuffle, 1, range(2, 4))
    steps = len(whole) // 2
    for first_step in range(steps + 1):
        rest = _batches(data, shuffle, 1 + first_step % 5, range(2, 4), first_step)
        _assert_same(rest, whole[first_step:])


@pytest.mark.parametrize("way", ["memory", "streamed"])
def test_any_number_of_epochs_may_be_asked_for(tmp_path, way):
    """As a run does that ends with its time: nothing is made of epochs that are far away."""
    data = load(_write(tmp_path / "a.h5"), way=way)
    tracemalloc.start()
    try:
        reads = TrainingReads(data.splits["train"], _order(data), [0], range(1, 2_000_000), 0)
        next(reads)
        reads.close()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("way", ["memory", "mapped"])
def test_the_full_shuffle_in_runs_of_micro_batches(tmp_path, way):
    """Several micro-batches of a step are gathered by one call; they are those that each rank takes alone."""
    data = load(_write(tmp_path / "a.h5"), held_out=HELD_OUT, way=way)
    shuffle = _order(data, kind="full")
    whole = _batches(data, shuffle, 1, range(1, 3))
    order = shuffle.chosen[epoch_order(shuffle.row_count, 3, 1)]
    for step, parts in enumerate(whole[: CUT.step_count(order.size)]):
        begin = step * CUT.batch_rows
        for number, (_, _, numbers) in enumerate(parts):
            bounds = CUT.bounds(number, begin, min(begin + CUT.batch_rows, order.size))
            np.testing.assert_array_equal(numbers, order[slice(*bounds)])
    for world_size in (2, 3, 5):
        _assert_same(_batches(data, shuffle, world_size, range(1, 3), 1), whole[1:])


@settings(max_examples=40)
@given(
    rows=st.integers(2, 60),
    chunk_rows=st.integers(1, 70),
    batch_rows=st.integers(1, 70),
    parts=st.integers(1, 9),
    window_rows=st.integers(0, 100),
    world_size=st.integers(1, 8),
    first=st.integers(0, 10**6),
    packed=st.booleans(),
)
def test_streamed_rows_are_those_in_memory(
    tmp_path_factory, rows, chunk_rows, batch_rows, parts, window_rows, world_size, first, packed
):
    """For any sizes of chunks, windows and micro-batches: rows fewer than ranks, longer than a window, or a file."""
    path = tmp_path_factory.mktemp("any") / "a.h5"
    storage = {"compression": "gzip"} if packed else {}
    _write(path, rows, chunks=(min(chunk_rows, rows), 5), **storage)
    cut = MicroBatches(batch_rows, -(-batch_rows // parts))
    found = []
    for way in ("memory", "streamed"):
        data = load(path, held_out=HELD_OUT, way=way)
        window_bytes = window_rows * 20 * cut.count
        shuffle = training_order(data, cut, 1, "blocks", window_bytes)
        first_step = first % (shuffle.epoch_steps + 1)
        found.append(_batches(data, shuffle, world_size, range(1, 3), first_step))
    _assert_same(found[1], found[0])


def test_several_files_with_splits_of_their_own(tmp_path):
    """Streamed rows of many files, some without rows, are those in memory."""
    paths = []
    for number, count in enumerate((13, 0, 30, 1)):
        x, y = table(count + number)
        contents = {"train/x": x[number:], "train/y": y[number:], "test/x": x, "test/y": y}
        paths.append(write(tmp_path / f"{number}.h5", contents))
    found, tests = [], []
    for way in ("memory", "streamed"):
        data = load(paths, held_out=HELD_OUT, way=way)
        found.append(_batches(data, _order(data), 3, range(1, 3)))
        tests.append(read_all(data, "test"))
    _assert_same(found[1], found[0])
    np.testing.assert_array_equal(tests[1][0], tests[0][0])


@pytest.mark.parametrize("way", ["memory", "mapped", "streamed"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_rows_in_order(tmp_path, way, split):
    """All of a split, its parts of any rank, and none, in batches of any length."""
    path = _write(tmp_path / "a.h5")
    data = load(path, held_out=HELD_OUT, way=way)
    rows = data.splits[split]
    with h5py.File(path) as file:
        exact = file["x"][()][rows.indices]
    for start, stop in ((0, rows.row_count), (3, 9), (5, 5), (rows.row_count - 1, rows.row_count)):
        for batch_rows in (1, 4, 1000):
            reader = BatchReader(data, 64 if batch_rows < 64 else 1000)
            got = [
                reader.read(read)[0].copy()
                for read in reads_in_order(rows, start, stop, batch_rows)
            ]
            assert all(len(part) == batch_rows for part in got[:-1])
            together = np.concatenate([*got, np.zeros((0, 5), "f4")])
            np.testing.assert_array_equal(together, exact[start:stop])


def test_reading_in_order_may_stop_early(tmp_path):
    """The thread ends with whoever reads."""
    import threading

    data = load(_write(tmp_path / "a.h5"), way="streamed")
    reads = reads_in_order(data.splits["train"], 0, 50, 5)
    assert len(list(islice(reads, 2))) == 2
    reads.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_a_split_is_read_while_windows_of_another_are_filled(tmp_path):
    """Of the same packed data set, by two threads, as evaluation does between two epochs."""
    path = _write(tmp_path / "a.h5", 3000, chunks=(50, 5), compression="gzip", shuffle=True)
    data = load(path, held_out=HELD_OUT, way="streamed")
    exact = load(path, held_out=HELD_OUT, way="memory")
    shuffle, others = _order(data, 60), _order(exact, 60)
    expected = _batches(exact, others, 1, range(1, 4))
    validation = read_all(exact, "validation")[0]
    rows, reader, second = data.splits["train"], BatchReader(data, 64), BatchReader(data, 64)
    reads = TrainingReads(rows, shuffle, list(range(CUT.count)), range(1, 4), 0)
    inputs = MicroBatchReader(reads, reader)
    for number, step in enumerate(expected):
        for x, _, numbers in step:
            got = inputs.next(0)
            np.testing.assert_array_equal(got[0], x)
            np.testing.assert_array_equal(got[2], numbers)
        if number % 30 == 0:
            held_out = data.splits["validation"]
            parts = [
                second.read(read)[0].copy()
                for read in reads_in_order(held_out, 0, held_out.row_count, 64)
            ]
            np.testing.assert_array_equal(np.concatenate(parts), validation)
    reads.close()


# -- damage, found on the way ----------------------------------------------------------------------------


def test_a_number_that_is_not_finite_is_told_when_it_is_reached(tmp_path):
    """Of streamed rows, by file, data set and row; the rows before it have been used."""
    path = _write(tmp_path / "a.h5", 400)
    with h5py.File(path, "r+") as file:
        file["x"][251, 3] = np.nan
    data = load(path, held_out=NOTHING, way="streamed")
    reads = TrainingReads(data.splits["train"], _order(data), [0, 1, 2, 3], range(1, 2), 0)
    with pytest.raises(DataError, match=r"a\.h5: /x: row 251: expected finite numbers, got nan"):
        list(reads)
    with pytest.raises(StopIteration):
        next(reads)
    reads.close()
    with pytest.raises(DataError, match="row 251: expected finite numbers"):
        read_all(data, "train")


def test_damage_is_told_when_it_is_reached(tmp_path):
    """A chunk whose checksum does not fit, which no look at the file has unpacked."""
    path = _write(tmp_path / "a.h5", 400, chunks=(10, 5), fletcher32=True)
    with h5py.File(path) as file:
        place = file["x"].id.get_chunk_info(20).byte_offset
    data = load(path, held_out=NOTHING, way="streamed")
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff")
    reads = TrainingReads(data.splits["train"], _order(data), [2], range(1, 9), 0)
    with pytest.raises(DataError, match=r"a\.h5: /x: rows 200 to 209: damaged: its checksum"):
        list(reads)
    reads.close()


# -- memory ------------------------------------------------------------------------------------------


def _most_bytes(action) -> int:
    tracemalloc.start()
    action()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_few_rows_of_many_do_not_bring_the_others_into_memory(tmp_path):
    """100 rows of 20 MB, all in one batch, take a few blocks of 1 MiB at a time."""
    path, (_, y) = tmp_path / "a.h5", table(20_000, (1,))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(20_000, 1000), dtype="u1")[::7] = 3
        file["y"] = y
    data = load(path, held_out={"validation": 0.005, "test": 0.0}, way="streamed")
    rows = data.splits["validation"]
    assert rows.row_count == 100
    assert _most_bytes(lambda: list(reads_in_order(rows, 0, 100, 100))) < 5 << 20


def test_a_buffer_that_is_larger_than_any_memory(tmp_path):
    """Windows take no more than the rows that there are, and mix all of a stream."""
    data = load(_write(tmp_path / "a.h5"), way="streamed")
    shuffle = training_order(data, CUT, 3, "blocks", 1 << 60)
    most = _most_bytes(lambda: _batches(data, shuffle, 2, range(1, 3)))
    assert most < 1 << 20


def test_windows_are_all_that_is_kept(tmp_path, monkeypatch):
    """Of 12 MB of rows in windows of 400 kB, on a rank of all 4 streams: these and two more."""
    from lepton_mpi.data import training_order as module

    monkeypatch.setattr(module, "BLOCK_BYTES", 50_000)
    path, (x, y) = tmp_path / "a.h5", table(20_000, (150,))
    write(path, {"x": x.astype("f4"), "y": y})
    data = load(path, held_out=NOTHING, way="streamed")
    shuffle = training_order(data, CUT, 3, "blocks", 4 * 400_000)

    def read_them_all() -> None:
        reads = TrainingReads(data.splits["train"], shuffle, range(4), range(1, 2), 0)
        for _ in islice(reads, 2000):
            pass
        reads.close()

    assert 6 * 396_000 <= _most_bytes(read_them_all) < 7 * 400_000


@pytest.mark.parametrize("kind", ["full", "blocks"])
@pytest.mark.parametrize("way", ["memory", "mapped", "streamed"])
def test_rows_used_as_they_lie_are_those_that_would_be_gathered(tmp_path, way, kind):
    """Of every step, on 1 to 5 ranks, with rows that are held out."""
    if (way, kind) == ("streamed", "full"):
        return
    data = load(_write(tmp_path / "a.h5"), held_out=HELD_OUT, way=way)
    shuffle = _order(data, kind=kind)
    gathered = _batches(data, shuffle, 1, range(1, 3))
    for world_size in (1, 2, 3, 5):
        _assert_same(_batches(data, shuffle, world_size, range(1, 3), in_place=True), gathered)


@pytest.mark.parametrize("held_out", [NOTHING, HELD_OUT], ids=["all rows", "some held out"])
@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 20])
def test_rows_normalised_in_memory_are_those_normalised_when_gathered(
    tmp_path, monkeypatch, held_out, block_bytes
):
    """Bit by bit, once for each row, whatever splits it is in; then they can be used as they lie."""
    from lepton_mpi.data import dataset

    monkeypatch.setattr(dataset, "_NORMALISED_BYTES", block_bytes)
    path, generator = _write(tmp_path / "a.h5"), np.random.default_rng(8)
    with h5py.File(path, "a") as file:
        file["normalisation/shift"] = generator.standard_normal(5)
        file["normalisation/scale"] = generator.standard_normal(5)
    data, other = (load(path, held_out=held_out) for _ in range(2))
    assert not data.is_ready and not BatchReader(data, 8, in_place=True).is_in_place
    shuffle = _order(data, kind="full")
    expected = _batches(data, shuffle, 1, range(1, 2))
    validation = read_all(data, "validation")
    changed = normalised_in_memory(other, OneRank())
    assert changed.normalisation is other.normalisation and changed.is_ready
    assert normalised_in_memory(changed, OneRank()) is changed
    _assert_same(_batches(changed, shuffle, 1, range(1, 2)), expected)
    _assert_same(_batches(changed, shuffle, 2, range(1, 2), in_place=True), expected)
    _assert_same([[read_all(changed, "validation")]], [[validation]])


@pytest.mark.parametrize(("way", "dtype"), [("mapped", "f4"), ("streamed", "f4"), ("memory", "u1")])
def test_rows_that_are_not_floats_in_memory_are_normalised_when_gathered(tmp_path, way, dtype):
    """Bytes stay bytes, and files stay as they are."""
    path = _write(tmp_path / "a.h5", dtype=dtype)
    with h5py.File(path, "a") as file:
        file["normalisation/shift"], file["normalisation/scale"] = 3.0, 2.0
    data = load(path, way=way)
    assert normalised_in_memory(data, OneRank()) is data and not data.is_ready


@pytest.mark.parametrize("rows", [1, 19, 20, 21, 107])
def test_steps_weigh_their_rows(tmp_path, rows):
    """The gradient of a step is divided by its rows; the last step of an epoch may have fewer."""
    data = load(_write(tmp_path / "a.h5", rows), held_out=NOTHING)
    reads = TrainingReads(data.splits["train"], _order(data, kind="full"), [0], range(1, 3), 0)
    whole = [20] * (rows // 20) + [rows % 20] * (rows % 20 > 0)
    assert reads.step_weights(2) == whole
    # Of some of the micro-batches of 6, 6, 6 and 2 rows, the last of which are empty in a short step.
    of_some = [min(n, 6) + min(max(n - 12, 0), 6) for n in whole]
    assert reads.step_weights(2, [0, 2]) == of_some
    assert [*map(sum, zip(of_some, reads.step_weights(2, [1, 3]), strict=True))] == whole
    reads.close()
