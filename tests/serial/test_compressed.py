"""Compressed checkpoints: what is pruned, what int8 may be off by, what a file gives back, and files that are refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_mpi.data.encodings import Encodings
from lepton_mpi.errors import DataError
from lepton_mpi.models.gpt import Gpt, Shape
from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.run import checkpoint, checkpoint_folder, compressed
from lepton_mpi.run.checkpoint import Checkpoint
from lepton_mpi.run.compressed import Compressed
from lepton_mpi.vectors import Layout
from tests.serial.made_checkpoints import small_checkpoint
from tests.serial.test_convolutional_models import image_model
from tests.serial.test_wide_and_deep import wide_model

MODELS = {
    "mlp": lambda: Mlp((5, 7, 3)),
    "logistic": lambda: Logistic(4),
    "cnn": lambda: image_model("cnn", (5, 6), own={"model": {"channels": (3, 4), "units": 5}}),
    "wide_and_deep": lambda: wide_model(crosses=("a*b",), hidden=(5,)),
    "gpt": lambda: Gpt(Shape(7, 11, 1, 8, 2)),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])


def _views(model, dtype=np.float32):
    layout = Layout(model.shapes)
    vector = np.random.default_rng(1).standard_normal(layout.size).astype(dtype)
    return layout.views(vector)


# -- pruning ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0, 1, exclude_max=True),
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    levels=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_the_smallest_become_zero(share, sizes, levels, seed):
    """Exactly the share, rounded down, of each layer or of all; none that stays is smaller than one that went; signs do not count."""
    generator = np.random.default_rng(seed)
    before = [generator.integers(-levels, levels, n) + 0.5 for n in sizes]
    for scope in ("layer", "all"):
        after = [array.copy() for array in before]
        compressed.prune(after, share, scope)
        groups = [[n] for n in range(len(sizes))] if scope == "layer" else [range(len(sizes))]
        for group in groups:
            old = np.concatenate([before[n] for n in group])
            new = np.concatenate([after[n] for n in group])
            gone = new == 0
            assert gone.sum() == int(share * old.size)
            np.testing.assert_array_equal(new[~gone], old[~gone])
            if gone.any() and not gone.all():
                assert np.abs(old[gone]).max() <= np.abs(old[~gone]).min()


def test_of_equal_weights_the_first_go():
    weights = np.array([[1.0, -1], [2, 1]])
    compressed.prune([weights], 0.5, "layer")
    np.testing.assert_array_equal(weights, [[0, 0], [2, 1]])


# -- int8 ------------------------------------------------------------------------------------------------------


@every_model
@dtypes
def test_no_weight_is_off_by_more_than_half_a_step(make, dtype):
    """Of its own channel's scale, which is the largest size by 127; zeros stay, and what is no weight is not touched."""
    model = make()
    views, before = _views(model, dtype), _views(model, dtype)
    names = compressed.weights_of(model)
    for name in names:
        before[name].flat[0] = views[name].flat[0] = 0
    axes, scales = compressed.quantise(model, {name: views[name] for name in names})
    assert set(names) == set(axes) == set(scales) and names
    for name, now in views.items():
        was = before[name]
        if name not in axes:
            np.testing.assert_array_equal(now, was)
            continue
        axis, scale = axes[name], scales[name]
        rest = tuple(a for a in range(was.ndim) if a != axis or was.ndim == 1)
        np.testing.assert_allclose(
            scale.reshape(-1), np.abs(was).max(axis=rest).reshape(-1) / 127, rtol=1e-6
        )
        wide = np.moveaxis(np.abs(now - was), axis, -1) if was.ndim > 1 else np.abs(now - was)
        assert (wide <= scale / 2 * (1 + 1e-5)).all()
        assert now.flat[0] == 0 and now.dtype == dtype


def test_channels_are_the_outputs():
    """The last dimension of a product, the first of a table of rows."""
    model = Gpt(Shape(7, 11, 1, 8, 2, tied=False))
    views = _views(model)
    axes, scales = compressed.quantise(model, {n: views[n] for n in compressed.weights_of(model)})
    assert {n for n, axis in axes.items() if axis == 0} == {
        "embedding/weight",
        "positions/weight",
        "head/weight",
    }
    assert scales["embedding/weight"].shape == (11,)
    assert scales["block0/attention/body/qkv/weight"].shape == (24,)
    assert not any("norm" in name or "bias" in name for name in axes)


def test_a_channel_of_zeros_stays_one():
    model = Mlp((3, 2))
    weight = np.array([[0.0, 1], [0, -2], [0, 0.5]])
    compressed.quantise(model, {"layer0/weight": weight})
    np.testing.assert_array_equal(weight[:, 0], 0)
    with pytest.raises(DataError, match="parameters/layer0/weight: expected finite weights"):
        compressed.quantise(model, {"layer0/weight": np.array([[np.nan, 1]])})


# -- files -----------------------------------------------------------------------------------------------------


