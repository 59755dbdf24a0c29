"""Interpretation: gradients by inputs against finite differences and NumPy, completeness, Grad-CAM, attention, columns, pages."""

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_mpi.batch import Batch, Input
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.encodings import Encodings
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.data.ways import Way
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.interpretation import attention_maps, embedded, page, pictures
from lepton_mpi.interpretation.columns import Column, columns_of, raw_numbers
from lepton_mpi.interpretation.grad_cam import default_layer, grad_cam, layers_of
from lepton_mpi.interpretation.gradients import Gradients
from lepton_mpi.interpretation.importance import permuted
from lepton_mpi.interpretation.pictures import Panel
from lepton_mpi.interpretation.scored import Scored, values_of
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.bound import Bound, Room, make_arena, make_lasting
from lepton_mpi.layers.compose import Sequential
from lepton_mpi.layers.convolution import Conv2d
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.layer import When
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.layers.plan import make_plan
from lepton_mpi.layers.pooling import AveragePool
from lepton_mpi.layers.windows import square
from lepton_mpi.markup.page import write
from lepton_mpi.models.as_network import as_network
from lepton_mpi.models.gpt import Gpt, Shape
from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.models.network import Network
from lepton_mpi.models.own_model import OwnModel
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests import reference_images
from tests.serial.test_convolutional_models import MODELS as IMAGES
from tests.serial.test_convolutional_models import Facts as image_facts
from tests.serial.test_convolutional_models import image_model
from tests.serial.test_network import DOUBLE, ROWS, Run, graphs
from tests.serial.test_speech_models import MODELS as SOUNDS
from tests.serial.test_speech_models import sound_model
from tests.serial.test_wide_and_deep import Facts as Categories
from tests.serial.test_wide_and_deep import wide_model


def _with_parameters(model):
    """A model, and float64 parameters with running statistics as after training."""
    layout, generator = Layout(model.shapes), np.random.default_rng(3)
    vector = np.empty(layout.size)
    model.initialise(layout.views(vector), 1)
    vector += 0.2 * generator.standard_normal(layout.size)
    views = layout.views(vector)
    for name in model.averaged:
        views[name][...] = np.abs(views[name]) + 0.3
    return model, views


def _rows(network: Network, count: int, seed: int = 5) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    found = []
    for spec in network.inputs.values():
        if spec.kind == "numbers":
            found.append(generator.standard_normal((count, *spec.shape)))
        else:
            codes = generator.integers(0, np.array(spec.counts), (count, spec.size))
            found.append(codes.astype(np.int32).reshape(count, *spec.shape))
    return tuple(found)


def _networks():
    """Every built-in model, by name."""
    yield "mlp", lambda: Mlp((5, 7, 4, 3), activation="gelu", dropout=0.3)
    yield "mlp, relu", lambda: Mlp((5, 7, 2))
    yield "regression", lambda: Mlp((5, 6, 2), activation="tanh", loss="mse")
    yield "no hidden layer", lambda: Mlp((5, 3))
    yield "logistic", lambda: Logistic(6)
    for name, (kind, shape, options) in IMAGES.items():
        yield name, lambda kind=kind, shape=shape, o=options: image_model(kind, shape, **o)
    for name, (kind, shape, options) in SOUNDS.items():
        yield name, lambda kind=kind, shape=shape, o=options: sound_model(kind, shape, **dict(o))
    yield "wide_and_deep", lambda: wide_model(crosses=("a*b", "a*c"), hidden=(5,), dropout=0.2)
    yield (
        "wide_and_deep, hashed",
        lambda: wide_model(crosses=("a*b*c",), cross_buckets=2, norm="batch"),
    )
    yield "categories alone", lambda: wide_model(Categories(numbers=0), hidden=(4,))
    yield "gpt", lambda: Gpt(Shape(7, 11, 2, 8, 2, dropout=0.1))
    yield "gpt, llama", lambda: Gpt(Shape(6, 9, 1, 8, 4, 2, "rotary", "rms", "swiglu", tied=False))


NETWORKS = dict(_networks())
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def _asked(network: Network, count: int) -> np.ndarray:
    """An output of each row; of a text at its fourth position."""
    (x, *_), outputs = network.inputs.values(), 2
    if isinstance(network, Gpt):
        y = np.full((count, *x.shape), -1, np.int32)
        y[:, 3] = np.arange(count) % network.shape.vocabulary
        return y
    outputs = network.graph.output.shape[-1]
    return (np.arange(count) % outputs).astype(np.int32)


