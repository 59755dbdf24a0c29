"""Which parameters weight decay acts on: weights, and neither biases nor scales, in every model and layer."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

import lepton_mpi
from lepton_mpi.batch import Input
from lepton_mpi.layers.initial import zeros
from lepton_mpi.layers.layer import Parameter
from lepton_mpi.models.registry import make_model
from lepton_mpi.options import names
from lepton_mpi.options.config import Config

_NUMBERS = {"x": Input("numbers", (8, 8))}
_TOKENS = {"x": Input("tokens", (16,), 65)}
_TABLE = _NUMBERS | {"categories": Input("categories", (2,), (5, 3))}


def _made(name: str):
    data = SimpleNamespace(
        inputs={"gpt": _TOKENS, "wide_and_deep": _TABLE}.get(name, _NUMBERS),
        feature_shape=(16,) if name == "gpt" else (8, 8),
        class_count=None if name == "gpt" else 2,
        output_count=65 if name == "gpt" else 2,
        outputs_text="classes",
        category_names=("a", "b"),
    )
    return make_model(name, Config(model=name).for_model(threads=1), data)


def _is_weight(key: str) -> bool:
    """By its name and that of its layer, whatever its shape."""
    *above, last = key.split("/")
    is_of_norm = bool(above) and "norm" in above[-1]
    # A table of each column, in an embedding; two matrices, in a recurrent layer.
    return last.startswith(("weight", "column")) and not is_of_norm


@pytest.mark.parametrize("name", names.MODELS)
def test_every_model_decays_its_weights_and_nothing_else(name):
    model = _made(name)
    assert set(model.decayed) == {key for key in model.shapes if _is_weight(key)}
    assert 0 < len(model.decayed) < len(model.shapes)


def test_logistic_decays_its_weight():
    """Of one dimension."""
    model = _made("logistic")
    assert model.shapes == {"weight": (64,), "bias": (1,)}
    assert model.decayed == ("weight",)


def test_every_layer_says_of_each_parameter_whether_it_decays():
    """None of the package's own is decided by its number of dimensions."""
    found = 0
    for path in sorted((Path(lepton_mpi.__file__).parent / "layers").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Parameter":
                found += 1
                says = {keyword.arg for keyword in node.keywords}
                # A third argument is the share of an average, which no optimizer trains.
                assert "decays" in says or len(node.args) == 3, f"{path.name}:{node.lineno}"
    assert found > 10


@pytest.mark.parametrize(
    ("parameter", "is_decayed"),
    [
        (Parameter((3,), zeros), False),
        (Parameter((3, 1), zeros), True),
        (Parameter((3,), zeros, decays=True), True),
        (Parameter((3, 1), zeros, decays=False), False),
        (Parameter((3, 1), zeros, 0.1), False),
        (Parameter((), zeros), False),
    ],
)
def test_a_layer_of_ones_own_need_not_say_it(parameter, is_decayed):
    """Then arrays of two or more dimensions decay; averages never do."""
    assert parameter.is_decayed == is_decayed
