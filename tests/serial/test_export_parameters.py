"""Exported files of parameters: bit by bit, under the names of other libraries."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.models.keras_names import KERAS_MODELS
from lepton_mpi.options.names import EXPORTS
from lepton_mpi.run import checkpoint, initial
from lepton_mpi.run.initial import InitialFile
from lepton_mpi.vectors import Layout
from tests.serial.exported import (
    CASES,
    dtypes,
    every_case,
    exported,
    loaded,
    saved,
)


def _taken(path: Path, file: Path) -> dict[str, np.ndarray]:
    """Parameters of a new run that begins with the file."""
    found = loaded(path)
    attributes, _ = checkpoint.read_attributes(path)
    name = checkpoint.configuration(attributes, path).model
    layout = Layout(found.model.shapes)
    views = layout.views(np.full(layout.size, np.nan, found.data.dtype))
    notes = initial.take(InitialFile(file, True, name), found.model, views, found.data)
    assert any(f"takes all {len(views)} parameters" in note for note in notes)
    return views


@pytest.mark.slow(but_every=12)
@every_case
@dtypes
def test_initial_reads_safetensors_back_bit_by_bit(tmp_path, case, dtype):
    path = saved(tmp_path, case, dtype)
    back = _taken(path, exported(path, tmp_path / "m.safetensors"))
    for name, array in loaded(path).parameters.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.slow(but_every=12)
@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.model in KERAS_MODELS])
@dtypes
def test_initial_reads_weights_of_keras_back_bit_by_bit(tmp_path, name, dtype):
    path = saved(tmp_path, CASES[name], dtype)
    back = _taken(path, exported(path, tmp_path / "m.weights.h5"))
    for name, array in loaded(path).parameters.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize(
    "name", ["tcn batch", "gpt", "wide_and_deep", "speech_gru", "speech_cnn none"]
)
def test_models_whose_layers_keras_has_not(tmp_path, name):
    """Nothing is written; the line says what can hold them."""
    path = saved(tmp_path, CASES[name])
    with pytest.raises(ConfigurationError, match=r"mlp, logistic, cnn, .*\.onnx, \.safetensors"):
        exported(path, tmp_path / "m.weights.h5")
    assert not list(tmp_path.glob("m*"))


@pytest.mark.parametrize(
    "name", ["mlp targets", "logistic", "resnet8 batch", "gpt", "wide_and_deep"]
)
@dtypes
def test_npz_has_everything(tmp_path, name, dtype):
    """Parameters as the checkpoint has them, the normalisation and what the numbers stand for, without a pickle."""
    path = saved(tmp_path, CASES[name], dtype)
    whole = checkpoint.load(path)
    with np.load(exported(path, tmp_path / "m.npz"), allow_pickle=False) as file:
        for name, array in whole.layout.views(whole.parameters).items():
            back = file[f"parameters/{name}"]
            assert back.dtype == array.dtype
            np.testing.assert_array_equal(back, array)
        np.testing.assert_array_equal(file["normalisation/scale"], whole.normalisation[1])
        assert str(file["about/model"]) == whole.attributes["model"]


def test_names_in_the_files(tmp_path):
    """Of torch, of Hugging Face's GPT-2 and of Keras; safetensors say for whom they are."""
    from safetensors import safe_open

    for name, key in (
        ("mlp relu", "layer0.weight"),
        ("resnet18", "layer2.0.downsample.0.weight"),
        ("gpt", "transformer.h.0.attn.c_attn.weight"),
        ("gpt llama", "block0.attention.body.qkv.weight"),
    ):
        path = saved(tmp_path, CASES[name])
        with safe_open(exported(path, tmp_path / "m.safetensors", force=True), "numpy") as file:
            assert key in file.keys()  # noqa: SIM118  no mapping
            assert file.metadata()["format"] == "pt" and "weights_digest" in file.metadata()
    path = saved(tmp_path, CASES["cnn batch"])
    with h5py.File(exported(path, tmp_path / "m.weights.h5")) as file:
        assert file["layers/conv2d_1/vars/0"].shape == (3, 3, 8, 16)
        assert file["layers/batch_normalization/vars/3"].shape == (8,)


@pytest.mark.parametrize("suffix", EXPORTS)
def test_the_same_bytes_for_the_same_checkpoint(tmp_path, suffix):
    """No times or temporary names are in a file."""
    path = saved(tmp_path, CASES["cnn batch"])
    one, other = (exported(path, tmp_path / f"{n}{suffix}").read_bytes() for n in "ab")
    assert one == other