def _slope(score, array: np.ndarray, index: tuple[int, ...], step: float = 1e-5) -> float:
    """Central differences of fourth order of the summed score by one element."""
    found = []
    for shift in (-2, -1, 1, 2):
        moved = array.copy()
        moved[index] += shift * step
        found.append(score(moved))
    return (found[0] - 8 * found[1] + 8 * found[2] - found[3]) / (12 * step)


# -- gradients -------------------------------------------------------------------------------------------------


@pytest.mark.slow(but_every=12)
@every_network
def test_gradients_by_inputs_and_embeddings_are_slopes(make):
    """In float64, to 1e-6 of the largest, of numbers and of every vector that stands for a code."""
    model, views = _with_parameters(make())
    network, parameters = as_network(model, views)
    inputs, outputs = _rows(network, 3), _asked(network, 3)
    gradients = Gradients(network, parameters)
    found = gradients.scored.at(inputs, outputs)
    numbers = [n for n, spec in enumerate(network.inputs.values()) if spec.kind == "numbers"]
    places = {value: inputs[value] for value in numbers}
    places |= {each.value: found.values[each.value] for each in gradients.embedded}
    assert places, "nothing to differ by"
    codes = {each.value for each in gradients.embedded}

    def score(value, array):
        given, replaced = list(inputs), dict(found.values)
        if value in codes:
            replaced[value] = array
        else:
            given[value] = array
        return gradients.scored.at(tuple(given), outputs, replaced if codes else None).scores.sum()

    for value, array in places.items():
        gradient = found.gradients[value]
        assert gradient.shape == array.shape
        flat = np.random.default_rng(0).permutation(array.size)[:12]
        chosen = [np.unravel_index(place, array.shape) for place in flat]
        slopes = [_slope(lambda a, v=value: score(v, a), array, index) for index in chosen]
        mine = [gradient[index] for index in chosen]
        scale = max(np.abs(gradient).max(), 1e-3)
        np.testing.assert_allclose(mine, slopes, rtol=0, atol=1e-6 * scale)


