"""``--activations bfloat16``: the rounding, what a plan packs, its memory, and how far gradients are from exact ones."""

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import packing_kernels as kernels
from lepton_mpi.layers.compose import Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.losses import SquaredError
from lepton_mpi.models.network import Network
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import OPTIONS, Config
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests import reference_layers
from tests.serial.built_networks import MODELS, Facts, network_of, step_of

SINGLE = np.dtype(np.float32)
ALL = np.arange(1 << 16, dtype=np.uint16)


def _numbers() -> np.ndarray:
    """For every upper half of a float32 the lower halves at which rounding turns, NaN, infinities and denormal numbers among them."""
    upper = ALL.astype(np.uint32)[:, None] << 16
    lower = np.array([0, 1, 0x1234, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (upper | lower).reshape(-1).view(np.float32)


def test_numbers_are_rounded_to_the_nearest_bfloat16():
    """Ties to even; NaN stays NaN, of its sign, and is quiet."""
    x = _numbers()
    mine, exact = (np.zeros(x.size, np.uint16) for _ in range(2))
    kernels.pack(x, mine)
    reference_layers.pack(x, exact)
    np.testing.assert_array_equal(mine, exact)
    is_nan = np.isnan(x)
    assert ((mine & 0x7FFF > 0x7F80) == is_nan).all() and (mine[is_nan] & 0x40).all()


def test_float64_goes_by_way_of_float32():
    x = np.random.default_rng(0).standard_normal(1001) * 10.0 ** np.linspace(-50, 50, 1001)
    mine, exact = (np.zeros(x.size, np.uint16) for _ in range(2))
    kernels.pack(x, mine)
    with np.errstate(over="ignore"):
        reference_layers.pack(x.astype(np.float32), exact)
    np.testing.assert_array_equal(mine, exact)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_bfloat16_comes_back(dtype):
    """To the same bits, and as the number that the format says."""
    out, exact, again = np.zeros(ALL.size, dtype), np.zeros(ALL.size), np.zeros_like(ALL)
    kernels.unpack(ALL, out)
    reference_layers.unpack(ALL, exact)
    np.testing.assert_array_equal(out, exact)
    kernels.pack(out, again)
    is_number = ~np.isnan(exact)
    np.testing.assert_array_equal(again[is_number], ALL[is_number])


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_an_error_is_at_most_a_256th(count):
    x = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    packed, out = np.zeros(count, np.uint16), np.full_like(x, np.nan)
    kernels.pack(x, packed)
    kernels.unpack(packed, out)
    assert (np.abs(out - x) <= 2.0**-8 * np.abs(x)).all()


def _rounded(x: np.ndarray) -> np.ndarray:
    packed, out = np.zeros(x.size, np.uint16), np.zeros(x.size)
    reference_layers.pack(x.reshape(-1), packed)
    reference_layers.unpack(packed, out)
    return out.reshape(x.shape)


def test_gradients_are_those_at_rounded_activations():
    """Written out: of four dense layers, outputs and slopes of all but the last, whose x is read again at once."""
    widths, random = (5, 7, 6, 4, 2), np.random.default_rng(3)
    body = Sequential([*(Dense(k, "tanh") for k in widths[1:-1]), Dense(widths[-1])])
    network = Network("n", body, {"x": Input("numbers", (5,))}, SquaredError(), 0, "bfloat16")
    layout = Layout(network.shapes)
    p = layout.views(random.standard_normal(layout.size))
    vector = np.full(layout.size, np.nan)
    x, y = random.standard_normal((9, 5)), random.standard_normal((9, 2))
    network.loss_and_gradient(p, Batch(x, y, np.arange(9)), layout.views(vector), NO_SYNC)
    given, slopes = [x], []
    for layer in range(3):
        out = np.tanh(given[-1] @ p[f"layer{layer}/weight"] + p[f"layer{layer}/bias"])
        given.append(out)
        slopes.append(1 - out**2)
    error = given[-1] @ p["layer3/weight"] + p["layer3/bias"] - y
    kept = [x, *map(_rounded, given[1:3]), given[3]]
    # The slope of the third waits for as many calls as its output does, and one more.
    slopes = [_rounded(slope) for slope in slopes]
    grad = layout.views(np.zeros(layout.size))
    for layer in (3, 2, 1, 0):
        if layer < 3:
            error = error * slopes[layer]
        grad[f"layer{layer}/weight"][...] = kept[layer].T @ error
        grad[f"layer{layer}/bias"][...] = error.sum(axis=0)
        error = error @ p[f"layer{layer}/weight"].T
    for name, view in layout.views(vector).items():
        np.testing.assert_allclose(view, grad[name], rtol=0, atol=1e-5 * np.abs(grad[name]).max())


def test_every_network_has_the_option():
    assert set(OPTIONS["activations"].of[1:]) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_keeps_its_bits_and_gradients_are_near(name):
    """The whole gradient, running statistics apart, to 0.4 % of its norm, one rounding; with dropout where a model has it."""
    dropout = {} if name.startswith("resnet") else {"dropout": 0.3}
    plain, facts = network_of(name, **dropout)
    sums, exact = step_of(plain, facts)
    network, _ = network_of(name, activations="bfloat16", **dropout)
    assert {kernels.pack, kernels.unpack} <= set(network.kernels)
    assert list(network.shapes) == list(plain.shapes)
    found, gradient = step_of(network, facts)
    assert found == sums
    spans = zip(plain.shapes, Layout(plain.shapes).bounds, strict=True)
    for key, (start, stop) in spans:
        if key in plain.averaged:
            np.testing.assert_array_equal(gradient[start:stop], exact[start:stop])
            exact[start:stop] = gradient[start:stop] = 0
    distance = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
    assert 0 < distance < 2.0**-8


def test_recomputation_is_another_way():
    """Whoever asks for both is told, by options and by a program of their own."""
    message = "--activations bfloat16: expected --recompute 0, got 2"
    with pytest.raises(ConfigurationError, match=message):
        Config(model="gpt", activations="bfloat16", recompute=2)
    body, inputs = Dense(3), {"x": Input("numbers", (2,))}
    with pytest.raises(ConfigurationError, match="model n: expected activations of bfloat16, or"):
        Network("n", body, inputs, SquaredError(), 1, "bfloat16")


def _plan(model: str, x: Input, activations: str, **own):
    config = Config(model=model, own={"model": own}, activations=activations)
    network = make_model(model, config.for_model(threads=1), Facts(x))
    return network.plan(8, SINGLE), network.memory_lines(8, SINGLE)


@pytest.mark.parametrize(
    ("model", "x", "own"),
    [
        ("resnet20", Input("numbers", (32, 32, 3)), {}),
        ("gpt", Input("tokens", (64,), 65), {"layers": 4, "width": 128, "heads": 4}),
    ],
    ids=["resnet20", "gpt-4x128"],
)
def test_what_is_kept_takes_half_the_memory(model, x, own):
    """What lives across the loss; and all of a step 0.6, since some of it is not kept. Statistics stay as they are."""
    kept, whole, of_statistics = [], [], []
    for activations in ("dtype", "bfloat16"):
        plan, lines = _plan(model, x, activations, **own)
        head = next(n for n, call in enumerate(plan.calls) if call.does == "head")
        across = [b for b in plan.buffers.values() if b.first < head < b.last]
        kept.append(sum(buffer.byte_count for buffer in across))
        whole.append(plan.arena_bytes)
        of_statistics.append({b.name for b in across if b.name.endswith(("statistics", "stats"))})
        assert len(lines) == len(plan.buffers) + len(plan.lasting) + 1
    assert kept[1] < 0.52 * kept[0] and whole[1] < 0.6 * whole[0]
    assert of_statistics[0] == of_statistics[1] != set()


def test_the_plan_is_printed_as_it_is_stored():
    """Each array that is packed by its three lives."""
    _, lines = _plan("resnet8", Input("numbers", (8, 8, 1)), "bfloat16")
    found = [line for line in lines if line.startswith("stem/conv/out")]
    assert found == [
        "stem/conv/out: 8x8x8x16 float32, 32 KiB, calls 0 to 2",
        "stem/conv/out, packed: 8x8x8x16 bfloat16, 16 KiB, calls 2 to 90",
        "stem/conv/out, unpacked: 8x8x8x16 float32, 32 KiB, calls 90 to 91",
    ]