def _saved(dtype=np.float32, share=0.5) -> Checkpoint:
    """Of a model of two layers, compressed."""
    model = Mlp((40, 30, 3))
    layout, whole = Layout(model.shapes), small_checkpoint(3, dtype, model.shapes)
    vector = whole.parameters.copy()
    weights = {n: layout.views(vector)[n] for n in compressed.weights_of(model)}
    compressed.prune([*weights.values()], share, "layer")
    how = Compressed(*compressed.quantise(model, weights), share)
    given = whole.normalisation, whole.attributes, Encodings(), how
    return Checkpoint(layout, vector, {}, *given)


@dtypes
def test_a_file_gives_back_what_was_compressed(tmp_path, dtype):
    """To the bit, with its digest; the codes are int8 in the file, which is far smaller; a second writing changes nothing."""
    saved, path = _saved(dtype), tmp_path / "small.h5"
    checkpoint.save_as(path, saved)
    found = checkpoint.load(path)
    assert found.parameters.tobytes() == saved.parameters.tobytes()
    assert found.attributes["weights_digest"] == saved.layout.digest(saved.parameters)
    assert found.attributes["version"] == 3 and found.state == {}
    assert found.compressed is not None and dict(found.compressed.axes) == {
        "layer0/weight": 1,
        "layer1/weight": 1,
    }
    with h5py.File(path) as file:
        assert file["parameters/layer0/weight"].dtype == np.int8
        codes, scale = file["parameters/layer0/weight"][()], file["scales/layer0/weight"][()]
    view = saved.layout.views(saved.parameters)["layer0/weight"]
    np.testing.assert_array_equal(codes.astype(dtype) * scale, view)
    bytes_of = checkpoint.stored_bytes(path)
    assert bytes_of["layer0/weight"] < 0.4 * view.size * view.itemsize
    again = tmp_path / "again.h5"
    checkpoint.save_as(again, found)
    assert checkpoint.load(again).parameters.tobytes() == saved.parameters.tobytes()
    assert [p.name for p in tmp_path.glob("*.tmp")] == []


def test_plain_checkpoints_are_written_as_before(tmp_path):
    """Older programs read them."""
    path = checkpoint_folder.save(tmp_path, small_checkpoint(3))
    assert checkpoint.load(path).attributes["version"] == 2
    with h5py.File(path) as file:
        assert "compression" not in file.attrs and "scales" not in file


def _set(place: str, value) -> None:
    def change(file: h5py.File) -> None:
        del file[place]
        file[place] = value

    return change


def _facts(**changes):
    def change(file: h5py.File) -> None:
        facts = json.loads(file.attrs["compression"])
        file.attrs["compression"] = json.dumps(facts | changes)

    return change


def _text(text):
    def change(file: h5py.File) -> None:
        file.attrs["compression"] = text

    return change


def _no_scales(file: h5py.File) -> None:
    del file["scales"]


_SCALES = np.full(30, 0.5, np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("scales/layer0/weight", _SCALES), "expected those of weights_digest"),
        (
            _set("scales/layer0/weight", _SCALES[:4]),
            "scales/layer0/weight: expected 30 finite floats",
        ),
        (_set("scales/layer0/weight", -_SCALES), "scales/layer0/weight: expected 30 finite floats"),
        (
            _set("scales/layer0/weight", _SCALES * np.nan),
            "scales/layer0/weight: expected 30 finite",
        ),
        (
            _set("scales/layer0/weight", np.ones(30, int)),
            "scales/layer0/weight: expected 30 finite",
        ),
        (_set("parameters/layer0/weight", np.full((40, 30), -128, np.int8)), "expected int8"),
        (_set("parameters/layer0/weight", np.zeros((40, 30), np.float32)), "expected int8"),
        (_facts(int8={"layer0/weight": 2}), "expected an axis of 2"),
        (_facts(int8={"layer0/weight": True}), "expected an axis of 2"),
        (_facts(int8={"nobody": 0}), "not a checkpoint that this version reads"),
        (_facts(int8={}), "parameters"),
        (_facts(int8=7), "not a checkpoint that this version reads"),
        (_facts(prune="much"), "not a checkpoint that this version reads"),
        (_text("[" * 100_000), "not a checkpoint that this version reads"),
        (_text("{}"), "not a checkpoint that this version reads"),
        (_no_scales, "not a checkpoint that this version reads"),
    ],
)
def test_files_that_say_something_else_are_refused(tmp_path, change, words):
    """In one line, although the digest of the whole file fits, as anybody can write it."""
    path = tmp_path / "changed.h5"
    checkpoint.save_as(path, _saved())
    with h5py.File(path, "r+") as file:
        change(file)
    with path.open("r+b") as raw:
        raw.write(checkpoint._head(path))
    with pytest.raises(DataError) as caught:
        checkpoint.load(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_damage_is_called_damage(tmp_path):
    path = tmp_path / "small.h5"
    checkpoint.save_as(path, _saved())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged, its digest does not fit"):
        checkpoint.load(Path(path))