@every_network
def test_the_score_is_what_the_model_says(make):
    """Softmax of the scores of all outputs is what ``predict`` gives; of targets they are it."""
    model, views = _with_parameters(make())
    network, parameters = as_network(model, views)
    if isinstance(network, Gpt):
        x = _rows(network, 2)[0]
        outputs = np.empty((2, network.shape.vocabulary))
        y = np.full_like(x, -1)
        network.predict(views, Batch(x, y), outputs)
        scored, logits = Scored(network, parameters), np.empty_like(outputs)
        for token in range(network.shape.vocabulary):
            y[:, -1] = token
            logits[:, token] = scored.at((x,), y).scores
    else:
        inputs = _rows(network, 2)
        count = network.graph.output.shape[-1]
        named = dict(zip(network.inputs, inputs, strict=True))
        batch = Batch(
            inputs[0],
            np.zeros((2, count)) if model.task == "targets" else np.zeros(2, np.int32),
            named=named,
        )
        outputs, scored = np.empty((2, count)), Scored(network, parameters)
        model.predict(views, batch, outputs)
        each = [scored.at(inputs, np.full(2, k, np.int32)).scores for k in range(count)]
        logits = np.stack(each, axis=1)
    if isinstance(model, Logistic):
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), outputs, rtol=1e-12)
        return
    if model.task != "targets":
        logits = np.exp(logits - logits.max(axis=1, keepdims=True))
        logits /= logits.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(logits, outputs, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_an_mlp_is_that_of_its_formula():
    """tanh(x @ a + b) @ c: its twin in NumPy, and the size of it is the saliency."""
    model, p = _with_parameters(Mlp((4, 6, 3), activation="tanh"))
    network, parameters = as_network(model, p)
    (x,), k = _rows(network, 5), np.array([0, 1, 2, 1, 0], np.int32)
    h = np.tanh(x @ p["layer0/weight"] + p["layer0/bias"])
    exact = (p["layer1/weight"].T[k] * (1 - h**2)) @ p["layer0/weight"].T
    found = Gradients(network, parameters).saliency((x,), k)
    np.testing.assert_allclose(found.numbers["x"], np.abs(exact), rtol=1e-12)


@settings(max_examples=40)
@given(graph=graphs(), data=st.data())
def test_what_is_wanted_of_any_graph_outlives_the_step_and_changes_no_bit(graph, data):
    """Values and gradients by them stay to the end where dead memory is NaN, and are slopes; those of parameters are as before."""
    plain = Run(graph)
    plain.loss()
    read = {value for node in [*graph.nodes, graph.head] for value in node.inputs}
    numbers = data.draw(st.sets(st.sampled_from(sorted(read)), min_size=1, max_size=4))
    run = Run(graph)
    run.plan = make_plan(graph, ROWS, DOUBLE, wanted=sorted(numbers))
    run.arena = make_arena(run.plan.arena_bytes)
    room = Room(run.arena, make_lasting(run.plan))
    run.bound = Bound(graph, run.plan, room, run.parameters, run.layout.views(run.gradient))
    run.loss(poison=True)
    assert run.gradient.tobytes() == plain.gradient.tobytes()
    wanted = {v: run.bound.gradient_by(v).copy() for v in numbers}
    kept = {v: run.bound.value(v).copy() for v in numbers if v >= 2}
    assert all(np.isfinite(a).all() for a in [*wanted.values(), *kept.values()])
    forward = make_plan(graph, ROWS, DOUBLE, training=False, wanted=[*kept])
    room = Room(make_arena(forward.arena_bytes), make_lasting(forward))
    other = Bound(graph, forward, room, run.parameters, None)
    other.take(run.inputs, None)
    for step in other.before:
        step.run(When(True, 7, np.arange(ROWS)))
    for value, array in kept.items():
        assert other.value(value).tobytes() == array.tobytes()
    for value in numbers & {0, 1}:
        whole, direction = run.inputs, np.random.default_rng(2).standard_normal(wanted[value].shape)
        losses = []
        for shift in (-2e-6, -1e-6, 1e-6, 2e-6):
            moved = [a + shift * direction if n == value else a for n, a in enumerate(whole)]
            run.inputs = tuple(moved)
            losses.append(run.loss())
        run.inputs = whole
        slope = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / 12e-6
        scale = np.linalg.norm(wanted[value]) * np.linalg.norm(direction) + 1e-3
        assert abs(slope - (wanted[value] * direction).sum()) <= 1e-5 * scale


def test_a_plan_that_nobody_asks_is_as_it_was():
    """No call and no byte more, and no gradient by the input."""
    network = Network(
        "test",
        Sequential([Dense(4, "relu"), Dense(3)]),
        {"x": Input("numbers", (5,))},
        CrossEntropy(),
    )
    plan = make_plan(network.graph, 8, DOUBLE)
    assert plan.wanted == {}
    assert [call.grad_xs for call in plan.calls if call.does == "backward"][-1] == (None,)
    asked = make_plan(network.graph, 8, DOUBLE, wanted=[0])
    assert len(asked.calls) == len(plan.calls)
    assert asked.wanted[0].gradient.shape == (8, 5)


def test_there_is_no_gradient_by_codes():
    network = wide_model()
    with pytest.raises(
        ConfigurationError,
        match="gradient by the input categories: expected numbers, got categories",
    ):
        make_plan(network.graph, 2, DOUBLE, wanted=[1])


def test_a_users_own_model_has_no_gradients():
    """What it has is said."""

    class Own:
        shapes = {"weight": (4, 3)}  # noqa: RUF012

        def loss_and_gradient(self, parameters, batch, gradient):
            return 0.0

    with pytest.raises(
        ConfigurationError, match=r"expected a built-in model or a Network.*permutation importance"
    ):
        as_network(OwnModel(Own(), image_facts((4,))), {})


def test_a_users_own_network_has_them():
    """Behind the door of models of one's own it is the same network."""
    network = _small_network()
    facts = image_facts((5, 6, 2))
    assert as_network(OwnModel(network, facts), {})[0] is network
    assert OwnModel(network, facts).outputs_first == []


# -- integrated gradients --------------------------------------------------------------------------------------


@pytest.mark.slow(but_every=12)
@every_network
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_integrated_gradients_are_complete(make, kind):
    """Sums are score(x) - score(baseline): to 1e-6 where layers are smooth, to a hundredth of the sizes where there are kinks."""
    model, views = _with_parameters(make())
    network, parameters = as_network(model, views)
    inputs, outputs = _rows(network, 3), _asked(network, 3)
    specs = [(n, s) for n, s in network.inputs.items() if s.kind == "numbers"]
    baseline = {name: np.full(spec.shape, 0.1) for name, spec in specs}
    gradients = Gradients(network, parameters)
    # A norm of vectors that begin with 0 turns at once: finer points.
    steps = 1024 if isinstance(network, Gpt) else 512
    found = gradients.integrated(inputs, outputs, baseline, kind, steps)
    assert (found.gaps <= 0.01 * found.sizes + 1e-9).all(), found.gaps / found.sizes
    kinks = any(isinstance(n.layer, Activation) for n in network.graph.nodes)
    is_smooth = (isinstance(model, Mlp) and model.activation != "relu") or "gru" in model.name
    if (is_smooth and not kinks) or isinstance(model, Logistic):
        np.testing.assert_allclose(found.gaps, 0, atol=1e-6)


def test_integrated_gradients_of_a_linear_model_are_its_terms():
    """(x - baseline) * weight, whatever the number of steps; by the categories their own weights."""
    model, p = _with_parameters(Logistic(4))
    network, parameters = as_network(model, p)
    (x,), baseline = _rows(network, 3), np.array([1.0, 0, -1, 2])
    found = Gradients(network, parameters).integrated(
        (x,), np.ones(3, np.int32), {"x": baseline}, steps=1
    )
    np.testing.assert_allclose(
        found.attribution.numbers["x"], (x - baseline) * p["weight"], rtol=1e-12
    )
    against = Gradients(network, parameters).integrated(
        (x,), np.zeros(3, np.int32), {"x": baseline}, steps=1
    )
    np.testing.assert_allclose(against.attribution.numbers["x"], -found.attribution.numbers["x"])


def test_categories_and_crosses_get_their_own_weights():
    """The wide part is linear: the term of each column and cross is its row of the weight."""
    model, p = _with_parameters(wide_model(crosses=("a*c",), hidden=()))
    network, parameters = as_network(model, p)
    inputs, k = _rows(network, 4), np.array([0, 1, 2, 0], np.int32)
    gradients = Gradients(network, parameters)
    baseline = {"x": np.zeros(2)}
    found = gradients.integrated(inputs, k, baseline, steps=2)
    (wide,) = [each for each in gradients.embedded if each.is_summed]
    assert wide.features == [(0,), (1,), (2,), (0, 2)]
    a, b, c = inputs[1].T
    rows = np.stack([a, 3 + b, 4 + c, 9 + a * 5 + c], axis=1)
    terms = p["wide/categories/weight"][rows, k[:, None]]
    np.testing.assert_allclose(found.attribution.codes["wide/categories"], terms, rtol=1e-12)


# -- Grad-CAM and attention ------------------------------------------------------------------------------------


def _small_network() -> Network:
    window = square(3, padding=1)
    parts = {
        "conv": Conv2d(4, window),
        "relu": Activation("relu"),
        "pool": AveragePool(),
        "out": Dense(3),
    }
    return Network("test", Sequential(parts), {"x": Input("numbers", (5, 6, 2))}, CrossEntropy())


def test_grad_cam_is_that_of_its_formula():
    """Behind one convolution and the mean of all places a channel's weight is the dense layer's, by the places."""
    network, p = _with_parameters(_small_network())
    inputs, k = _rows(network, 3), np.array([2, 0, 1], np.int32)
    a = reference_images.convolution(inputs[0], p["conv/weight"], square(3, padding=1), 1)
    a = np.maximum(a + p["conv/bias"], 0)
    weights = p["out/weight"][:, k].T / 30
    exact = np.maximum((a * weights[:, None, None]).sum(axis=-1), 0)
    assert default_layer(network) == "relu" and exact.any()
    np.testing.assert_allclose(
        grad_cam(network, p, inputs, k, "relu"), exact, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "layer"),
    [("cnn", "block1/norm"), ("resnet8", "stage2_block0/relu"), ("tcn", "level2/relu"), ("cnn, dropout", "block0/relu")],
)  # fmt: skip
def test_the_default_layer_is_the_last_before_pooling(name, layer):
    kind, shape, options = IMAGES[name]
    network = image_model(kind, shape, **options)
    assert default_layer(network) == layer
    with pytest.raises(ConfigurationError, match=r"--layer: expected one of .*, got 'pool'"):
        grad_cam(network, {}, (), np.zeros(1, np.int32), "pool")


