"""What is exported says the same as the engine: ONNX in onnxruntime, and files of parameters read back, for every model.

    python -m pytest tests/serial/test_export.py tests/serial/test_export_networks.py

in an environment with onnx and onnxruntime, which the extra ``test`` brings. Torch programs: ``test_export_torch.py``.
"""

import json

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.exporting.subject import Subject
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.options.names import MODELS
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.vectors import Layout
from tests.serial import data_files
from tests.serial.exported import (
    CASES,
    dtypes,
    every_case,
    exported,
    fill,
    loaded,
    outputs_of,
    saved,
)
from tests.serial.onnx_runs import check_close, onnx, outputs_by, session_of

# What outputs of several rows differ by at least: a hundred times what they may be off by.
_SAYS = 1e-3


def test_every_built_in_model_is_tried():
    """A new one has its case here."""
    assert {case.model for case in CASES.values()} == set(MODELS)


# -- ONNX --------------------------------------------------------------------------------------------


@pytest.mark.slow(but_every=10)
@every_case
@dtypes
def test_onnxruntime_predicts_what_the_engine_predicts(tmp_path, case, dtype):
    """Of 1, 7 and 64 rows at once, by one file; every output says something."""
    path = saved(tmp_path, case, dtype)
    found = loaded(path)
    session = session_of(exported(path, tmp_path / "m.onnx"))
    has_erf = "gelu" in (case.options.get("activation"), case.own.get("feed_forward"))
    for count in (1, 7, 64):
        rows = case.rows(count, dtype, seed=count)
        came, expected = outputs_by(session, rows), outputs_of(found, rows)
        if case.targets:
            assert list(came) == ["prediction"] and (count == 1 or np.ptp(expected) > 0.1)
            check_close(came["prediction"], expected, dtype, has_erf)
            continue
        assert list(came) == ["logits", "probabilities"]
        logits, probabilities = came.values()
        if case.model == "gpt":
            assert logits.shape == (count, *case.shape, found.data.output_count)
            logits, probabilities = logits[:, -1], probabilities[:, -1]
        assert probabilities.dtype == expected.dtype
        assert count == 1 or np.ptp(expected, axis=0).max() > _SAYS, "outputs that say nothing"
        check_close(probabilities, expected, dtype, has_erf)
        # Also where a probability is near 0; what was computed from it has its rounding.
        likely = expected > 1e-3
        centred = np.log(expected, where=likely, out=np.zeros_like(expected))
        own = logits - np.log(np.exp(logits.astype("f8")).sum(axis=1, keepdims=True))
        check_close(np.where(likely, own, 0), centred, dtype, has_erf)


@dtypes
def test_positions_of_a_gpt_are_a_dimension_of_any_size(tmp_path, dtype):
    """Rows of fewer tokens than the context: at each position what the engine predicts of the tokens up to there."""
    for name in ("gpt", "gpt llama"):
        case = CASES[name]
        path = saved(tmp_path, case, dtype)
        found = loaded(path)
        session = session_of(exported(path, tmp_path / "m.onnx", force=True))
        assert session.get_inputs()[0].shape == ["batch", "length"]
        tokens = case.rows(3, dtype)["tokens"]
        whole = outputs_by(session, {"tokens": tokens})["probabilities"]
        writer = found.model.step_by_step()
        out = np.empty((3, found.data.output_count), dtype)
        for position in range(case.shape[0]):
            own = np.ascontiguousarray(tokens[:, position : position + 1])
            writer.predict(found.parameters, Batch(own, np.zeros(3, np.int32)), out)
            check_close(whole[:, position], out, dtype)
            short = outputs_by(session, {"tokens": tokens[:, : position + 1]})["probabilities"]
            check_close(short, whole[:, : position + 1], dtype)


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("name", ["mlp targets", "linear", "wide_and_deep targets", "cnn batch"])
@dtypes
def test_preprocessing_is_in_the_graph(tmp_path, name, dtype):
    """Numbers as the file has them go in, float64, and targets come out in its units; codes stay codes."""
    case = CASES[name]
    path = saved(tmp_path, case, dtype)
    found = loaded(path)
    session = session_of(exported(path, tmp_path / "m.onnx", preprocess=True))
    raw = case.rows(7, "float64", seed=1)
    # Years and times: float32 has no digits left for what differs.
    shift, scale = (part.reshape(case.shape) for part in found.data.normalisation)
    rows = raw | {"x": ((raw["x"] - shift).astype(dtype) * scale.astype(dtype))}
    expected = outputs_of(found, rows)
    came = outputs_by(session, raw)
    if case.targets:
        unscaled = found.data.target_scale.unscaled(expected)
        assert came["prediction"].dtype == np.float64
        assert not np.allclose(unscaled, expected, atol=0.5)
        check_close(came["prediction"], unscaled, dtype)
    else:
        check_close(came["probabilities"], expected, dtype)
    kinds = {each.name: each.type for each in session.get_inputs()}
    assert kinds.pop("x") == "tensor(double)" and set(kinds.values()) <= {"tensor(int32)"}


