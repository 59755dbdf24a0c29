"""``--recompute``: every network that options make computes the same bits in less memory."""

import re

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import OPTIONS, Config
from lepton_mpi.vectors import Layout

ROWS = 6


class _Facts:
    """Three classes, or the next of 11 tokens, of one input."""

    def __init__(self, x: Input) -> None:
        self.inputs, self.feature_shape = {"x": x}, x.shape
        self.class_count, self.output_count = (None, 11) if x.kind == "tokens" else (3, 3)
        self.outputs_text, self.category_names = f"{self.output_count} outputs", ()


class _Table(_Facts):
    """Numbers, and columns of categories."""

    def __init__(self) -> None:
        super().__init__(Input("numbers", (4,)))
        self.inputs["categories"] = Input("categories", (2,), (5, 3))
        self.category_names = ("a", "b")


MODELS = {
    "gpt": (_Facts(Input("tokens", (9,), 11)), {"layers": 6, "width": 8, "heads": 2}),
    "cnn": (_Facts(Input("numbers", (8, 8, 2))), {"channels": (3, 4)}),
    "tcn": (_Facts(Input("numbers", (20, 2))), {"levels": 3, "width": 4}),
    "wide_and_deep": (_Table(), {}),
    "speech_cnn": (_Facts(Input("numbers", (12, 8))), {"width": 4, "blocks": 3}),
    "speech_gru": (_Facts(Input("numbers", (7, 3))), {"layers": 2, "width": 4}),
    "resnet8": (_Facts(Input("numbers", (8, 8, 2))), {"width": 3}),
    "resnet20": (_Facts(Input("numbers", (16, 16, 2))), {"width": 3}),
    "resnet32": (_Facts(Input("numbers", (8, 8, 2))), {"width": 2}),
    "resnet18": (_Facts(Input("numbers", (33, 33, 2))), {"width": 2}),
}
# Long enough, in equal parts, that what is kept of one in so many of them is less than all of it.
SMALLER = {"gpt": 1, "tcn": 1, "resnet20": 2, "resnet32": 3}


def _network(name: str, recompute: int):
    facts, own = MODELS[name]
    config = Config(
        model=name, own={"model": own}, recompute=recompute, dropout=0.2 * (name == "gpt")
    )
    return make_model(name, config.for_model(threads=1), facts), facts


def _batch(facts) -> Batch:
    random = np.random.default_rng(0)
    first = next(iter(facts.inputs.values()))
    if first.kind == "tokens":
        x, y = (random.integers(0, 11, (ROWS, *first.shape), np.int32) for _ in range(2))
    else:
        x = random.standard_normal((ROWS, *first.shape)).astype(np.float32)
        y = random.integers(0, 3, ROWS).astype(np.int32)
    named = None
    if len(facts.inputs) > 1:
        named = {"x": x, "categories": random.integers(0, 3, (ROWS, 2)).astype(np.int32)}
    return Batch(x, y, np.arange(ROWS), 7, None, named)


class _Alone:
    """Nothing waits for gradients."""

    awaits = follows = False


def _step(name: str, recompute: int, frozen: tuple[str, ...] = ()) -> tuple[bytes, list[str]]:
    """Bits of loss and gradient, and what was planned."""
    network, facts = _network(name, recompute)
    network.freeze(frozen)
    layout = Layout(network.shapes)
    parameters = layout.views(np.zeros(layout.size, np.float32))
    network.initialise(parameters, 1)
    gradient = layout.views(np.zeros(layout.size, np.float32))
    sums = network.loss_and_gradient(parameters, _batch(facts), gradient, _Alone())
    lines = network.memory_lines(256, np.dtype(np.float32))
    return repr(sums).encode() + b"".join(gradient[key].tobytes() for key in gradient), lines


def _arena_mib(lines: list[str]) -> float:
    size, unit = re.search(r"arrays in ([\d.]+) (KiB|MiB)", lines[-1]).groups()
    return float(size) / (1024 if unit == "KiB" else 1)


def test_every_network_has_the_option():
    """Those that the option's help names are the ones that are tested."""
    assert set(OPTIONS["recompute"].of[1:]) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_the_same(name):
    """And deep networks need less memory, by the plan."""
    whole, kept = _step(name, 0)
    for every in (1, 2, 3):
        again, fewer = _step(name, every)
        assert again == whole
        if SMALLER.get(name) == every:
            assert _arena_mib(fewer) < 0.75 * _arena_mib(kept)


@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_the_same_where_a_part_is_frozen(name):
    """The first half of the parameters, without their statistics; what is before all that is trained has no backward pass."""
    shapes = list(_network(name, 0)[0].shapes)
    frozen = tuple(key for key in shapes[: len(shapes) // 2] if "running" not in key)
    whole, _ = _step(name, 0, frozen)
    for every in (1, 2):
        again, _ = _step(name, every, frozen)
        assert again == whole