def test_networks_without_convolutions_have_no_map():
    assert layers_of(sound_model("speech_gru", (5, 3))) == {}
    assert default_layer(wide_model()) == ""


@pytest.mark.parametrize(
    ("heads", "shared", "is_causal"), [(2, 2, True), (4, 2, True), (3, 1, False)]
)
def test_attention_maps_are_softmax_and_give_what_the_layer_gives(heads, shared, is_causal):
    """Rows sum to 1; position by position they are exp(q k) over its sum, and their product with v is the layer's output."""
    size, length, rows = 3, 5, 2
    layer = Attention(heads, shared, is_causal=is_causal)
    body = Sequential({"qkv": Dense((heads + 2 * shared) * size), "heads": layer, "out": Dense(3)})
    network, p = _with_parameters(
        Network("test", body, {"x": Input("numbers", (length, 4))}, CrossEntropy())
    )
    inputs = _rows(network, rows)
    maps = attention_maps.attention_maps(network, p, inputs, length)["heads"]
    assert maps.shape == (rows, heads, length, length)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=1e-14)
    qkv, out = values_of(network, p, inputs, [1, 2]).values()
    q = qkv[..., : heads * size].reshape(rows, length, heads, size)
    k, v = qkv[..., heads * size :].reshape(rows, length, 2, shared, size).transpose(2, 0, 1, 3, 4)
    for i in range(rows):
        for h in range(heads):
            for t in range(length):
                seen = t + 1 if is_causal else length
                key = h // (heads // shared)
                z = np.array(
                    [np.exp(q[i, t, h] @ k[i, s, key] / np.sqrt(size)) for s in range(seen)]
                )
                exact = z / z.sum()
                np.testing.assert_allclose(maps[i, h, t, :seen], exact, rtol=1e-12)
                assert not maps[i, h, t, seen:].any()
                told = out[i, t, h * size : (h + 1) * size]
                np.testing.assert_allclose(exact @ v[i, :seen, key], told, rtol=1e-9)


