"""What is exported says the same as the engine: ONNX in onnxruntime, and files of parameters read back, for every model.

    python -m pytest tests/serial/test_export.py

in an environment with onnx and onnxruntime, which the extra ``test`` brings. Torch programs: ``test_export_torch.py``.
"""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.commands.export import COMMAND
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.files import parameter_writing
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.exporting import export, named_arrays
from lepton_mpi.exporting.subject import Subject
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.column_embedding import ColumnEmbedding
from lepton_mpi.layers.compose import From, Identity, Parallel, Residual, Sequential, Sum, Tied
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.embedding import Embedding
from lepton_mpi.layers.gated import SwiGlu
from lepton_mpi.layers.group_norm import GroupNorm
from lepton_mpi.layers.gru import Gru
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.layers.norm import LayerNorm, RmsNorm
from lepton_mpi.layers.pooling import AveragePool, MaxPool
from lepton_mpi.layers.windows import Window, along, square
from lepton_mpi.models.keras_names import KERAS_MODELS
from lepton_mpi.models.network import Network
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.options.names import EXPORTS, MODELS
from lepton_mpi.run import checkpoint, checkpoint_folder, initial
from lepton_mpi.run.initial import InitialFile
from lepton_mpi.vectors import Layout
from tests.serial import data_files
from tests.serial.exported import (
    CASES,
    Case,
    exported,
    fill,
    loaded,
    outputs_of,
    saved,
)
from tests.serial.thread_ranks import on_ranks

_REASON = "needs onnx and onnxruntime: pip install '.[test]'"
onnx = pytest.importorskip("onnx", reason=_REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=_REASON)
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"], ids=["f4", "f8"])
# Erf of onnxruntime is float32 in a float64 model, too.
_TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
# What outputs of several rows differ by at least: a hundred times what they may be off by.
_SAYS = 1e-3


def _session(model) -> "onnxruntime.InferenceSession":
    """Of a file, or of a model in memory."""
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])


def _outputs(session, rows) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, rows), strict=True))


def _check_close(came, expected, dtype, has_erf=False) -> None:
    """Numbers of size 1, or relative to their size."""
    tolerance = 1e-6 if has_erf and dtype == "float64" else _TOLERANCES[dtype]
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(came, expected, rtol=0, atol=tolerance * scale)


def test_every_built_in_model_is_tried():
    """A new one has its case here."""
    assert {case.model for case in CASES.values()} == set(MODELS)


# -- ONNX --------------------------------------------------------------------------------------------


@every_case
@dtypes
def test_onnxruntime_predicts_what_the_engine_predicts(tmp_path, case, dtype):
    """Of 1, 7 and 64 rows at once, by one file; every output says something."""
    path = saved(tmp_path, case, dtype)
    found = loaded(path)
    session = _session(exported(path, tmp_path / "m.onnx"))
    has_erf = "gelu" in (case.options.get("activation"), case.own.get("feed_forward"))
    for count in (1, 7, 64):
        rows = case.rows(count, dtype, seed=count)
        came, expected = _outputs(session, rows), outputs_of(found, rows)
        if case.targets:
            assert list(came) == ["prediction"] and (count == 1 or np.ptp(expected) > 0.1)
            _check_close(came["prediction"], expected, dtype, has_erf)
            continue
        assert list(came) == ["logits", "probabilities"]
        logits, probabilities = came.values()
        if case.model == "gpt":
            assert logits.shape == (count, *case.shape, found.data.output_count)
            logits, probabilities = logits[:, -1], probabilities[:, -1]
        assert probabilities.dtype == expected.dtype
        assert count == 1 or np.ptp(expected, axis=0).max() > _SAYS, "outputs that say nothing"
        _check_close(probabilities, expected, dtype, has_erf)
        # Also where a probability is near 0; what was computed from it has its rounding.
        likely = expected > 1e-3
        centred = np.log(expected, where=likely, out=np.zeros_like(expected))
        own = logits - np.log(np.exp(logits.astype("f8")).sum(axis=1, keepdims=True))
        _check_close(np.where(likely, own, 0), centred, dtype, has_erf)


@dtypes
def test_positions_of_a_gpt_are_a_dimension_of_any_size(tmp_path, dtype):
    """Rows of fewer tokens than the context: at each position what the engine predicts of the tokens up to there."""
    for name in ("gpt", "gpt llama"):
        case = CASES[name]
        path = saved(tmp_path, case, dtype)
        found = loaded(path)
        session = _session(exported(path, tmp_path / "m.onnx", force=True))
        assert session.get_inputs()[0].shape == ["batch", "length"]
        tokens = case.rows(3, dtype)["tokens"]
        whole = _outputs(session, {"tokens": tokens})["probabilities"]
        writer = found.model.step_by_step()
        out = np.empty((3, found.data.output_count), dtype)
        for position in range(case.shape[0]):
            own = np.ascontiguousarray(tokens[:, position : position + 1])
            writer.predict(found.parameters, Batch(own, np.zeros(3, np.int32)), out)
            _check_close(whole[:, position], out, dtype)
            short = _outputs(session, {"tokens": tokens[:, : position + 1]})["probabilities"]
            _check_close(short, whole[:, : position + 1], dtype)


