"""A checkpoint of every kind of model, whose parameters all count, and the engine's own outputs, for the tests of what is exported."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.commands.export import Options, export_checkpoint
from lepton_mpi.data.encodings import Encodings
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint, checkpoint_folder, trained
from lepton_mpi.run.checkpoint import Checkpoint
from lepton_mpi.run.trained import Trained
from lepton_mpi.vectors import Layout
from tests.serial.thread_ranks import on_ranks

CLASSES, TOKENS, VALUES = 5, 61, (4, 1, 6)


@dataclass(frozen=True)
class Case:
    """A model, what it reads, and ``targets`` outputs in place of classes."""

    model: str
    shape: tuple[int, ...] = (12,)
    own: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: int = CLASSES
    targets: int = 0

    @property
    def inputs(self) -> dict[str, Input]:
        """By name; an empty shape of wide_and_deep is no numbers."""
        if self.model == "gpt":
            return {"tokens": Input("tokens", self.shape, TOKENS)}
        found = {"x": Input("numbers", self.shape)} if self.shape else {}
        if self.model == "wide_and_deep":
            found["categories"] = Input("categories", (len(VALUES),), VALUES)
        return found

    def rows(self, count: int, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
        """Of each input, as a batch has them."""
        generator, found = np.random.default_rng(seed), {}
        for name, spec in self.inputs.items():
            if spec.kind == "numbers":
                found[name] = (3 * generator.standard_normal((count, *spec.shape))).astype(dtype)
            else:
                limits = np.reshape(spec.counts, spec.shape)
                found[name] = generator.integers(0, limits, (count, *spec.shape)).astype("i4")
        return found


def _norms(model: str, shape: tuple[int, ...], **own: Any) -> dict[str, Case]:
    return {
        f"{model} {norm}": Case(model, shape, own | {"norm": norm})
        for norm in ("batch", "sync_batch", "group", "none")
    }


_GPT = {"layers": 2, "width": 24, "heads": 4}
_LLAMA = {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "shared_heads": 2}
CASES: dict[str, Case] = {
    **{
        f"mlp {kind}": Case("mlp", options={"hidden": (8, 7), "activation": kind})
        for kind in ("relu", "gelu", "gelu_tanh", "tanh", "sigmoid", "silu")
    },
    "mlp images": Case("mlp", (4, 3), options={"hidden": (8,), "dropout": 0.2}),
    "mlp targets": Case("mlp", options={"hidden": (8,)}, targets=3),
    "linear": Case("mlp", options={"hidden": (), "loss": "huber"}, targets=1),
    "logistic": Case("logistic", (4, 3), classes=2),
    **_norms("cnn", (10, 9, 3), channels=(8, 16), units=7),
    "cnn thin": Case("cnn", (3, 5), {"channels": (8, 8, 8), "units": 7}, {"dropout": 0.1}),
    **_norms("resnet8", (19, 18, 3), width=8),
    "resnet20": Case("resnet20", (16, 16, 2), {"width": 4}),
    "resnet32": Case("resnet32", (8, 8), {"width": 4}),
    "resnet18": Case("resnet18", (33, 38, 3), {"width": 8}),
    "resnet8 targets": Case("resnet8", (9, 8, 1), {"width": 4}, targets=2),
    "resnet8 packed": Case("resnet8", (9, 8, 1), {"width": 4}, {"activations": "bfloat16"}),
    **_norms("tcn", (21, 3), levels=2, width=8, taps=3),
    "tcn same": Case("tcn", (21, 8), {"levels": 3, "width": 8, "taps": 2}, {"dropout": 0.1}),
    **_norms("speech_cnn", (13, 9), width=8, blocks=2),
    "speech_gru": Case("speech_gru", (7, 6), {"width": 5}),
    "speech_gru last": Case("speech_gru", (7, 6), {"width": 5, "pooling": "last", "layers": 2}),
    "speech_gru both": Case("speech_gru", (7, 6), {"width": 5, "bidirectional": True, "layers": 2}),
    "speech_gru both last": Case(
        "speech_gru", (7, 6), {"width": 5, "bidirectional": True, "pooling": "last"}
    ),
    "gpt": Case("gpt", (17,), _GPT),
    "gpt gelu": Case("gpt", (17,), _GPT | {"feed_forward": "gelu"}, {"dropout": 0.1}),
    "gpt untied": Case("gpt", (17,), _GPT | {"tied": False}),
    "gpt llama": Case("gpt", (17,), _GPT | _LLAMA),
    "gpt mixed": Case("gpt", (17,), _GPT | {"positions": "rotary", "tied": False}),
    "gpt shared": Case("gpt", (17,), _GPT | {"shared_heads": 1, "norm": "rms"}),
    "wide_and_deep": Case("wide_and_deep", (2,), options={"hidden": (8, 6)}),
    "wide_and_deep crosses": Case(
        "wide_and_deep", (2,), {"crosses": ("a*c", "a*b*c"), "cross_buckets": 24}
    ),
    "wide_and_deep hashed": Case(
        "wide_and_deep", (2, 1), {"crosses": ("a*c", "a*b*c"), "cross_buckets": 7}
    ),
    "wide_and_deep categories": Case("wide_and_deep", (), {"norm": "layer"}, {"hidden": (8,)}),
    **{
        f"wide_and_deep {norm}": Case(
            *("wide_and_deep", (2,), {"norm": norm}, {"hidden": (8,), "activation": "gelu"})
        )
        for norm in ("batch", "sync_batch", "layer")
    },
    "wide_and_deep targets": Case("wide_and_deep", (2,), options={"hidden": (8,)}, targets=1),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"], ids=["f4", "f8"])


def saved(folder: Path, case: Case, dtype: str = "float32", model_name: str = "") -> Path:
    """A checkpoint as training writes one, of the model or of a user's own."""
    scale = TargetScale.identity(case.targets)
    if case.targets:
        shift, log = np.linspace(3, 5, case.targets), np.arange(case.targets) % 2 == 1
        scale = TargetScale(shift, np.linspace(0.5, 2, case.targets), log)
    config = Config(
        model=model_name or case.model, dtype=dtype, own={"model": dict(case.own)}, **case.options
    )
    encodings = _encodings(case)
    model = make_model(config.model, config.for_model(threads=1), _Facts(case))
    layout = Layout(model.shapes)
    vector = np.zeros(layout.size, dtype)
    fill(layout.views(vector))
    size = sum(spec.size for spec in case.inputs.values() if spec.kind == "numbers")
    generator = np.random.default_rng(5)
    attributes = {
        "step": 1,
        "epoch": 0,
        "seed": 0,
        "model": str(model),
        "y_kind": "tokens" if case.model == "gpt" else "targets" if case.targets else "classes",
        "configuration": json.dumps(asdict(config)),
        **checkpoint.target_scale_attribute(scale),
    }
    normalisation = generator.standard_normal(size), generator.uniform(0.5, 2, size)
    written = Checkpoint(layout, vector, {}, normalisation, attributes, encodings)
    return checkpoint_folder.save(folder / "runs", written)