def test_maps_of_a_part_of_a_text_are_parts_of_the_maps():
    """Since no position sees those behind it."""
    network, p = _with_parameters(Gpt(Shape(8, 11, 2, 8, 2)))
    inputs = _rows(network, 2)
    whole = attention_maps.attention_maps(network, p, inputs, 8)
    part = attention_maps.attention_maps(network, p, inputs, 3)
    assert list(whole) == ["block0/attention/body/heads", "block1/attention/body/heads"]
    for name, maps in whole.items():
        np.testing.assert_allclose(part[name], maps[..., :3, :3], rtol=1e-12)


# -- columns, permutations, pages ------------------------------------------------------------------------------


def _table(columns=(), prepared=b"", size=6, **more) -> DataSet:
    known = Encodings(columns=columns, prepared=prepared, **more)
    shift, scale = np.arange(size) * 1.0, np.full(size, 0.5)
    given = (Path("t.h5"),), {"x": Input("numbers", (size,))}, ("no", "yes"), np.dtype("f4")
    return DataSet(
        *given,
        (shift, scale),
        {},
        "classes",
        TargetScale.identity(0),
        Way("none", ""),
        np.zeros(size),
        known,
    )


_PREPARED = {
    "columns": ["age", "gone", "plan", "sex", "noise"],
    "categories": {"2": ["basic", "plus", "pro"], "3": ["f", "m"]},
    "one_hot": [2],
    "kept": [True, False, True, True, True],
    "are_apart": False,
}


def test_columns_are_those_of_the_table_that_was_prepared():
    """A column of one-hot features is one, by what is stored of it; a dropped one is none."""
    found = columns_of(_table(prepared=json.dumps(_PREPARED).encode()))
    assert found == [
        Column("age", "x", (0,)),
        Column("plan", "x", (1, 2, 3), ("basic", "plus", "pro")),
        Column("sex", "x", (4,), ("f", "m")),
        Column("noise", "x", (5,)),
    ]
    assert [found[1].text(np.array(v)) for v in ([0.0, 1, 0], [0.0, 0, 0])] == ["plus", "missing"]
    assert [found[2].text(np.array([v])) for v in (0.0, 1.0)] == ["f", "m"]
    assert found[0].text(np.array([38.66])) == "38.66"


def test_columns_without_an_encoding_have_the_names_that_there_are():
    assert [c.name for c in columns_of(_table(("a", "b"), size=2))] == ["a", "b"]
    assert [c.name for c in columns_of(_table(size=2))] == ["x 0", "x 1"]