@pytest.mark.parametrize("name", ["mlp targets", "linear", "wide_and_deep targets", "cnn batch"])
@dtypes
def test_preprocessing_is_in_the_graph(tmp_path, name, dtype):
    """Numbers as the file has them go in, float64, and targets come out in its units; codes stay codes."""
    case = CASES[name]
    path = saved(tmp_path, case, dtype)
    found = loaded(path)
    session = _session(exported(path, tmp_path / "m.onnx", preprocess=True))
    raw = case.rows(7, "float64", seed=1)
    # Years and times: float32 has no digits left for what differs.
    shift, scale = (part.reshape(case.shape) for part in found.data.normalisation)
    rows = raw | {"x": ((raw["x"] - shift).astype(dtype) * scale.astype(dtype))}
    expected = outputs_of(found, rows)
    came = _outputs(session, raw)
    if case.targets:
        unscaled = found.data.target_scale.unscaled(expected)
        assert came["prediction"].dtype == np.float64
        assert not np.allclose(unscaled, expected, atol=0.5)
        _check_close(came["prediction"], unscaled, dtype)
    else:
        _check_close(came["probabilities"], expected, dtype)
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
    session = _session(exported(path, tmp_path / "m.onnx", preprocess=True))
    raw = 1.7e9 + 60 * case.rows(7, "float64")["x"]
    rows = ((raw - moved[0]) * moved[1]).astype("f4")
    expected = outputs_of(loaded(path), {"x": rows})
    _check_close(_outputs(session, {"x": raw})["probabilities"], expected, "float32")


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
    session = _session(onnx_model.make(subject, preprocess=True))
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
    _check_close(_outputs(session, raw)["probabilities"], expected, "float32")


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


# -- networks of one's own -----------------------------------------------------------------------------


def _image_layers() -> Sequential:
    """Windows of all kinds, groups, and norms by group."""
    odd = Window((3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2))
    branches = [Conv2d(4, square(3, padding=1), 2), Identity()]
    return Sequential(
        [
            Conv2d(4, odd),
            Parallel(branches),
            GroupNorm(2, relu=True),
            MaxPool(Window((3, 2), (2, 1), ((1, 1), (1, 0)))),
            AveragePool(Window((3, 2), (1, 2), ((1, 0), (0, 1)))),
            Residual(Sequential([Dense(8, "silu"), LayerNorm()])),
            AveragePool(),
            Dense(3),
        ]
    )


def _sequence_layers() -> Sequential:
    attention = Sequential([Dense(3 * 8), Attention(2, is_causal=False)])
    first = Dense(8)
    parts = {
        "first": first,
        "conv": Conv1d(8, along(3, 2, (2, 1), 2), groups=4),
        "pool": AveragePool(along(2, padding=(1, 0))),
        "attention": Residual(attention),
        "norm": RmsNorm(1e-3),
        "gate": SwiGlu(),
        "again": Tied(Dense(8, "gelu"), {"bias": "first/bias"}),
        "back": Gru(6, "all", is_reversed=True),
        "last": Gru(5, "last", is_reversed=True),
        "out": Dense(3),
    }
    return Sequential(parts)


def _code_layers() -> Sequential:
    values = (4, 1, 6)
    shared = From("codes", Sequential([Embedding(values, 5), AveragePool()]))
    own = From("codes", ColumnEmbedding(values, (5, 5, 5)))
    joined = Parallel({"shared": shared, "x": Dense(5, "tanh")}, Sum())
    return Sequential([Parallel([joined, own]), Activation("sigmoid"), Dense(3)])


_CODES = Input("categories", (3,), (4, 1, 6))
NETWORKS = {
    "images": (_image_layers, {"x": Input("numbers", (9, 8, 2))}),
    "sequences": (_sequence_layers, {"x": Input("numbers", (11, 4))}),
    "codes": (_code_layers, {"x": Input("numbers", (2,)), "codes": _CODES}),
}


def _subject_of(network, inputs, dtype, name="own.py:network") -> tuple[Subject, np.ndarray]:
    """With rows of each input."""
    layout = Layout(network.shapes)
    views = layout.views(np.zeros(layout.size, dtype))
    fill(views)
    data = loaded_data(inputs)
    return Subject(name, network, views, data, {}, "")


