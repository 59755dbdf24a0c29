"""Parameters of other programs: a model that begins with those of torch gives torch's outputs, and what a file lacks is named."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from lepton_mpi.batch import Batch, Input
from lepton_mpi.data.files import parameter_files
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError, LeptonError
from lepton_mpi.models.registry import make_model
from lepton_mpi.models.torch_names import torch_names
from lepton_mpi.options.config import Config
from lepton_mpi.run import initial
from lepton_mpi.run.initial import InitialFile
from lepton_mpi.vectors import Layout
from tests.serial import torch_pretrained as torchs
from tests.serial.thread_ranks import on_ranks

_OWN = {
    "cnn": {"channels": (16, 32)},
    "tcn": {"levels": 2},
    "speech_cnn": {"blocks": 1},
    "speech_gru": {"bidirectional": True},
    "wide_and_deep": {},
    "gpt": {"layers": 2, "width": 48, "heads": 4},
}
CASES = [*torchs.ROW_SHAPES, "wide_and_deep"]


def made(case: str, classes: int = torchs.CLASSES, length: int = 17, **own):
    """A model as ``torch_pretrained.module`` makes one there."""
    shape = torchs.ROW_SHAPES.get(case, (2,))
    inputs = {"x": Input("numbers", shape)}
    if case == "gpt":
        shape, classes = (length,), torchs.GPT["vocab_size"]
        inputs = {"x": Input("tokens", shape, classes)}
    if case == "wide_and_deep":
        inputs["categories"] = Input("categories", (len(torchs.VALUES),), torchs.VALUES)
    facts = SimpleNamespace(
        inputs=inputs,
        feature_shape=shape,
        class_count=None if case == "gpt" else 2 if case == "logistic" else classes,
        output_count=2 if case == "logistic" else classes,
        outputs_text="outputs",
        category_names=(),
    )
    config = Config(model=case, hidden=(8,), own={"model": _OWN.get(case, {}) | own})
    return make_model(case, config.for_model(threads=1), facts)


def begun(model, path, is_strict=True, dtype="float32"):
    """Its parameters after ``--initial``, and what is said."""
    layout = Layout(model.shapes)
    views = layout.views(np.zeros(layout.size, dtype))
    model.initialise(views, 0)
    file = InitialFile(path, is_strict, model.name)
    return views, initial.take(file, model, views, SimpleNamespace())


def centred_logits(model, views, case: str, length: int = 17) -> np.ndarray:
    """What ``predict`` says, as logits without their mean, on which softmax does not depend."""
    dtype = next(iter(views.values())).dtype
    given = {
        name: array.astype(dtype) if array.dtype.kind == "f" else array
        for name, array in torchs.inputs(case).items()
    }
    if case == "gpt":
        given["x"] = np.ascontiguousarray(given["x"][:, :length])
    outputs = (
        2 if case == "logistic" else torchs.GPT["vocab_size"] if case == "gpt" else torchs.CLASSES
    )
    found = np.empty((torchs.ROWS, outputs), dtype)
    batch = Batch(given["x"], np.zeros(torchs.ROWS, np.int32), named=given)
    model.predict(views, batch, found)
    return _centred(np.log(found.astype("f8")))


def _centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(axis=-1, keepdims=True)


def _expected(case: str, logits: np.ndarray) -> np.ndarray:
    """Of torch. A logistic regression has one logit, whose rival is 0."""
    if case == "logistic":
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    return _centred(logits)


def written(folder, case: str, **changed):
    """A file as torch writes it, with other arrays for some names, None for none."""
    shapes, _ = torchs.stored(case)
    arrays = torchs.parameters(shapes) | changed
    path = folder / f"{case}.safetensors"
    save_file({name: array for name, array in arrays.items() if array is not None}, path)
    return path


# -- outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-11)])
@pytest.mark.parametrize("case", [case for case in CASES if case != "gpt"])
def test_outputs_are_those_of_torch(tmp_path, case, dtype, tolerance):
    """By torch's names and layouts: of torchvision, of networks for CIFAR, and of torch's own modules."""
    _, logits = torchs.stored(case)
    model = made(case)
    views, notes = begun(model, written(tmp_path, case), dtype=dtype)
    assert f"takes all {len(model.shapes)} parameters" in notes[0] and len(notes) == 1
    found, expected = centred_logits(model, views, case), _expected(case, logits)
    assert np.ptp(expected) > 0.5, "outputs that say nothing"
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-11)])
def test_outputs_are_those_of_hugging_face(tmp_path, dtype, tolerance):
    """A GPT-2's, at every position: of rows that end there, whose context is shorter than the file's."""
    _, logits = torchs.stored("gpt")
    path = written(tmp_path, "gpt")
    for length in (1, 2, 9, 17):
        model = made("gpt", length=length)
        views, notes = begun(model, path, dtype=dtype)
        assert f"takes the first {length} of 40 rows of transformer.wpe.weight" in notes[1]
        found = centred_logits(model, views, "gpt", length)
        expected = _expected("gpt", logits[:, length - 1])
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_what_was_read(tmp_path, case):
    """The table goes both ways, for every parameter, and its names are torch's."""
    shapes, _ = torchs.stored(case)
    model = made(case, length=40)
    views, _ = begun(model, written(tmp_path, case))
    table = torch_names(case, model.shapes)
    back = {stored.name: stored.theirs(views[name]) for name, stored in table.items()}
    renamed = {  # torchvision's in place of those of networks for CIFAR
        name.replace("shortcut", "downsample").replace("linear", "fc")
        if case == "resnet8"
        else name: array
        for name, array in torchs.parameters(shapes).items()
    }
    assert back.keys() == renamed.keys()
    for name, array in renamed.items():
        assert back[name].flags.c_contiguous
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("case", ["gpt", "resnet18"])
def test_wrappers_and_counters_are_no_parameters(tmp_path, case, prefix):
    """What DataParallel and compile put before names, masks of attention, counted batches, a tied layer written twice."""
    shapes, _ = torchs.stored(case)
    arrays = torchs.parameters(shapes)
    if case == "gpt":
        tied = {"lm_head.weight": arrays["transformer.wte.weight"].copy()}
        arrays = {k.removeprefix("transformer."): v for k, v in arrays.items()} | tied
        arrays["h.0.attn.bias"] = np.ones((1, 1, 40, 40), "f4")
        arrays["h.1.attn.masked_bias"] = np.array(-1e4, "f4")
    else:
        arrays["bn1.num_batches_tracked"] = np.array(9)
    path = tmp_path / "wrapped.safetensors"
    save_file({prefix + name: array for name, array in arrays.items()}, path)
    one, _ = begun(made(case), path)
    other, _ = begun(made(case), written(tmp_path, case))
    for name, array in other.items():
        np.testing.assert_array_equal(one[name], array)