def test_no_digit_of_a_time_is_lost(tmp_path):
    """Seconds since 1970 with a deviation of a minute, of which float32 has none: the mean goes in float64."""
    case = CASES["mlp relu"]
    path = saved(tmp_path, case)
    whole = checkpoint.load(path)
    moved = whole.normalisation[0] + 1.7e9, whole.normalisation[1] / 60
    path = checkpoint_folder.save(
        tmp_path / "times", checkpoint.dataclasses.replace(whole, normalisation=moved)
    )
    session = session_of(exported(path, tmp_path / "m.onnx", preprocess=True))
    raw = 1.7e9 + 60 * case.rows(7, "float64")["x"]
    rows = ((raw - moved[0]) * moved[1]).astype("f4")
    expected = outputs_of(loaded(path), {"x": rows})
    check_close(outputs_by(session, {"x": raw})["probabilities"], expected, "float32")


@pytest.mark.parametrize(
    ("name", "model", "own"),
    [
        ("digits", "mlp", {}),
        ("digits", "resnet8", {"width": 4}),
        ("breast_cancer", "logistic", {}),
        ("loans", "wide_and_deep", {"crosses": ("make*zone", "make*employer")}),
        ("words", "speech_cnn", {"width": 8}),
        ("words", "speech_gru", {"width": 8}),
    ],
)
def test_real_rows(name, model, own):
    """Of the embedded data sets, as they lie in the file, against what the engine makes of them."""
    from lepton_mpi.exporting import onnx_model

    data = data_files.load(name)
    config = Config(model=model, own={"model": own})
    made = make_model(model, config.for_model(threads=1), data)
    layout = Layout(made.shapes)
    views = layout.views(np.zeros(layout.size, "f4"))
    fill(views)
    subject = Subject(model, made, views, data, config.for_model(threads=1), "")
    session = session_of(onnx_model.make(subject, preprocess=True))
    rows = data.splits["test"]
    reader = BatchReader(data, 40)
    (read,) = reads_in_order(rows, 0, 40, 40)
    batch = reader.read(read)
    expected = np.empty((40, data.output_count), "f4")
    made.predict(views, batch, expected)
    shift, scale = data.normalisation
    raw, start = {}, 0
    for key, spec in data.inputs.items():
        given = batch.inputs[key]
        if spec.kind == "numbers":
            part = slice(start, start := start + spec.size)
            shape = (-1, *spec.shape)
            given = (given.reshape(40, -1) / scale[part] + shift[part]).reshape(shape)
            stored = read.x[read.places] if key == "x" else given
            np.testing.assert_allclose(given, stored.reshape(shape), rtol=1e-4, atol=1e-2)
            given = stored.reshape(shape).astype("f8")
        raw[key] = given
    check_close(outputs_by(session, raw)["probabilities"], expected, "float32")


def test_metadata_say_what_the_numbers_stand_for(tmp_path):
    """Names of classes and columns, and which program wrote it."""
    path = saved(tmp_path, CASES["wide_and_deep"])
    model = onnx.load(exported(path, tmp_path / "m.onnx"))
    facts = {each.key: each.value for each in model.metadata_props}
    assert json.loads(facts["class_names"]) == [f"class {number}" for number in range(5)]
    assert json.loads(facts["feature_names"]) == ["column 0", "column 1"]
    assert json.loads(facts["category_columns"]) == ["a", "b", "c"]
    assert json.loads(facts["categories"]) == {"a": list("wxyz")}
    shift = checkpoint.load(path).normalisation[0]
    assert json.loads(facts["normalisation"])["shift"] == shift.tolist()
    assert facts["preprocessing"] == "by the caller" and facts["weights_digest"]
    assert (model.producer_name, model.opset_import[0].version) == ("lepton_mpi", 18)
    path = saved(tmp_path, CASES["mlp targets"])
    model = onnx.load(exported(path, tmp_path / "t.onnx", preprocess=True))
    facts = {each.key: each.value for each in model.metadata_props}
    assert json.loads(facts["target_names"]) == ["target 0", "target 1", "target 2"]
    assert json.loads(facts["target_scale"])["log"] == [False, True, False]
    assert facts["preprocessing"] == "in the graph"
