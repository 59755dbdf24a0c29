"""Rows of several inputs, each with a name and a kind, from file to batch."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_mpi.batch import Batch, Input
from lepton_mpi.data import augmentation
from lepton_mpi.data.batches import BatchReader, MicroBatchReader
from lepton_mpi.data.dataset import DataSet, normalised_in_memory
from lepton_mpi.data.order import MicroBatches
from lepton_mpi.data.reads import TrainingReads, reads_in_order
from lepton_mpi.data.training_order import training_order
from lepton_mpi.errors import ConfigurationError, DataError
from tests import reference
from tests.serial.data_files import OneRank, load, write
from tests.serial.test_shuffles import numbers_of

NOTHING = {"validation": 0.0, "test": 0.0}
HELD_OUT = {"validation": 0.2, "test": 0.1}
CUT = MicroBatches(20, 6)
WAYS = ["memory", "mapped", "streamed"]


def _arrays(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """What a row of each kind may hold; the first number of x tells which row it is."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((rows, 5)).astype("f4")
    x[:, 0] = np.arange(rows)
    return {
        "x": x,
        "ages": generator.standard_normal(rows).astype("f4"),
        "image": generator.integers(0, 256, (rows, 4, 3), np.uint8),
        "kinds": generator.integers(0, 3, (rows, 2)).astype("i4"),
        "words": generator.integers(0, 300, (rows, 7)).astype("u2"),
    }


VALUES = {"kinds": (3, 9), "words": 300}
KINDS = {"kinds": "categories", "words": "tokens"}


def _write(path: Path, arrays: dict[str, np.ndarray], split: str = "train", **storage) -> Path:
    rows = len(next(iter(arrays.values())))
    with h5py.File(path, "a") as file:
        for name, values in arrays.items():
            place = f"{split}/x" if name == "x" else f"{split}/inputs/{name}"
            of = {"chunks": (min(4, rows), *values.shape[1:]), **storage} if storage else {}
            made = file.create_dataset(place, data=values, **of)
            if name in VALUES:
                made.attrs["kind"], made.attrs["values"] = KINDS[name], VALUES[name]
        file[f"{split}/y"] = np.arange(rows) % 3
    return path