def test_numbers_are_shown_as_the_file_has_them():
    """Shift and scale undone."""
    raw = raw_numbers(_table(size=3), "x", np.array([[1.0, 1, 1]], np.float32))
    np.testing.assert_array_equal(raw, [[2.0, 3, 4]])


def test_permutations_are_of_all_rows_and_differ():
    """A function of seed, column and repeat alone."""
    orders = {key: permuted(*key, 50) for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]}
    for order in orders.values():
        assert sorted(order) == list(range(50))
    assert len({order.tobytes() for order in orders.values()}) == 4
    assert permuted(0, 0, 1, 50).tobytes() == orders[0, 0, 1].tobytes()


class _Page(html.parser.HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def test_a_page_needs_no_other_file_and_shows_names_as_they_are(tmp_path):
    """Pictures are inside; what a name has of HTML is text; another's file is not written over."""
    png = pictures.bars(
        "a < b", ["<b>", "$x$", "line\nbreak"], [("drop", np.array([0.2, -0.1, 0]), None)]
    )
    assert png.startswith(b"\x89PNG")
    section = page.Section(
        "S", ["<script>"], [page.Picture("one", "a & b", png)], [("c", "d"), ("<td>", "1")]
    )
    text = page.html_of("T", [], [section])
    found = _Page(text)
    assert len(found.addresses) == 1 and found.addresses[0].startswith("data:image/png;base64,")
    assert (
        "<script>" in found.texts
        and "<td>" in found.texts
        and "://" not in re.sub("base64,.*", "", text)
    )
    path = tmp_path / "x.html"
    page.PAGE.check_target(path)
    write(path, text)
    page.write_pictures(tmp_path / "png", section.pictures)
    page.PAGE.check_target(path)
    assert path.read_text("utf-8") == text and (tmp_path / "png/one.png").read_bytes() == png
    path.write_text("mine")
    with pytest.raises(
        ConfigurationError,
        match=r"--out: expected a new file, or one that explain-model has written",
    ):
        page.PAGE.check_target(path)
    with pytest.raises(ConfigurationError, match="--out: expected a file in a folder that exists"):
        page.PAGE.check_target(tmp_path / "none/x.html")


def test_pictures_of_every_kind_are_drawn():
    """The same bytes for the same numbers; letters that a font lacks are no error."""
    values = np.linspace(-1, 1, 12).reshape(3, 4)
    panels = [Panel("input", values, "image"), Panel("a", values, "signed"), Panel("b", values**2, "sizes"), Panel("c", values**2, "over")]  # fmt: skip
    made = [
        pictures.grid([("row 0", panels)]),
        pictures.grid([("row 0", panels)], ("frame", "band")),
        pictures.signals([("row 0", values.T, [Panel("a", values[:1], "signed")])]),
        pictures.texts(
            [("row 0", ["a", "'\\n'", "語", "$x$"], [Panel("a", values[:1], "signed")])]
        ),
        pictures.attention("row 0", [("block0", np.full((2, 3, 3), 0.5))], ["a", "b", "c"]),
    ]
    assert all(png.startswith(b"\x89PNG") for png in made)
    assert pictures.grid([("row 0", panels)]) == made[0]


def test_parts_of_codes_make_the_value_of_the_layer():
    """Of every layer that looks up codes."""
    for make in (NETWORKS["wide_and_deep"], NETWORKS["gpt"]):
        network, p = _with_parameters(make())
        inputs = _rows(network, 3)
        for each in embedded.embedded_of(network):
            (value,) = values_of(network, p, inputs, [each.value]).values()
            codes = inputs[list(network.inputs).index(each.input)]
            parts = embedded.parts_of(each, p, codes)
            np.testing.assert_allclose(
                embedded.together(each, parts, value.shape), value, rtol=1e-14
            )


def test_losses_are_not_touched():
    """The training step of a network that was explained has the bits of one that was not."""
    network, p = _with_parameters(_small_network())
    x, y = _rows(network, 4)[0], np.array([0, 1, 2, 0], np.int32)
    layout = Layout(network.shapes)
    before, after = np.empty(layout.size), np.empty(layout.size)
    batch = Batch(x, y, np.arange(4))
    network.loss_and_gradient(p, batch, layout.views(before), NO_SYNC)
    grad_cam(network, p, (x,), y, "relu")
    network.loss_and_gradient(p, batch, layout.views(after), NO_SYNC)
    assert before.tobytes() == after.tobytes()
