"""Weights that Keras 3 wrote: a model that begins with them gives Keras's outputs; other files are refused."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError, LeptonError
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.run import initial
from lepton_mpi.run.initial import InitialFile
from lepton_mpi.vectors import Layout
from tests.serial import keras_pretrained as kerases
from tests.serial.thread_ranks import on_ranks

_OWN = {"cnn": {"channels": (3, 4), "units": 8}, "resnet8": {"width": 4}}


def _made(case: str, classes: int = kerases.CLASSES, **own):
    name = case.split(",")[0]
    shape, outputs = kerases.ROW_SHAPES[case], 2 if name == "logistic" else classes
    facts = SimpleNamespace(
        inputs={"x": Input("numbers", shape)},
        feature_shape=shape,
        class_count=outputs,
        output_count=outputs,
        outputs_text="outputs",
    )
    config = Config(model=name, hidden=(8,), own={"model": _OWN.get(name, {}) | own})
    return make_model(name, config.for_model(threads=1), facts)


def _begun(model, path, is_strict=True):
    layout = Layout(model.shapes)
    views = layout.views(np.zeros(layout.size, "f4"))
    model.initialise(views, 0)
    file = InitialFile(path, is_strict, model.name)
    return views, initial.take(file, model, views, SimpleNamespace())


@pytest.mark.parametrize("case", kerases.ROW_SHAPES)
def test_outputs_are_those_of_keras(tmp_path, case):
    """Whichever of a block's two branches the program named first."""
    path, logits = kerases.stored(case, tmp_path)
    probe.check(path)
    model = _made(case)
    views, notes = _begun(model, path)
    assert any(f"takes all {len(model.shapes)} parameters" in note for note in notes)
    assert ("epsilon of 1e-3" in notes[0]) == ("norm" in "".join(model.shapes))
    if case == "logistic":
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    found = np.empty(logits.shape, "f4")
    model.predict(views, Batch(kerases.rows(case), np.zeros(kerases.ROWS, np.int32)), found)
    centred = [a - a.mean(axis=1, keepdims=True) for a in (np.log(found.astype("f8")), logits)]
    assert np.ptp(centred[1]) > 0.5, "outputs that say nothing"
    np.testing.assert_allclose(*centred, rtol=0, atol=1e-5)


def test_another_head(tmp_path):
    """All but the last dense layer is taken."""
    path, _ = kerases.stored("cnn", tmp_path)
    model = _made("cnn", classes=7)
    with pytest.raises(
        ConfigurationError, match=r"layers/dense_1/vars/0: expected \(8, 7\), got \(8, 5\)"
    ):
        _begun(model, path)
    _, notes = _begun(model, path, is_strict=False)
    assert "begins as without a file: classes/*" in notes[-1]


def test_more_layers_and_less(tmp_path):
    """Are named as the file names them."""
    path, _ = kerases.stored("mlp", tmp_path)
    with h5py.File(path, "r+") as file:
        file["layers/dense_2/vars/0"] = np.ones((5, 5), "f4")
    with pytest.raises(ConfigurationError, match="left over in the file: layers/dense_2/vars/0"):
        _begun(_made("mlp"), path)
    with h5py.File(path, "r+") as file:
        del file["layers/dense_2"], file["layers/dense_1"]
    with pytest.raises(ConfigurationError, match=r"missing: layer1/\*"):
        _begun(_made("mlp"), path)


def test_models_whose_layers_keras_has_not(tmp_path):
    path, _ = kerases.stored("mlp", tmp_path)
    for name in ("tcn", ""):
        file = InitialFile(path, True, name)
        with pytest.raises(
            ConfigurationError, match=f"for weights of Keras, got {name or 'your own'}"
        ):
            initial.take(file, SimpleNamespace(shapes={"w": (2,)}), {}, SimpleNamespace())


def _found(path):
    (file,) = on_ranks(1, lambda world: initial.find(Config(initial=str(path)), world))
    return file.path


def test_files_that_lead_out_of_themselves(tmp_path):
    """Are looked at like any HDF5 file from elsewhere, before a rank opens them."""
    path, _ = kerases.stored("mlp", tmp_path)
    assert _found(path) == path
    with h5py.File(path, "r+") as file:
        file["layers/dense/more"] = h5py.ExternalLink("/etc/passwd", "x")
    with pytest.raises(DataError, match="got a link to another file"):
        _found(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"model\.weights\.h5: not a readable HDF5 file"):
        _found(path)


def test_other_files_of_keras(tmp_path):
    """A whole model, and HDF5 that is no Sequential or Functional model of Keras 3."""
    path = tmp_path / "model.keras"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"got a whole model of Keras; .*save_weights"):
        _found(path)
    path = tmp_path / "own.weights.h5"
    with h5py.File(path, "w") as file:
        file["stem/vars/0"] = np.ones(3, "f4")
    with pytest.raises(DataError, match="expected weights of a Sequential or Functional model"):
        _begun(_made("mlp"), path)


def test_damaged_bytes(tmp_path, monkeypatch):
    """A line that names the file, or finite numbers: whatever HDF5 makes of it, it does so in another process first."""
    path, _ = kerases.stored("mlp", tmp_path)
    good, refused = path.read_bytes(), 0
    with probe.Probe() as kept:
        monkeypatch.setattr(probe, "check", kept.check)
        for seed in range(120):
            generator = np.random.default_rng(seed)
            content = bytearray(good)
            for _ in range(1 + seed % 4):
                content[generator.integers(len(content))] = generator.integers(256)
            path.write_bytes(content[: len(content) - 7 * (seed % 5 == 0)])
            try:
                views, _ = _begun(_made("mlp"), _found(path))
                assert all(np.isfinite(view).all() for view in views.values())
            except LeptonError as error:
                refused += 1
                assert str(path) in str(error) and str(error).isprintable()
    assert 20 < refused < 120
