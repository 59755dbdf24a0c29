"""Texts in one piece: from a stream of tokens to batches, on any way, number of ranks and order."""

import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_mpi.batch import Batch, Input
from lepton_mpi.data import loader, training_order
from lepton_mpi.data.batches import BatchReader, MicroBatchReader
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.loader import Wanted
from lepton_mpi.data.order import FullShuffle, MicroBatches
from lepton_mpi.data.reads import TrainingReads, reads_in_order
from lepton_mpi.data.windows import Windows
from lepton_mpi.errors import DataError
from lepton_mpi.tasks.registry import make_task
from tests.serial.data_files import OneRank, write
from tests.serial.test_shuffles import numbers_of

CUT = MicroBatches(20, 6)
WAYS = ["memory", "mapped", "streamed"]
NOTHING = {"validation": 0.0, "test": 0.0}


def _tokens(count: int, dtype: str = "u1", values: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, values, count).astype(dtype)


def _write(
    path: Path, splits: dict[str, np.ndarray], values: int = 50, context: int = 8, **storage
) -> Path:
    with h5py.File(path, "w") as file:
        for split, tokens in splits.items():
            made = file.create_dataset(f"{split}/tokens", data=tokens, **storage)
            made.attrs["values"], made.attrs["context"] = values, context
    return path


def _load(path: Path | list, **wanted: object) -> DataSet:
    names = [str(name) for name in path] if isinstance(path, list) else str(path)
    wanted = {"held_out": NOTHING} | wanted
    return loader.load(names, Wanted(np.dtype(np.float32), **wanted), OneRank())