def loaded_data(inputs):
    """A data set without rows, of three classes."""
    from lepton_mpi.data.dataset import DataSet
    from lepton_mpi.data.target_scale import TargetScale
    from lepton_mpi.data.ways import Way

    size = sum(spec.size for spec in inputs.values() if spec.kind == "numbers")
    return DataSet(
        *((Path("x.h5"),), inputs, ("a", "b", "c"), np.dtype("f4")),
        *((np.zeros(size), np.ones(size)), {}, "classes", TargetScale.identity(0)),
        *(Way("none", ""), np.zeros(size)),
    )


@pytest.mark.parametrize(("body", "inputs"), NETWORKS.values(), ids=NETWORKS)
@dtypes
def test_networks_of_built_in_layers(body, inputs, dtype):
    """Every layer and join of the package, with every option that changes what it computes."""
    from lepton_mpi.exporting import onnx_model

    network = Network("own", body(), inputs, CrossEntropy())
    subject = _subject_of(network, inputs, dtype)
    session = _session(onnx_model.make(subject, preprocess=False))
    generator = np.random.default_rng(0)
    for count in (1, 7):
        rows = {}
        for name, spec in inputs.items():
            if spec.kind == "numbers":
                rows[name] = generator.standard_normal((count, *spec.shape)).astype(dtype)
            else:
                rows[name] = generator.integers(0, spec.counts, (count, spec.size)).astype("i4")
        expected = np.empty((count, 3), dtype)
        batch = Batch(rows["x"], np.zeros(count, np.int32), named=rows)
        network.predict(subject.parameters, batch, expected)
        has_erf = body is _sequence_layers
        _check_close(_outputs(session, rows)["probabilities"], expected, dtype, has_erf)


class _Doubled(Dense):
    """Looks like a layer of the package, and is none."""

    def forward(self, p, at, when):
        super().forward(p, at, when)
        at.out *= 2


class _OtherHead(CrossEntropy):
    pass


def test_layers_of_a_users_own_are_refused_and_named(tmp_path):
    """Also one that inherits from a layer of the package; files of parameters alone hold them."""
    inputs = {"x": Input("numbers", (4,))}
    body = Sequential({"first": Dense(3), "twice": _Doubled(3)})
    subject = _subject_of(Network("own", body, inputs, CrossEntropy()), inputs, "f4")
    path = tmp_path / "m.onnx"
    with pytest.raises(ConfigurationError, match=r"got twice \(_Doubled\); \.npz and") as caught:
        export.write(subject, path, False)
    assert str(caught.value).isprintable() and not list(tmp_path.iterdir())
    head = _subject_of(Network("own", Dense(3), inputs, _OtherHead()), inputs, "f4")
    with pytest.raises(ConfigurationError, match="expected a head of the package, got _OtherHead"):
        export.write(head, path, False)
    export.write(subject, tmp_path / "m.npz", False)
    export.write(subject, tmp_path / "m.safetensors", False)
    with pytest.raises(ConfigurationError, match="expected one that Keras can hold, mlp, logistic"):
        export.write(subject, tmp_path / "m.weights.h5", False)


def test_a_model_of_ones_own_by_the_command(tmp_path):
    """A network in a file of the user's is exported as far as its layers are known, and its program is not run by itself."""
    own = Path(__file__).parents[1] / "own"
    case = Case("mlp", (6,))
    name = f"{own / 'rms_norm.py'}:network"
    path = saved(tmp_path, case, model_name=name)
    with pytest.raises(DataError, match="expected --model"):
        exported(path, tmp_path / "m.npz")
    exported(path, tmp_path / "m.safetensors", model=name)
    with pytest.raises(ConfigurationError, match=r"\(RmsNorm\); \.npz"):
        exported(path, tmp_path / "m.onnx", model=name)
    with pytest.raises(ConfigurationError, match="--torch: expected a built-in model, mlp, "):
        exported(
            path, tmp_path / "t.safetensors", model=f"{own / 'rms_norm.py'}:network", torch=True
        )
    assert not (tmp_path / "t.safetensors").exists()


# -- files of parameters -------------------------------------------------------------------------------


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