def test_an_output_layer_that_is_no_embedding(tmp_path):
    """A tied model has no place for one that differs, and says so; one that is not tied takes it."""
    head = np.ones((61, 48), "f4")
    path = written(tmp_path, "gpt", **{"lm_head.weight": head})
    with pytest.raises(ConfigurationError, match=r"left over in the file: lm_head\.weight"):
        begun(made("gpt"), path)
    views, _ = begun(made("gpt", tied=False), path)
    np.testing.assert_array_equal(views["head/weight"], head)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_types_of_floats(tmp_path, kind):
    """Are converted; bfloat16 is the upper half of a float32."""
    shapes, _ = torchs.stored("mlp")
    arrays, path = torchs.parameters(shapes), tmp_path / "mlp.safetensors"
    if kind == "bfloat16":
        upper = {name: (a.view("u4") >> 16).astype("<u2") for name, a in arrays.items()}
        _write_raw(path, {name: ("BF16", array) for name, array in upper.items()})
        expected = {name: (a.astype("u4") << 16).view("f4") for name, a in upper.items()}
    else:
        expected = {name: a.astype(kind) for name, a in arrays.items()}
        save_file(expected, path)
    views, _ = begun(made("mlp"), path)
    np.testing.assert_array_equal(views["layer1/weight"], expected["layer1.weight"].T.astype("f4"))


