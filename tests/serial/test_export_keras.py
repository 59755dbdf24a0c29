"""Weights that ``export`` writes, loaded by Keras 3 into a model of the same layers, give the engine's outputs.

    KERAS_BACKEND=torch python -m pytest tests/serial/test_export_keras.py

in an environment with keras, torch and this package. Without keras it is skipped; ``test_export.py`` reads the files back without it.
"""

import os

import numpy as np
import pytest

from tests.serial import keras_pretrained as kerases
from tests.serial.exported import Case, exported, loaded, outputs_of, saved

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="needs keras, whose outputs are compared")
_OWN = {"cnn": {"channels": (3, 4), "units": 8}, "resnet8": {"width": 4}}
# The order in which a block's branches are written.
_CASES = [name for name in kerases.ROW_SHAPES if "shortcut first" not in name]


@pytest.mark.parametrize("name", _CASES)
def test_keras_gives_the_same_outputs(tmp_path, name):
    """By ``load_weights`` of a model that Keras made."""
    kind = name.split(",")[0]
    classes = 2 if kind == "logistic" else kerases.CLASSES
    options = {"hidden": (8,)} if kind == "mlp" else {}
    case = Case(kind, kerases.ROW_SHAPES[name], _OWN.get(kind, {}), options, classes)
    path = saved(tmp_path, case)
    file = exported(path, tmp_path / "m.weights.h5")
    model = kerases.keras_model(name)
    model.load_weights(file)
    rows = kerases.rows(name)
    logits = np.asarray(model.predict(rows, verbose=0), "f8")
    if kind == "logistic":
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = outputs_of(loaded(path), {"x": rows})
    np.testing.assert_allclose(
        powers / powers.sum(axis=1, keepdims=True), expected, rtol=0, atol=1e-5
    )
    assert np.ptp(expected, axis=0).max() > 0.01, "outputs that say nothing"