@every_case
@dtypes
def test_initial_reads_safetensors_back_bit_by_bit(tmp_path, case, dtype):
    path = saved(tmp_path, case, dtype)
    back = _taken(path, exported(path, tmp_path / "m.safetensors"))
    for name, array in loaded(path).parameters.items():
        np.testing.assert_array_equal(back[name], array)


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


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["c"], "expected CHECKPOINT FILE, got only 'c'"),
        (
            ["c", "m.pt"],
            "FILE: expected a name that ends in .onnx, .safetensors, .weights.h5 or .npz, got m.pt",
        ),
        (
            ["c", "m.h5"],
            "FILE: expected a name that ends in .onnx, .safetensors, .weights.h5 or .npz, got m.h5",
        ),
        (
            ["c", "m.onnx", "--torch"],
            "--torch: expected a FILE that ends in .safetensors, got m.onnx",
        ),
        (
            ["c", "m.npz", "--preprocess"],
            "--preprocess: expected a FILE that ends in .onnx, got m.npz",
        ),
    ],
)
def test_words_that_are_refused(words, line):
    """Before anything is loaded."""
    with pytest.raises(ConfigurationError) as caught:
        COMMAND.read(words)
    assert str(caught.value) == line


def test_files_that_are_there_and_folders_that_are_not(tmp_path):
    """The first one stays as it is."""
    path = saved(tmp_path, CASES["mlp relu"])
    file = tmp_path / "m.npz"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"FILE: .*m\.npz exists; --force writes over it"):
        exported(path, file)
    assert file.read_text() == "mine"
    assert exported(path, file, force=True).stat().st_size > 1000
    with pytest.raises(ConfigurationError, match="expected a file in a folder that exists"):
        exported(path, tmp_path / "none" / "m.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ConfigurationError, match="expected a file in a folder that exists"):
        exported(path, tmp_path / "folder.npz", force=True)
    with pytest.raises(DataError, match="no such checkpoint"):
        exported(tmp_path / "none.h5", tmp_path / "n.npz")
    assert {each.name for each in tmp_path.iterdir()} == {"runs", "m.npz", "folder.npz"}


def test_the_checkpoint_itself_is_not_written_over(tmp_path):
    """Whatever it is called."""
    path = saved(tmp_path, CASES["mlp relu"])
    own = path.rename(tmp_path / "own.weights.h5")
    before = own.read_bytes()
    with pytest.raises(ConfigurationError, match="expected another file than"):
        exported(own, own, force=True)
    assert own.read_bytes() == before


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    """One line, and nothing is left of the file."""
    path = saved(tmp_path, CASES["mlp relu"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parameter_writing, "replace_durably", full)
    for suffix in EXPORTS:
        with pytest.raises(LauncherError, match=r"cannot write .*: No space left on device"):
            exported(path, tmp_path / f"m{suffix}")
    assert not list(tmp_path.glob("m*"))


def test_without_the_library(tmp_path, monkeypatch):
    """The line has the pip command."""
    path = saved(tmp_path, CASES["mlp relu"])
    for name in [name for name in sys.modules if name.startswith("lepton_mpi.exporting.onnx_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("lepton_mpi.exporting.onnx_model", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(LauncherError, match=r"pip install 'onnx>=1.13'"):
        exported(path, tmp_path / "m.onnx")


def test_a_model_that_is_too_large_for_a_file_of_onnx(tmp_path, monkeypatch):
    """Protobuf ends at 2 GiB, here earlier: at less than the parameters have, and than the constants of groups in float64."""
    path = saved(tmp_path, CASES["speech_cnn batch"], "float64")
    from lepton_mpi.exporting import onnx_model

    for limit in (1000, 7000):
        monkeypatch.setattr(onnx_model, "BYTES_MAX", limit)
        with pytest.raises(ConfigurationError, match=r"at most .*\.safetensors and \.npz"):
            exported(path, tmp_path / "m.onnx")


def test_several_ranks_write_one_file(tmp_path):
    """All of them end alike, with the file or with the error."""
    path = saved(tmp_path, CASES["mlp relu"])
    from lepton_mpi.commands.export import Options, export_checkpoint

    options = Options(checkpoint=str(path.parent), file=str(tmp_path / "m.npz"))
    on_ranks(3, lambda world: export_checkpoint(options, world))
    assert (tmp_path / "m.npz").exists()
    with pytest.raises(ConfigurationError, match="exists"):
        on_ranks(3, lambda world: export_checkpoint(options, world))


def test_the_program_is_all_that_is_no_comment(tmp_path):
    """So that it can be written to a file; of a folder, too."""
    path = saved(tmp_path, CASES["mlp relu"])
    words = ["export", str(path.parent), str(tmp_path / "m.safetensors"), "--torch"]
    ended = subprocess.run(
        [sys.executable, "-m", "lepton_mpi", *words], capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    first, *_ = ended.stdout.splitlines()
    assert first.startswith("# checkpoint ") and first.endswith("the newest that is whole")
    compile(ended.stdout, "program", "exec")
    assert "load_file('m.safetensors')" in ended.stdout
    arrays = named_arrays.by_torch(export.subject_of(loaded(path), None))
    assert set(arrays) == {f"layer{n}.{kind}" for n in range(3) for kind in ("weight", "bias")}