def _twin(
    tokens: np.ndarray, windows: Windows, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and their next tokens, by NumPy."""
    starts, skipped = windows.place(numbers)
    places = starts[:, None] + np.arange(windows.length)
    y = tokens[places + 1].astype(np.int32)
    y[np.arange(windows.length) < skipped[:, None]] = -1
    y[np.isin(places + 1, windows.documents)] = -1
    return tokens[places].astype(np.int32), y


def _steps(data: DataSet, shuffle, world_size: int, epochs=range(1, 2), first: int = 0):
    """(batches of every step, weights of every step), of all ranks together."""
    rows, ranks, weights = data.splits["train"], [], []
    count = shuffle.micro_batches.step_count(rows.row_count)
    for numbers in numbers_of(shuffle.micro_batches, world_size):
        reader = BatchReader(data, 64)
        reads = TrainingReads(rows, shuffle, numbers, epochs, first, reader.rows_together)
        inputs, steps, of_rank = MicroBatchReader(reads, reader), [], []
        for epoch in epochs:
            reads.begin_epoch(epoch)
            of_rank += reads.step_weights(epoch)[first if epoch == epochs.start else 0 :]
            for _ in range(first if epoch == epochs.start else 0, count):
                steps.append([_copied(inputs.next(0)) for _ in numbers])
        reads.close()
        ranks.append(steps)
        weights.append(of_rank)
    assert all(other == weights[0] for other in weights), "every rank has the same weights"
    return [sum(parts, []) for parts in zip(*ranks, strict=True)], weights[0]  # noqa: RUF017


def _copied(batch: Batch) -> Batch:
    assert list(batch.inputs) == ["tokens"]
    assert not batch.x.size or np.shares_memory(batch.inputs["tokens"], batch.x)
    for array in (batch.x, batch.y):
        assert array.dtype == np.int32 and array.flags.c_contiguous and array.ndim == 2
    return Batch(batch.x.copy(), batch.y.copy(), batch.rows.copy())


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of about 60 tokens, so that a short text has many."""
    monkeypatch.setattr(training_order, "BLOCK_BYTES", 60)
    monkeypatch.setattr(training_order, "_BLOCK_BYTES_MIN", 1)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "i8", ">u2"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", ["full", "blocks"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_way_gives_what_numpy_gives(tmp_path, dtype, way, order, world_size):
    """Rows, next tokens and the weights of steps, of every type; every row of an epoch once."""
    if (way, order) == ("streamed", "full") or (way == "mapped" and dtype in ("i8", ">u2")):
        return
    tokens = _tokens(1003, dtype)
    data = _load(_write(tmp_path / "a.h5", {"train": tokens}), way=way)
    assert data.inputs == {"tokens": Input("tokens", (8,), 50)} and data.way.name == way
    kept = dtype if dtype in ("u1", "u2", "i4") else "i4"
    assert data.splits["train"].inputs[0].dtype == np.dtype(kept)
    windows = Windows((1003,), 8, 8)
    shuffle = training_order.training_order(data, CUT, 3, order, 4 * 12 * 9 * 4)
    steps, weights = _steps(data, shuffle, world_size, range(1, 3))
    seen = []
    for step, weight in zip(steps, weights, strict=True):
        for batch in step:
            x, y = _twin(tokens, windows, batch.rows)
            np.testing.assert_array_equal(batch.x, x)
            np.testing.assert_array_equal(batch.y, y)
            seen += batch.rows.tolist()
        assert weight == sum((batch.y >= 0).sum() for batch in step)
    assert sorted(seen) == sorted([*range(windows.row_count)] * 2)
    assert sum(weights) == 2 * 1002, "every token but the first, once an epoch"


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(0, 120), min_size=1, max_size=3),
    length=st.integers(1, 9),
    stride=st.integers(0, 12),
    documents=st.integers(0, 9),
    chunk=st.integers(1, 50),
    cut=st.tuples(st.integers(1, 30), st.integers(1, 9)),
    world_size=st.integers(1, 5),
    window_bytes=st.integers(0, 3000),
    first=st.integers(0, 50),
    order=st.sampled_from(["full", "blocks"]),
)
def test_any_text(
    tmp_path_factory,
    counts,
    length,
    stride,
    documents,
    chunk,
    cut,
    world_size,
    window_bytes,
    first,
    order,
):
    """Of files of any length, with documents, packed; in memory and streamed, from any step on: as NumPy has it."""
    folder = tmp_path_factory.mktemp("any")
    paths, texts, starts = [], [], []
    for number, count in enumerate(counts):
        texts.append(_tokens(count, seed=number))
        storage = {"chunks": (min(chunk, count),), "compression": "gzip"} if count else {}
        paths.append(
            _write(folder / f"{number}.h5", {"train": texts[-1]}, context=length, **storage)
        )
        own = np.unique(np.random.default_rng(number).integers(0, max(count, 1), documents))
        own = own[own < count]
        with h5py.File(paths[-1], "a") as file:
            file["train/document_starts"] = own
        starts.append(own + sum(counts[:number]))
    windows = Windows(tuple(counts), length, stride or length, np.concatenate(starts))
    if not windows.row_count:
        with pytest.raises(DataError, match=f"more than {length} tokens to train on"):
            _load(paths, stride=stride)
        return
    tokens, micro_batches = np.concatenate(texts), MicroBatches(cut[0], -(-cut[0] // cut[1]))
    for way in ("memory", "streamed"):
        if (way, order) == ("streamed", "full"):
            continue
        data = _load(paths, stride=stride, way=way)
        shuffle = training_order.training_order(data, micro_batches, 1, order, window_bytes)
        begin = first % (micro_batches.step_count(windows.row_count) + 1)
        steps, weights = _steps(data, shuffle, world_size, range(1, 3), begin)
        for step, weight in zip(steps, weights, strict=True):
            for batch in step:
                x, y = _twin(tokens, windows, batch.rows)
                np.testing.assert_array_equal(batch.x, x)
                np.testing.assert_array_equal(batch.y, y)
            assert weight == max(1, sum((batch.y >= 0).sum() for batch in step))


@pytest.mark.parametrize("way", WAYS)
def test_a_text_in_order(tmp_path, way):
    """As evaluation reads it; loss, weight and bytes are those of all its tokens."""
    tokens = {"train": _tokens(100), "test": _tokens(47, seed=1)}
    data = _load(_write(tmp_path / "a.h5", tokens), way=way)
    rows, reader, task = data.splits["test"], BatchReader(data, 4), make_task("tokens", data)
    x, y = _twin(tokens["test"], Windows((47,), 8, 8), np.arange(6))
    sums, weight, first = task.new_sums(), 0, 0
    for read in reads_in_order(rows, 0, rows.row_count, 4):
        batch = reader.read(read)
        np.testing.assert_array_equal(batch.x, x[first : first + len(batch.y)])
        np.testing.assert_array_equal(batch.y, y[first : first + len(batch.y)])
        task.add(sums, batch, np.maximum(batch.y, 0))
        weight, first = weight + task.weight(batch), first + len(batch.y)
    assert weight == 46 and sums.tolist() == [46, 0]


@pytest.mark.parametrize("local_size", [1, 2, 3])
def test_ranks_of_a_host_fill_one_stream_together(tmp_path, monkeypatch, local_size):
    """Each its part; every token is in memory once."""
    from lepton_mpi.data import token_tables

    monkeypatch.setattr(token_tables, "BLOCK_BYTES", 50)
    paths = [
        _write(tmp_path / f"{n}.h5", {"train": _tokens(200 + n, seed=n) + 1}, 51, chunks=(30,))
        for n in range(2)
    ]
    filled = 0
    for local_rank in range(local_size):
        host = OneRank(local_rank, local_size)
        wanted = Wanted(np.dtype(np.float32), NOTHING, way="memory")
        data = loader.load([str(path) for path in paths], wanted, host)
        part = data.splits["train"].x
        assert part.shape == (401,)
        filled = filled + (part != 0).astype(int) * part.astype(int)
    exact = np.concatenate([_tokens(200 + n, seed=n).astype(int) + 1 for n in range(2)])
    np.testing.assert_array_equal(filled, exact)


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_another_length_and_stride(tmp_path, way):
    """``--context`` and ``--stride`` cut the same file in another way."""
    tokens = _tokens(100)
    path = _write(tmp_path / "a.h5", {"train": tokens})
    for context, stride in ((1, 0), (99, 0), (8, 3), (5, 20)):
        data = _load(path, context=context, stride=stride, way=way)
        windows = Windows((100,), context, stride or context)
        rows, reader = data.splits["train"], BatchReader(data, 128)
        assert data.feature_shape == (context,) and rows.row_count == windows.row_count
        (read,) = reads_in_order(rows, 0, rows.row_count, 128)
        batch = reader.read(read)
        for mine, exact in zip(
            batch, _twin(tokens, windows, np.arange(rows.row_count)), strict=False
        ):
            np.testing.assert_array_equal(mine, exact)


@pytest.mark.parametrize("context", [100, 1000])
def test_a_text_that_is_too_short_is_refused(tmp_path, context):
    path = _write(tmp_path / "a.h5", {"train": _tokens(100)})
    words = rf"a\.h5: /train/tokens: expected more than {context} tokens to train on, got 100; see"
    with pytest.raises(DataError, match=words):
        _load(path, context=context)
    data = _load(_write(path, {"train": _tokens(100), "test": _tokens(3)}))
    assert data.splits["test"].row_count == 0 and data.splits["validation"].row_count == 0


# -- splits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [0, 3, 20])
def test_held_out_is_the_end_of_the_text(tmp_path, stride):
    """In the order of the text, test last, and no token is in two splits: rows that overlap are in none."""
    path = _write(tmp_path / "a.h5", {"train": _tokens(2000)})
    data = _load(path, held_out={"validation": 0.2, "test": 0.25}, stride=stride)
    windows, last = data.splits["train"].windows, -1
    for split in ("train", "validation", "test"):
        rows = data.splits[split]
        assert rows.row_count > 10
        starts, _ = windows.place(rows.indices)
        assert starts[0] > last and (np.diff(rows.indices) == 1).all()
        # The token before the first that counts may be the last of the split before.
        last = int(starts[-1]) + windows.length - 1
    assert data.splits["test"].indices[-1] == windows.row_count - 1
    read = data.splits["test"].read_of(data.splits["test"].numbers(0, 2))
    assert BatchReader(data, 2).read(read).x.shape == (2, 8)


# -- what makes runs the same --------------------------------------------------------------------------


def test_texts_are_told_apart(tmp_path):
    """What a run goes on with: another text, another cut, other documents give other facts; another way does not."""
    tokens = _tokens(300_000)
    path = _write(tmp_path / "a.h5", {"train": tokens})
    facts = _load(path).splits["train"].facts()
    for way in WAYS:
        assert _load(path, way=way).splits["train"].facts() == facts
    packed = _write(tmp_path / "b.h5", {"train": tokens.astype("i4")}, compression="gzip")
    assert _load(packed).splits["train"].facts() == facts
    loaded = [_load(path, **wanted) for wanted in ({"context": 9}, {"stride": 5})]
    changed = tokens.copy()
    changed[1] = (changed[1] + 1) % 50
    loaded += [
        _load(_write(tmp_path / f"c{number}.h5", {"train": other}))
        for number, other in enumerate((tokens[:-1], tokens[::-1].copy(), changed))
    ]
    found = [str(other.splits["train"].facts()) for other in loaded]
    with h5py.File(path, "a") as file:
        file["train/document_starts"] = [0, 1000]
    found.append(str(_load(path).splits["train"].facts()))
    assert len({*found, str(facts)}) == len(found) + 1


def test_the_full_shuffle_is_that_of_rows(tmp_path):
    """The order of windows is the order of rows of any data of this number."""
    data = _load(_write(tmp_path / "a.h5", {"train": _tokens(1003)}))
    shuffle = training_order.training_order(data, CUT, 3, "full", 0)
    assert isinstance(shuffle, FullShuffle) and shuffle.row_count == 126


# -- the vocabulary ----------------------------------------------------------------------------------


def _with_vocabulary(path: Path, words: list[bytes]) -> Path:
    with h5py.File(path, "a") as file:
        text = b"".join(words)
        file["vocabulary/bytes"] = np.frombuffer(text, np.uint8) if text else np.zeros(0, "u1")
        file["vocabulary/ends"] = np.cumsum([len(word) for word in words]).astype("i8")
    return path


def test_tokens_stand_for_bytes(tmp_path):
    """So bits per byte can be told: the figure that compares vocabularies."""
    tokens = np.array([0, 1, 2, 3, 0, 1, 2, 3, 1], "u1")
    path = _write(tmp_path / "a.h5", {"train": tokens}, 4)
    words = [b"a", "ö".encode(), b" ", b"\xff\xfe\xfd"]
    data = _load(_with_vocabulary(path, words))
    assert data.vocabulary == tuple(words)
    assert data.outputs_text == "4 different tokens" and data.inputs_text == "rows of 8 tokens"
    task = make_task("tokens", data)
    batch = BatchReader(data, 1).read(data.splits["train"].read_of(np.array([0])))
    sums = task.new_sums()
    task.add(sums, batch, batch.y)
    assert sums.tolist() == [8, 2 + 1 + 3 + 1 + 2 + 1 + 3 + 2]
    columns = task.columns(np.eye(4, dtype=np.float32))
    assert columns["token"].tolist() == ["a", "ö", "' '", "0xfffefd"]


# -- files that are not what they should be ------------------------------------------------------------

T = np.zeros(50, "u1")
ATTRIBUTES = {"values": 50, "context": 8}
WRONG: dict[str, tuple[dict, dict, str]] = {
    "floats": ({"train/tokens": np.zeros(50)}, {}, "train/tokens: expected a data set of whole"),
    "a matrix": ({"train/tokens": np.zeros((5, 5), "u1")}, {}, "of shape (tokens,)"),
    "a group": ({"train/tokens/x": T}, {}, "expected arrays such as train/x and train/y"),
    "no values": (
        {"train/tokens": T.astype("i4")},
        {"values": None},
        "attribute values: expected how many tokens there are",
    ),
    "no context": ({}, {"context": None}, "attribute context, the tokens of a row, got none; --"),
    "context of another kind": ({}, {"context": 2.5}, "attribute context: expected a whole number"),
    "negative context": ({}, {"context": -1}, "attribute context: expected a whole number"),
    "huge context": ({}, {"context": 2**60}, "attribute context: expected a whole number"),
    "a token that there is not": ({"train/tokens": T + 50}, {}, "token 0: expected a code from 0"),
    "documents that are floats": (
        {"train/document_starts": np.array([0.5])},
        {},
        "train/document_starts: expected a data set of whole numbers of shape (documents,)",
    ),
    "documents in disorder": (
        {"train/document_starts": [3, 2]},
        {},
        "/train/document_starts: expected ascending positions of tokens, below 50, got others",
    ),
    "documents twice": ({"train/document_starts": [3, 3]}, {}, "expected ascending positions"),
    "documents before": ({"train/document_starts": [-1, 3]}, {}, "expected ascending positions"),
    "documents behind": ({"train/document_starts": [3, 50]}, {}, "expected ascending positions"),
    "rows in another split": (
        {"test/x": np.zeros((5, 8)), "test/y": np.zeros(5, int)},
        {},
        "test: expected a text in one piece in every split or in none",
    ),
    "other tokens in another split": (
        {"test/tokens": T.astype("i4")},
        {},
        "attribute values: expected how many tokens there are",
    ),
    "half a vocabulary": ({"vocabulary/ends": [1, 2]}, {}, "vocabulary/bytes: expected numbers"),
    "a short vocabulary": (
        {"vocabulary/ends": [1, 2], "vocabulary/bytes": np.zeros(2, "u1")},
        {},
        "vocabulary/ends: expected 50 ascending numbers, the last 2, got others",
    ),
    "a vocabulary in disorder": (
        {"vocabulary/ends": [*range(2, 50), 1, 50], "vocabulary/bytes": np.zeros(50, "u1")},
        {},
        "vocabulary/ends: expected 50 ascending numbers",
    ),
    "a vocabulary of texts": (
        {"vocabulary/ends": np.arange(50), "vocabulary/bytes": np.zeros(49, "f4")},
        {},
        "vocabulary/bytes: expected numbers of type u1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_texts_are_refused(tmp_path, name):
    """In one line, with the file and the data set."""
    contents, attributes, words = WRONG[name]
    whole = (
        contents
        if any("train/tokens" in key for key in contents)
        else contents | {"train/tokens": T}
    )
    path = write(tmp_path / "a.h5", whole)
    with h5py.File(path, "a") as file:
        if isinstance(file["train/tokens"], h5py.Dataset):
            for key, value in (ATTRIBUTES | attributes).items():
                if value is not None:
                    file["train/tokens"].attrs[key] = value
    with pytest.raises(DataError) as raised:
        _load(path, way="memory")
    assert words in str(raised.value) and str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("is_reference", [True, False])
def test_a_context_that_wants_something_is_refused(tmp_path, is_reference):
    """An attribute may be a reference, or promise more than anybody wants to read."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        attributes = file.create_dataset("train/tokens", data=_tokens(100)).attrs
        attributes["values"] = 50
        if is_reference:
            attributes.create("context", file.ref, dtype=h5py.ref_dtype)
        else:
            attributes["context"] = np.zeros(5_000_000)
    with pytest.raises(DataError, match="tokens: attribute context: expected"):
        _load(path)


@pytest.mark.parametrize(("wanted", "words"), [("targets", "got a text"), ("classes", None)])
def test_what_is_asked_for_must_be_there(tmp_path, wanted, words):
    """A text has next tokens, which are classes of a kind, and no targets."""
    path = _write(tmp_path / "a.h5", {"train": _tokens(100)})
    if words is None:
        assert _load(path, y_kind=wanted).y_kind == "tokens"
        return
    with pytest.raises(DataError, match=words):
        _load(path, y_kind=wanted)


def test_rows_are_no_text(tmp_path):
    x, y = np.zeros((6, 2)), np.arange(6) % 2
    path = write(tmp_path / "a.h5", {"train/x": x, "train/y": y})
    with pytest.raises(DataError, match="expected train/tokens, a text in one piece, got train/y"):
        _load(path, y_kind="tokens")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"values": 60}, "tokens with values 50"), ({"context": 9}, "context 8"), ({}, "vocabulary")],
)
def test_files_of_other_tokens_are_refused(tmp_path, change, words):
    """A token must mean the same in all files of a data set."""
    paths = [_write(tmp_path / name, {"train": _tokens(100)}, 50) for name in ("a.h5", "b.h5")]
    if not change:
        _with_vocabulary(paths[1], [b"a"] * 50)
    with h5py.File(paths[1], "a") as file:
        file["train/tokens"].attrs.update(change)
    with pytest.raises(DataError, match=rf"b\.h5: expected {words}.* as in .*a\.h5"):
        _load(paths)


def test_a_mapped_token_that_there_is_not_is_told_when_it_is_used(tmp_path):
    """Nobody has looked at it before: a model must not use it as an index all the same."""
    tokens = _tokens(100)
    tokens[77] = 200
    data = _load(_write(tmp_path / "a.h5", {"train": tokens}), way="mapped")
    rows, reader = data.splits["train"], BatchReader(data, 64)
    reader.read(rows.read_of(np.arange(0, 9)))
    with pytest.raises(
        DataError, match=r"a\.h5: tokens: expected tokens from 0 to 49 in the 9 from 72 on"
    ):
        reader.read(rows.read_of(np.arange(13)))


def test_many_mapped_tokens_open_at_once(tmp_path):
    """The time does not grow with their number: nobody reads them before they are used."""
    path, count = tmp_path / "a.h5", 3 * 10**8
    with h5py.File(path, "w") as file:
        made = file.create_dataset("train/tokens", (count,), "u2")
        made.attrs["values"], made.attrs["context"] = 50_000, 1024
        made[:1] = 3  # HDF5 gives it its place; the rest of the file has no blocks
    os.truncate(path, made_end(path, count))
    began = time.monotonic()
    data = _load(path, way="mapped")
    assert time.monotonic() - began < 5
    rows = data.splits["train"]
    assert rows.row_count == -(-(count - 1025) // 1024) + 1
    batch = BatchReader(data, 2).read(rows.read_of(np.array([0, rows.row_count - 1])))
    assert batch.x[0, 0] == 3 and batch.x[1].tolist() == [0] * 1024
    assert path.stat().st_blocks * 512 < 1 << 20


def made_end(path: Path, count: int) -> int:
    """Length of a file whose tokens were only begun."""
    with h5py.File(path) as file:
        return int(file["train/tokens"].id.get_offset()) + 2 * count