class _Facts:
    """What a model is built for."""

    def __init__(self, case: Case) -> None:
        self.inputs = case.inputs
        self.feature_shape = next(iter(self.inputs.values())).shape
        self.class_count = None if case.targets or case.model == "gpt" else case.classes
        self.output_count = case.targets or (TOKENS if case.model == "gpt" else case.classes)
        self.outputs_text, self.category_names = "outputs", ("a", "b", "c")


def _encodings(case: Case) -> Encodings:
    is_text = case.model == "gpt"
    names = tuple(f"class {number}" for number in range(case.classes))
    has_classes = not case.targets and not is_text
    is_table = case.model == "wide_and_deep"
    return Encodings(
        case.inputs,
        case.classes * has_classes,
        case.targets,
        columns=tuple(f"column {j}" for j in range(case.inputs["x"].size))
        if "x" in case.inputs and len(case.shape) == 1
        else (),
        input_columns=("a", "b", "c") if is_table else (),
        categories={"a": tuple("wxyz")} if is_table else {},
        class_names=names if has_classes else (),
        target_names=tuple(f"target {j}" for j in range(case.targets)),
        vocabulary=tuple(bytes([token]) for token in range(TOKENS)) if is_text else (),
    )


def fill(views: Mapping[str, np.ndarray]) -> None:
    """None is 0 or 1 as in a new model; outputs stay of size 1 in deep networks, too."""
    for number, (name, array) in enumerate(views.items()):
        generator = np.random.default_rng(number)
        if array.ndim > 1:
            is_table = "embedding" in name or "column" in name or "positions" in name
            inputs = 1 if is_table else np.prod(array.shape[:-1])
            array[...] = generator.standard_normal(array.shape) / np.sqrt(inputs)
        elif name.endswith("running_variance") or name.endswith("norm/weight"):
            array[...] = generator.uniform(0.5, 1.5, array.shape)
        else:
            array[...] = 0.3 * generator.standard_normal(array.shape)


def loaded(path: Path, model_name: str | None = None) -> Trained:
    """As a command loads it."""
    (found,) = on_ranks(
        1, lambda world: trained.load_trained(path, None, world, model_name, needs_rows=False)
    )
    return found


def exported(path: Path, file: Path, **chosen: Any) -> Path:
    """The file that the command writes."""
    options = Options(checkpoint=str(path), file=str(file), **chosen)
    on_ranks(1, lambda world: export_checkpoint(options, world))
    return file


def outputs_of(found: Trained, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the engine predicts of such rows: probabilities, of a gpt those behind the last position; or targets, as trained on."""
    count = len(next(iter(rows.values())))
    outputs = found.data.output_count
    out = np.empty((count, outputs), next(iter(found.parameters.values())).dtype)
    named = dict(rows)
    x = next(iter(named.values()))
    shapes = found.model.inputs
    if len(named) == 1:
        x = x.reshape(count, *next(iter(shapes.values())).shape)
        named = {"x": x}
    found.model.predict(found.parameters, Batch(x, np.zeros(count, np.int32), named=named), out)
    return out