def _write_raw(path, arrays):
    """A safetensors file of types that NumPy has not."""
    header, start = {}, 0
    for name, (kind, array) in arrays.items():
        stop = start + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    content = b"".join(array.tobytes() for _, array in arrays.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


# -- what does not fit -------------------------------------------------------------------------------


def test_another_head(tmp_path):
    """Fine-tuning on other classes: refused, with how it is done; then all but the head is taken, and that begins as usual."""
    path, model = written(tmp_path, "resnet18"), made("resnet18", classes=7)
    with pytest.raises(ConfigurationError) as caught:
        begun(model, path)
    text = str(caught.value)
    assert "classes/weight (fc.weight: expected (7, 512), got (5, 512))" in text
    assert "--initial-strict false" in text and text.isprintable()
    views, notes = begun(model, path, is_strict=False)
    assert f"takes {len(model.shapes) - 2} of {len(model.shapes)} parameters" in notes[0]
    assert "stem/*, stage0_block0/*" in notes[0] and notes[-1].endswith("classes/*")
    assert "of another shape: classes/weight" in notes[1]
    usual = Layout(model.shapes).views(np.zeros(Layout(model.shapes).size, "f4"))
    model.initialise(usual, 0)
    np.testing.assert_array_equal(views["classes/weight"], usual["classes/weight"])
    taken = torchs.parameters(torchs.stored("resnet18")[0])["conv1.weight"]
    np.testing.assert_array_equal(views["stem/conv/weight"], taken.transpose(2, 3, 1, 0))


def test_missing_and_left_over(tmp_path):
    """Both are named, and neither is passed over in silence."""
    more = {"layer0.bias": None, "layer9.weight": np.ones((2, 2), "f4")}
    path = written(tmp_path, "mlp", **more)
    with pytest.raises(
        ConfigurationError, match=r"missing: layer0/bias; left over in the file: layer9\.weight;"
    ):
        begun(made("mlp"), path)
    views, notes = begun(made("mlp"), path, is_strict=False)
    assert notes[1:] == [
        "missing: layer0/bias",
        "left over in the file: layer9.weight",
        "begins as without a file: layer0/bias",
    ]
    assert not views["layer0/bias"].any()


def test_a_file_of_another_model(tmp_path):
    """Nothing fits: refused whatever is allowed."""
    path = written(tmp_path, "gpt")
    for is_strict in (True, False):
        with pytest.raises(
            ConfigurationError, match=r"got none that fits.*--model mlp and its options"
        ):
            begun(made("mlp"), path, is_strict)


@pytest.mark.parametrize(
    ("case", "own", "words"),
    [
        ("gpt", {"layers": 3, "width": 32}, "--layers 2 --width 48, and a vocabulary of 61"),
        ("resnet8", {"width": 8}, "--width 16, and images of 3 channels"),
    ],
)
def test_options_that_the_file_tells(tmp_path, case, own, words):
    """Stand in the line, where the model's are others."""
    path = written(tmp_path, case)
    with pytest.raises(ConfigurationError) as caught:
        begun(made(case, **own), path)
    assert f"; the file's are {words}; " in str(caught.value)


def test_widths_that_the_file_tells(tmp_path):
    path = tmp_path / "mlp.safetensors"
    shapes = {"layer0": (7, 12), "layer1": (6, 7), "layer2": (5, 6)}
    save_file({f"{name}.weight": np.ones(shape, "f4") for name, shape in shapes.items()}, path)
    with pytest.raises(ConfigurationError, match="the file's are --hidden 7 6;"):
        begun(made("mlp"), path)


def test_what_is_frozen_and_was_never_trained_is_said(tmp_path):
    path, model = written(tmp_path, "mlp", **{"layer0.bias": None}), made("mlp")
    model.freeze(["layer0/weight", "layer0/bias"])
    _, notes = begun(model, path, is_strict=False)
    assert notes[-1] == "is frozen as it begins, which nothing has trained: layer0/bias"


# -- the configuration beside it ---------------------------------------------------------------------


def _find_gpt(folder, about, **own):
    (folder / "config.json").write_text(about if isinstance(about, str) else json.dumps(about))
    own = {"layers": 2, "width": 48, "heads": 4} | own
    config = Config(
        model="gpt", initial=str(written(folder, "gpt")), own={"model": own}, data=("any.txt",)
    )
    (file,) = on_ranks(1, lambda world: initial.find(config, world))
    return file.notes


_GPT2 = {"model_type": "gpt2", "n_head": 4, "activation_function": "gelu_new"}


@pytest.mark.parametrize("about", ["", "{", "[]", "[" * 99_999, {"model_type": "other"}])
def test_heads_are_taken_on_trust_where_nothing_says_them(tmp_path, about):
    """No configuration of a GPT-2 lies beside the file."""
    (note,) = _find_gpt(tmp_path, about)
    assert "takes --heads 4 for what it was trained with" in note


def test_heads_are_those_of_the_configuration(tmp_path):
    """Parameters of other heads would fit."""
    assert _find_gpt(tmp_path, _GPT2) == ()
    assert _find_gpt(tmp_path, _GPT2 | {"activation_function": "gelu"}, feed_forward="gelu") == ()
    for key, value, words in (
        ("n_head", 12, "n_head: expected --heads 4, got 12: give --heads 12"),
        ("n_head", "\n", "n_head: expected --heads 4"),
        ("activation_function", "gelu", "give --feed-forward gelu"),
        ("activation_function", "relu", "got relu, which is not built in"),
        ("activation_function", ["relu"], "which is not built in"),
        (
            "layer_norm_epsilon",
            1e-6,
            "layer_norm_epsilon: expected 1e-05, which is built in, got 1e-06",
        ),
        ("scale_attn_by_inverse_layer_idx", True, "expected False"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            _find_gpt(tmp_path, _GPT2 | {key: value})
        assert words in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((8, 12), np.nan, "f4"), "expected finite numbers of float32"),
        (np.full((8, 12), 1e300), "expected finite numbers of float32"),
        (np.ones((8, 12), "i8"), "expected floats, got I64"),
        (np.ones((8, 12), bool), "expected floats, got BOOL"),
    ],
)
def test_what_is_no_finite_number(tmp_path, array, words):
    path = written(tmp_path, "mlp", **{"layer0.weight": array})
    with pytest.raises(DataError, match=r"layer0\.weight: ") as caught:
        begun(made("mlp"), path)
    assert words in str(caught.value) and str(path) in str(caught.value)