def _twin(arrays: dict[str, np.ndarray], numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Batches as NumPy makes them, without normalisation in the file."""
    out = {}
    for name, values in arrays.items():
        if name in VALUES:
            out[name] = values[numbers].astype(np.int32)
        else:
            scale = np.float32(1 / 255 if values.dtype == np.uint8 else 1)
            out[name] = values[numbers].astype(np.float32) * scale
    return out


def _assert_like(batch: Batch, expected: dict[str, np.ndarray]) -> None:
    assert list(batch.inputs) == list(expected)
    for name, exact in expected.items():
        got = batch.inputs[name]
        assert got.dtype == exact.dtype and got.shape == exact.shape and got.flags.c_contiguous
        np.testing.assert_array_equal(got, exact, err_msg=name)


def _steps(data: DataSet, shuffle, world_size: int) -> list[list[Batch]]:
    """Micro-batches of every step of an epoch, of all ranks, copied."""
    rows, ranks = data.splits["train"], []
    for numbers in numbers_of(shuffle.micro_batches, world_size):
        reader = BatchReader(data, 64)
        reads = TrainingReads(rows, shuffle, numbers, range(1, 2), 0, reader.rows_together)
        inputs, steps = MicroBatchReader(reads, reader), []
        for _ in range(shuffle.micro_batches.step_count(rows.row_count)):
            steps.append([_copied(inputs.next(5)) for _ in numbers])
        reads.close()
        ranks.append(steps)
    return [sum(parts, []) for parts in zip(*ranks, strict=True)]  # noqa: RUF017


def _copied(batch: Batch) -> Batch:
    named = {name: array.copy() for name, array in batch.inputs.items()}
    return Batch(batch.x.copy(), batch.y.copy(), batch.rows.copy(), batch.draw, None, named)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", ["full", "blocks"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_way_gives_what_numpy_gives(tmp_path, way, order, world_size):
    """Of every kind and type, in memory, mapped and streamed, with rows held out, on any number of ranks."""
    if (way, order) == ("streamed", "full"):
        return
    arrays = _arrays(107)
    data = load(_write(tmp_path / "a.h5", arrays), held_out=HELD_OUT, way=way)
    assert data.way.name == way and list(data.inputs) == list(arrays)
    shuffle = training_order(data, CUT, 3, order, 1000)
    seen = []
    for step in _steps(data, shuffle, world_size):
        for batch in step:
            _assert_like(batch, _twin(arrays, batch.rows))
            np.testing.assert_array_equal(batch.y, batch.rows % 3)
            assert batch.x is batch.inputs["x"] or np.array_equal(batch.x, batch.inputs["x"])
            seen += batch.rows.tolist()
    assert sorted(seen) == data.splits["train"].indices.tolist()


@settings(max_examples=25)
@given(
    rows=st.integers(1, 50),
    names=st.sets(st.sampled_from(["x", "ages", "image", "kinds", "words"]), min_size=1),
    chunked=st.booleans(),
    world_size=st.integers(1, 5),
    cut=st.tuples(st.integers(1, 30), st.integers(1, 9)),
    window_bytes=st.integers(0, 5000),
)
def test_any_inputs_of_any_rows(
    tmp_path_factory, rows, names, chunked, world_size, cut, window_bytes
):
    """Streamed, in memory and by NumPy, for any set of inputs, with x or without."""
    arrays = {name: values for name, values in _arrays(rows).items() if name in names}
    path = tmp_path_factory.mktemp("any") / "a.h5"
    _write(path, arrays, **({"compression": "gzip"} if chunked else {}))
    micro_batches = MicroBatches(cut[0], -(-cut[0] // cut[1]))
    for way in ("memory", "streamed"):
        data = load(path, held_out=NOTHING, way=way)
        assert list(data.inputs) == list(arrays)
        shuffle = training_order(data, micro_batches, 1, "blocks", window_bytes)
        steps = _steps(data, shuffle, world_size)
        for batch in (batch for step in steps for batch in step):
            _assert_like(batch, _twin(arrays, batch.rows))
        assert sorted(n for step in steps for b in step for n in b.rows) == [*range(rows)]


@pytest.mark.parametrize("way", WAYS)
def test_rows_in_order(tmp_path, way):
    """As evaluation reads them, whole and in parts, of the rows that were held out."""
    arrays = _arrays(60)
    data = load(_write(tmp_path / "a.h5", arrays), held_out=HELD_OUT, way=way)
    rows, reader = data.splits["validation"], BatchReader(data, 64)
    numbers = []
    for read in reads_in_order(rows, 0, rows.row_count, 5):
        batch = reader.read(read)
        _assert_like(batch, _twin(arrays, batch.rows))
        numbers += batch.rows.tolist()
    assert numbers == rows.indices.tolist()


@pytest.mark.parametrize("stored", ["u1", "i1", "u2", ">u2", "i4", "i8", "u8"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["categories", "tokens"])
def test_codes_of_any_whole_type(tmp_path, stored, way, kind):
    """Short ones stay short in memory; all are int32 in a batch. Mapped are those that lie as they would in memory."""
    codes = (np.arange(60).reshape(20, 3) % 100).astype(stored)
    path = write(tmp_path / "a.h5", {"train/inputs/codes": codes, "train/y": np.arange(20) % 2})
    with h5py.File(path, "a") as file:
        file["train/inputs/codes"].attrs.update({"kind": kind, "values": 100})
    if way == "mapped" and stored not in ("u1", "u2", "i4"):
        with pytest.raises(ConfigurationError, match="expected int32 as in memory, got"):
            load(path, held_out=NOTHING, way=way)
        return
    data = load(path, held_out=NOTHING, way=way)
    assert data.inputs == {"codes": Input(kind, (3,), 100)}
    kept = np.dtype(stored) if stored in ("u1", "u2", "i4") else np.dtype("i4")
    assert data.splits["train"].inputs[0].dtype == kept
    read = next(reads_in_order(data.splits["train"], 0, 20, 20))
    batch = BatchReader(data, 20).read(read)
    _assert_like(batch, {"codes": codes.astype("i4")})
    assert batch.x is batch.inputs["codes"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("stored", "code"), [("u1", 3), ("u2", 65535), ("i4", -1), ("i8", 2**32), ("u8", 2**64 - 1)]
)
def test_a_code_that_there_is_not_is_told(tmp_path, way, stored, code):
    """By file, data set and row, before a model uses it as an index; as streamed rows are read."""
    if way == "mapped" and stored in ("i8", "u8"):
        return
    codes = np.zeros((20, 2), stored)
    codes[13, 1] = code
    path = write(tmp_path / "a.h5", {"train/inputs/codes": codes, "train/y": np.arange(20) % 2})
    with h5py.File(path, "a") as file:
        file["train/inputs/codes"].attrs.update({"kind": "categories", "values": [2, 3]})
    words = rf"a\.h5: /train/inputs/codes: row 13: expected a code from 0 to 2, got {code}"
    with pytest.raises(DataError, match=words):
        data = load(path, held_out=NOTHING, way=way)
        list(reads_in_order(data.splits["train"], 0, 20, 20))


def test_numbers_have_a_normalisation_each(tmp_path):
    """By name; x keeps its place; the vectors of the data set are those of all inputs, x first."""
    arrays = {name: values for name, values in _arrays(20).items() if name != "words"}
    path = _write(tmp_path / "a.h5", arrays)
    with h5py.File(path, "a") as file:
        file["normalisation/shift"], file["normalisation/scale"] = np.arange(5.0), 2.0
        file["normalisation/inputs/ages/shift"] = 0.25
        file["normalisation/inputs/image/scale"] = np.full((4, 3), 0.5)
    data = load(path, held_out=NOTHING)
    shift, scale = data.normalisation
    assert shift.tolist() == [0, 1, 2, 3, 4, 0.25, *[0] * 12] and shift.dtype == np.float64
    assert scale.tolist() == [*[2] * 5, 1, *[0.5] * 12]
    read = data.splits["train"].read_of(np.arange(20))
    batch = BatchReader(data, 20).read(read)
    f4 = np.float32
    np.testing.assert_array_equal(batch.inputs["x"], (arrays["x"] - np.arange(5, dtype=f4)) * f4(2))
    np.testing.assert_array_equal(batch.inputs["ages"], arrays["ages"] - f4(0.25))
    np.testing.assert_array_equal(batch.inputs["image"], arrays["image"] * f4(0.5))
    np.testing.assert_array_equal(batch.inputs["kinds"], arrays["kinds"])
    assert normalised_in_memory(data, OneRank()) is data
    assert not BatchReader(data, 20, in_place=True).is_in_place


def test_x_alone_has_no_mapping(tmp_path):
    """Which would cost as much as gathering a short row; ``inputs`` makes one for whoever asks."""
    data = load(_write(tmp_path / "a.h5", {"x": _arrays(20)["x"]}), held_out=NOTHING)
    batch = BatchReader(data, 20).read(data.splits["train"].read_of(np.arange(20)))
    assert batch.named is None and batch.inputs["x"] is batch.x
    assert data.inputs == {"x": Input("numbers", (5,))} and data.feature_shape == (5,)
    assert data.inputs_text == "rows of shape 5"


def test_a_part_of_a_batch_is_no_copy():
    batch = Batch(np.zeros((4, 2)), np.arange(4), np.arange(4), 7, None, {"a": np.arange(4)})
    part = batch.part(1, 3)
    assert part.inputs["a"].tolist() == [1, 2] and part.rows.tolist() == [1, 2] and part.draw == 7
    assert np.shares_memory(part.x, batch.x) and part.x.shape == (2, 2)
    assert Batch(np.zeros((4, 2)), np.arange(4)).part(0, 2).inputs["x"].shape == (2, 2)


def test_what_people_are_told(tmp_path):
    data = load(_write(tmp_path / "a.h5", _arrays(20)), held_out=NOTHING)
    assert data.inputs_text == (
        "rows of x (5 numbers) and ages (1 numbers) and image (4x3 numbers) and kinds (2 categories) and words (7 tokens)"
    )


# -- augmentation ------------------------------------------------------------------------------------


def test_augmentation_changes_the_first_input_of_numbers_alone(tmp_path):
    """An image beside codes is mirrored, and codes and other numbers stay."""
    arrays = {name: values for name, values in _arrays(40).items() if name != "x"}
    arrays = {"image": arrays["image"], "kinds": arrays["kinds"], "size": arrays["ages"]}
    data = load(_write(tmp_path / "a.h5", arrays), held_out=NOTHING)
    assert data.augmented_shape == (4, 3)
    changes = augmentation.parse(["flip"], data.augmented_shape)
    reader = BatchReader(data, 40, changes)
    batch = reader.read_for_training(data.splits["train"].read_of(np.arange(40)), 99)
    expected = _twin(arrays, np.arange(40))
    mirrored = expected["image"][:, :, ::-1]
    is_mirrored = (batch.inputs["image"] == mirrored).all(axis=(1, 2))
    is_same = (batch.inputs["image"] == expected["image"]).all(axis=(1, 2))
    assert (is_mirrored | is_same).all() and 5 < is_mirrored.sum() < 35
    for name in ("kinds", "size"):
        np.testing.assert_array_equal(batch.inputs[name], expected[name])
    _assert_like(reader.read(data.splits["train"].read_of(np.arange(40))), expected)


def test_codes_alone_cannot_be_augmented(tmp_path):
    data = load(_write(tmp_path / "a.h5", {"words": _arrays(20)["words"]}), held_out=NOTHING)
    with pytest.raises(ConfigurationError, match="--augment: expected rows with numbers"):
        augmentation.parse(["noise=1"], data.augmented_shape)
    assert augmentation.parse([], data.augmented_shape) is None


# -- files that are not what they should be ------------------------------------------------------------


def _contents(**changes: object) -> dict[str, object]:
    codes, y = np.zeros((6, 2), "u1"), np.arange(6) % 2
    contents = {"train/inputs/codes": codes, "train/y": y, "test/inputs/codes": codes, "test/y": y}
    return {name: values for name, values in (contents | changes).items() if values is not None}


GOOD = {"kind": "categories", "values": [2, 3]}
WRONG = {
    "another kind": (_contents(), {"kind": "colours"}, "attribute kind: expected numbers, tokens"),
    "a kind that is no text": (_contents(), {"kind": 3}, "attribute kind: expected numbers"),
    "no values": (_contents(), {"values": None}, "attribute values: expected how many categories"),
    "no values of tokens": (
        _contents(**{"train/inputs/codes": np.zeros((6, 2), "i4")}),
        {"kind": "tokens", "values": None},
        "attribute values: expected how many tokens there are, a whole number from 1 up, got None",
    ),
    "values of single tokens": (_contents(), {"kind": "tokens"}, "attribute values: expected how"),
    "values of 0": (_contents(), {"values": 0}, "attribute values: expected how many categories"),
    "too many values": (_contents(), {"values": [1, 2, 3]}, "a whole number from 1 up, or 2 such"),
    "values that are floats": (_contents(), {"values": 2.0}, "attribute values: expected how many"),
    "values that are texts": (_contents(), {"values": "2"}, "attribute values: expected how many"),
    "huge values": (_contents(), {"values": 2**40}, "attribute values: expected how many"),
    "empty values": (_contents(), {"values": h5py.Empty("f8")}, "attribute values: expected how"),
    "codes that are floats": (
        _contents(**{"train/inputs/codes": np.zeros((6, 2))}),
        {},
        "train/inputs/codes: expected whole numbers, the codes of categories, got float64",
    ),
    "rows that lack": (
        _contents(**{"train/y": np.arange(5) % 2}),
        {},
        "/train/y: expected 6 rows as in /train/inputs/codes, got 5",
    ),
    "an input that lacks rows": (
        _contents(**{"train/inputs/z": np.zeros((7, 2))}),
        {},
        "/train/inputs/z: expected 6 rows as in /train/inputs/codes, got 7",
    ),
    "no y": (_contents(**{"train/y": None}), {}, "train/y: expected a data set beside"),
    "an input of one split only": (
        _contents(**{"train/inputs/z": np.zeros((6, 2))}),
        {},
        "test: expected inputs codes, z as in train, got codes",
    ),
    "x beside and within": (
        _contents(**{"train/x": np.zeros((6, 2)), "train/inputs/x": np.zeros((6, 2))}),
        {},
        "train/inputs: expected a group of inputs, one at least, and x beside it, not in it",
    ),
    "groups within": (
        _contents(**{"train/inputs/deeper/z": np.zeros((6, 2))}),
        {},
        "train/inputs/deeper: expected a data set beside",
    ),
    "another shape": (
        _contents(**{"test/inputs/codes": np.zeros((6, 3), "u1")}),
        {},
        "/test/inputs/codes: expected rows of shape (2,) as in /train/inputs/codes, got (3,)",
    ),
    "texts": (_contents(**{"train/inputs/z": [b"a"] * 6}), {}, "expected numbers"),
    "normalisation of another shape": (
        _contents(
            **{"train/inputs/z": np.zeros((6, 2)), "test/inputs/z": np.zeros((6, 2))},
            **{"normalisation/inputs/z/shift": np.zeros(3)},
        ),
        {},
        "normalisation/inputs/z/shift: expected finite numbers of shape (2,)",
    ),
    "normalisation that is a group": (
        _contents(
            **{"train/inputs/z": np.zeros((6, 2)), "test/inputs/z": np.zeros((6, 2))},
            **{"normalisation/inputs/z": np.zeros(3)},
        ),
        {},
        "normalisation/inputs/z/shift: expected a data set of numbers",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_of_wrong_inputs_are_refused(tmp_path, name):
    """In one line, with the file and the data set."""
    contents, attributes, words = WRONG[name]
    path = write(tmp_path / "a.h5", contents)
    with h5py.File(path, "a") as file:
        for split in ("train", "test"):
            of_split = GOOD | (attributes if split == "train" else {})
            for key, value in of_split.items():
                if value is not None:
                    file[f"{split}/inputs/codes"].attrs[key] = value
    with pytest.raises(DataError) as raised:
        load(path)
    assert words in str(raised.value) and str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("attributes", [{"values": [2, 4]}, {"kind": "tokens", "values": 3}])
def test_splits_have_codes_of_one_kind(tmp_path, attributes):
    path = write(tmp_path / "a.h5", _contents())
    with h5py.File(path, "a") as file:
        file["train/inputs/codes"].attrs.update(GOOD)
        file["test/inputs/codes"].attrs.update(GOOD | attributes)
    with pytest.raises(DataError, match="/test/inputs/codes: expected categories with values"):
        load(path)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"kind": "categories", "values": [2, 4]}, "expected codes with values"),
        ({"kind": "tokens", "values": 3}, "expected codes with kind categories"),
    ],
)
def test_files_have_codes_of_one_kind(tmp_path, other, words):
    """Several files are one data set only if a code means the same in all of them."""
    paths = [write(tmp_path / name, _contents()) for name in ("a.h5", "b.h5")]
    for path, attributes in zip(paths, (GOOD, other), strict=True):
        with h5py.File(path, "a") as file:
            for split in ("train", "test"):
                file[f"{split}/inputs/codes"].attrs.update(attributes)
    with pytest.raises(DataError, match=words):
        load(paths)


def test_other_data_sets_of_these_names_are_left_alone(tmp_path):
    """A file of another program that has x and y opens as it did, whatever it calls the rest."""
    x, y = np.zeros((6, 2)), np.arange(6) % 2
    contents = {"train/x": x, "train/y": y, "train/inputs": x, "train/tokens": y}
    data = load(write(tmp_path / "a.h5", contents), held_out=NOTHING)
    assert list(data.inputs) == ["x"]


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("source", ["u1", "u2", "i4"])
def test_the_kernel_that_gathers_codes_matches_its_twin(source, rows):
    from lepton_mpi.data import kernels

    table = np.random.default_rng(0).integers(0, 200, (9, 3)).astype(source)
    indices = np.random.default_rng(1).integers(0, 9, rows)
    mine, exact = np.full((6, 3), -1, np.int32), np.full((6, 3), -1, np.int32)
    kernels.gather_codes(table, indices, mine)
    reference.gather_codes(table, indices, exact)
    np.testing.assert_array_equal(mine, exact)