# -- files -------------------------------------------------------------------------------------------


def _found(path):
    (file,) = on_ranks(1, lambda world: initial.find(Config(initial=str(path)), world))
    return file


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "pytorch_model.bin", "any", "m.ckpt"])
def test_what_may_run_a_program_is_not_opened(tmp_path, name):
    """A pickle, by its name or by its first bytes; the line says how to write safetensors."""
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04 any" if name == "any" else b"text")
    with pytest.raises(DataError, match=r"got a pickle.*save_file.*weights_only=True") as caught:
        _found(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        b"\x08" + b"\0" * 7 + b"{}      ",
        b"PK\x03\x04",
        b"\x02" + b"\0" * 7 + b"{",
    ],
)
def test_a_damaged_file(tmp_path, content):
    """One line that names it."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises((DataError, ConfigurationError)) as caught:
        begun(made("mlp"), _found(path).path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()


def test_a_file_that_ends_early(tmp_path):
    path = written(tmp_path, "mlp")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="not a safetensors file"):
        begun(made("mlp"), path)


def test_a_place_without_a_file(tmp_path):
    with pytest.raises(DataError, match=r"none.safetensors: no such file$"):
        _found(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match=r"no file step-….h5$"):
        _found(tmp_path)
    written(tmp_path, "mlp")
    with pytest.raises(DataError, match=r"; --initial .*/mlp\.safetensors names a file of it"):
        _found(tmp_path)
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(DataError, match="expected a checkpoint that is whole"):
        _found(folder)


def test_names_that_cannot_be_printed(tmp_path):
    """Stand in no message as they are."""
    path = written(tmp_path, "mlp", **{"a\x1b[2J\nb": np.ones(2, "f4")})
    with pytest.raises(ConfigurationError) as caught:
        begun(made("mlp"), path)
    assert str(caught.value).isprintable()


def test_without_the_library(tmp_path, monkeypatch):
    """The line names the extra that brings it."""
    path = written(tmp_path, "mlp")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(LauncherError, match=r"pip install 'safetensors>=0.4'"):
        parameter_files.open_safetensors(path)


def test_damaged_headers(tmp_path):
    """A line that names the file, or finite numbers."""
    path = written(tmp_path, "mlp")
    good, refused = path.read_bytes(), 0
    header = 8 + int.from_bytes(good[:8], "little")
    for seed in range(200):
        generator = np.random.default_rng(seed)
        content = bytearray(good)
        content[generator.integers(header)] = generator.integers(256)
        path.write_bytes(content)
        try:
            views, _ = begun(made("mlp"), path)
            assert all(np.isfinite(view).all() for view in views.values())
        except LeptonError as error:
            refused += 1
            assert str(path) in str(error) and str(error).isprintable(), str(error)
    assert refused > 100
