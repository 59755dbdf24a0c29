"""Networks: plans of random graphs, what they promise about memory, recomputation, shared parameters and ``Sync``."""

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.bound import Bound, Room, make_arena, make_lasting
from lepton_mpi.layers.compose import (
    From,
    Graph,
    Identity,
    Parallel,
    Reshape,
    Residual,
    Sequential,
    Sum,
    Tied,
)
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.initial import zeros
from lepton_mpi.layers.layer import Layer, Memory, Parameter, When
from lepton_mpi.layers.losses import CrossEntropy, SquaredError
from lepton_mpi.layers.packing import pack
from lepton_mpi.layers.plan import make_plan
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.models.network import Network
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout

ROWS, WIDTH = 3, 4
DOUBLE = np.dtype(np.float64)


class Scale(Layer):
    """``x * scale``: its own memory of every kind, and a parameter that may be tied."""

    needs_out = True
    rounding = 0.0  # that of what is kept

    def parameters(self, x):
        return {"scale": Parameter(x.shape[-1:], zeros)}

    def out_shape(self, x):
        return x.shape

    def memory(self, rows, x):
        shape = (rows, *x.shape)
        kinds = ("kept", "scratch", "backward", "grad_x", "plan")
        return {kind: Memory(shape, kind) for kind in kinds}

    def forward(self, p, at, when):
        assert not at.memory.keys() & {"backward", "grad_x"}
        at.memory["kept"][...] = at.x
        at.memory["scratch"][...] = p["scale"] + 1
        at.memory["plan"][...] += when.training
        np.multiply(at.x, at.memory["scratch"], out=at.out)

    def backward(self, p, at, grad, when):
        assert at.x.shape == at.grad_out.shape
        exact = at.memory["kept"] * (p["scale"] + 1)
        np.testing.assert_allclose(at.out, exact, rtol=self.rounding, atol=0)
        at.memory["backward"][...] = at.grad_out * at.memory["kept"]
        grad["scale"][...] = at.memory["backward"].reshape(-1, len(grad["scale"])).sum(axis=0)
        if at.grad_x is not None:
            at.memory["grad_x"][...] = p["scale"] + 1
            np.multiply(at.grad_out, at.memory["grad_x"], out=at.grad_x)


def _shared() -> list[Layer]:
    return [Dense(WIDTH, "tanh"), Scale()]


@st.composite
def parts(draw, depth: int = 2, shared: list[Layer] | None = None):
    """Parts that keep the shape of a row, (WIDTH,); some use a layer that others use, too."""
    plain = {
        "dense": lambda: Dense(WIDTH, draw(st.sampled_from([None, "relu", "gelu"]))),
        "activation": lambda: Activation(draw(st.sampled_from(["relu", "tanh"]))),
        "dropout": lambda: Dropout(0.3),
        "scale": Scale,
        "identity": Identity,
        "shape": lambda: Sequential([Reshape(2, 2), Activation("relu"), Reshape()]),
        "shared": lambda: draw(st.sampled_from(shared)) if shared else Scale(),
    }
    below = parts(depth - 1, shared)
    composed = {
        "sequence": lambda: Sequential(draw(st.lists(below, max_size=3))),
        "residual": lambda: Residual(draw(below)),
        "shortcut": lambda: Residual(draw(below), draw(below)),
        "sum": lambda: Parallel(draw(st.lists(below, min_size=1, max_size=3)), Sum()),
        "beside": lambda: Sequential([Parallel([draw(below), draw(below)]), Dense(WIDTH)]),
        "from": lambda: Parallel([Identity(), From("more", Dense(WIDTH))], Sum()),
    }
    names = [*plain, *(composed if depth else ())]
    return (plain | composed)[draw(st.sampled_from(names))]()


@st.composite
def graphs(draw) -> Graph:
    """Two inputs, any parts, classes or targets."""
    shared = _shared()
    body = [Dense(WIDTH), *draw(st.lists(parts(2, shared), max_size=5)), *shared, Dense(3)]
    inputs = {"x": Input("numbers", (2,)), "more": Input("numbers", (5,))}
    if not draw(st.booleans()):
        body[0] = Parallel([Dense(WIDTH), From("more", Dense(WIDTH))], Sum())
    return Graph(Sequential(body), inputs, draw(st.sampled_from([CrossEntropy(), SquaredError()])))


class Run:
    """One training step of a graph, call by call."""

    def __init__(self, graph: Graph, recompute: int = 0, packs: bool = False) -> None:
        self.graph, self.plan = graph, make_plan(graph, ROWS, DOUBLE, recompute=recompute)
        self.plan = pack(self.plan) if packs else self.plan
        self.layout = Layout({name: p.shape for name, p in graph.parameters.items()})
        generator = np.random.default_rng(0)
        self.parameters = self.layout.views(generator.standard_normal(self.layout.size) / 2)
        self.gradient = np.full(self.layout.size, np.nan)
        self.inputs = tuple(generator.standard_normal((ROWS, *x.shape)) for x in graph.values[:2])
        targets = generator.standard_normal((ROWS, 3))
        is_class = isinstance(graph.head.layer, CrossEntropy)
        self.y = np.array([0, 2, 1], np.int32) if is_class else targets
        self.arena = make_arena(self.plan.arena_bytes)
        views = self.layout.views(self.gradient)
        room = Room(self.arena, make_lasting(self.plan))
        self.bound = Bound(graph, self.plan, room, self.parameters, views)

    def loss(self, poison: bool = False) -> float:
        """Fill the gradient; with ``poison`` every byte of the arena that nothing lives in is NaN before each call."""
        self.bound.take(self.inputs, None)
        when, sums = When(True, 7, np.arange(ROWS)), (np.nan, np.nan)
        calls = [*self.bound.before, None, *self.bound.after]
        for number, step in enumerate(calls):
            if poison:
                self._poison(number)
            if step is None:
                sums = self.bound.loss_and_gradient(self.y)
            else:
                step.run(when)
        return sums[0]

    def _poison(self, call: int) -> None:
        """What is filled by the call itself counts as dead before it."""
        alive = np.zeros(self.arena.size, bool)
        for buffer in self.plan.buffers.values():
            if buffer.first < call <= buffer.last:
                alive[buffer.offset : buffer.offset + buffer.byte_count] = True
        self.arena[~alive] = 255  # NaN in any float, -1 in whole numbers


@settings(max_examples=60)
@given(graph=graphs(), recompute=st.integers(0, 3))
def test_no_two_arrays_that_live_at_once_share_memory(graph, recompute):
    """And all lie within the arena, at cache lines; packed ones, too."""
    plans = [make_plan(graph, ROWS, DOUBLE, training, recompute) for training in (True, False)]
    for plan in (*plans, pack(make_plan(graph, ROWS, DOUBLE))):
        for a, b in combinations(plan.buffers.values(), 2):
            if a.first <= b.last and b.first <= a.last:
                ends = a.offset + a.byte_count, b.offset + b.byte_count
                assert ends[0] <= b.offset or ends[1] <= a.offset, (a, b)
        for buffer in plan.buffers.values():
            assert buffer.offset % 64 == 0
            assert buffer.offset + buffer.byte_count <= plan.arena_bytes


@pytest.mark.slow
@settings(max_examples=60)
@given(graph=graphs(), recompute=st.integers(0, 3))
def test_dead_memory_decides_nothing_and_recomputation_changes_no_bit(graph, recompute):
    """Whatever is not said to live is NaN; the gradient is that of a plan that keeps and shares as it likes."""
    plain, run = Run(graph), Run(graph, recompute)
    loss = plain.loss()
    assert np.isfinite(plain.gradient).all()
    for poison in (True, False, True):
        run.gradient[:] = np.nan
        assert run.loss(poison) == loss
        assert run.gradient.tobytes() == plain.gradient.tobytes()


@pytest.mark.slow
@settings(max_examples=60)
@given(graph=graphs())
def test_packed_plans_round_what_is_kept_and_nothing_else(graph):
    """Whatever is not said to live is NaN; the loss has the bits of a plan that packs nothing, the gradient those of no poison."""
    plain = Run(graph)
    loss = plain.loss()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Scale, "rounding", 2.0**-8)
        run = Run(graph, packs=True)
        gradients = []
        for poison in (False, True, True):
            run.gradient[:] = np.nan
            assert run.loss(poison) == loss
            gradients.append(run.gradient.copy())
    assert gradients[0].tobytes() == gradients[1].tobytes() == gradients[2].tobytes()
    distance = np.linalg.norm(gradients[0] - plain.gradient)
    assert distance <= 0.05 * np.linalg.norm(plain.gradient) + 1e-12


@settings(max_examples=25)
@given(graph=graphs(), recompute=st.integers(0, 2))
def test_gradients_of_any_graph_are_slopes(graph, recompute):
    """In a random direction: residual and parallel branches, shared and tied parameters."""
    run = Run(graph, recompute)
    run.loss()
    gradient, vector = (
        run.gradient.copy(),
        np.concatenate([a.reshape(-1) for a in run.parameters.values()]),
    )
    direction, losses = np.random.default_rng(1).standard_normal(vector.size), []
    for shift in (-2e-6, -1e-6, 1e-6, 2e-6):
        for name, view in run.layout.views(vector + shift * direction).items():
            run.parameters[name][...] = view
        losses.append(run.loss())
    slope = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / 12e-6
    scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
    # A ReLU's kink within the step is rare, and leaves no more than this.
    assert abs(slope - gradient @ direction) <= 1e-6 * scale + 1e-7


def _deep(count: int, recompute: int = 0) -> Network:
    body = [Dense(32, "gelu"), *(Residual(Dense(32, "tanh")) for _ in range(count)), Dense(3)]
    return Network(
        "deep", Sequential(body), {"x": Input("numbers", (8,))}, CrossEntropy(), recompute
    )


def test_recomputation_halves_the_memory_of_a_deep_network():
    """Every fourth block of 24; it costs no more than a second forward pass."""
    graph = _deep(24)._graph
    kept, less = (make_plan(graph, 256, DOUBLE, recompute=every) for every in (0, 4))
    assert less.byte_count < 0.5 * kept.byte_count
    forward = sum(call.does == "forward" for call in kept.calls)
    assert len(kept.calls) < len(less.calls) < len(kept.calls) + forward


def test_the_plan_is_printed_before_the_first_step():
    """Every array with its shape and calls, and what all take together: exactly what is then taken."""
    network = _deep(2)
    *lines, last = network.memory_lines(16, DOUBLE)
    assert "layer1/body/slope: 16x32 float64, 4 KiB, calls 1 to 10" in lines
    plan = make_plan(network._graph, 16, DOUBLE)
    assert re.fullmatch(r"16 rows: \d+ arrays in .* without reuse, \d+ calls", last)
    layout, batch = _step(network, 16)
    assert network._arenas[0].size == plan.arena_bytes
    alone = sum(buffer.byte_count for buffer in plan.buffers.values())
    assert plan.arena_bytes < 0.75 * alone, "memory is not used again"
    assert layout.size and batch.y.size


def _step(network, rows: int, sync=NO_SYNC, seed: int = 0, vectors: list | None = None):
    """One call with random parameters; ``vectors`` gets the gradient."""
    layout, generator = Layout(network.shapes), np.random.default_rng(seed)
    x = generator.standard_normal((rows, *network.inputs["x"].shape))
    batch = Batch(x, generator.integers(0, 3, rows).astype(np.int32), np.arange(rows), 5)
    parameters, gradient = np.empty(layout.size), np.full(layout.size, np.nan)
    network.initialise(layout.views(parameters), 0)
    sums = network.loss_and_gradient(layout.views(parameters), batch, layout.views(gradient), sync)
    if vectors is not None:
        vectors += [sums, gradient]
    return layout, batch


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "sigmoid", "silu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 9])
def test_dense_layers_give_the_bits_of_the_fused_stack(activation, dtype, rows):
    """Loss, correct rows, gradient, initial parameters, rows in place and not."""
    widths = (70, 33, 20, 3)
    layers = [*(Dense(k, activation) for k in widths[1:-1]), Dense(3)]
    network = Network("n", Sequential(layers), {"x": Input("numbers", (70,))}, CrossEntropy())
    stack = Mlp(widths, activation=activation)
    assert network.shapes == stack.shapes and network.reads_in_place
    layout, results = Layout(stack.shapes), []
    table = np.random.default_rng(1).standard_normal((30, 70)).astype(dtype)
    places, y = np.arange(rows) * 3 % 30, (np.arange(rows) % 3).astype(np.int32)
    for model in (network, stack):
        parameters, gradient = np.zeros(layout.size, dtype), np.full(layout.size, np.nan, dtype)
        model.initialise(layout.views(parameters), 4)
        views = layout.views(parameters), layout.views(gradient)
        for batch in (Batch(table, y, None, 0, places), Batch(table[places], y)):
            sums = model.loss_and_gradient(views[0], batch, views[1], NO_SYNC)
            outputs, predicted = np.empty((rows, 3), dtype), np.empty(rows, np.int32)
            loss = model.evaluate(views[0], batch, predicted)
            model.predict(views[0], batch, outputs)
            arrays = parameters, gradient, predicted, outputs
            results.append([sums, loss, *(array.tobytes() for array in arrays)])
    assert results[0] == results[1] == results[2] == results[3]


class Told:
    """What a model asked for and told, in order."""

    awaits = follows = True

    def __init__(self) -> None:
        self.needed: list[str] = []
        self.events: list[tuple[str, str]] = []

    def need(self, name: str) -> None:
        self.needed.append(name)
        self.events.append(("need", name))

    def done(self, name: str, start: int = 0, stop: int | None = None) -> None:
        self.events.append(("done", name))


def _tied() -> Network:
    """Its first and its last layer share a matrix, and two layers in between are one."""
    twice = Dense(6, "tanh")
    names = {"weight": "first/weight"}
    parts = {
        "first": Dense(6),
        "a": twice,
        "b": twice,
        "last": Tied(Dense(6), names),
        "out": Dense(3),
    }
    return Network("tied", Sequential(parts), {"x": Input("numbers", (6,))}, CrossEntropy())


def test_a_strategy_is_told_in_the_order_of_the_backward_pass():
    """Every parameter is asked for before it is read, and told of once, after the last part of its gradient."""
    network, told, vectors = _tied(), Told(), []
    _step(network, 5, told, vectors=vectors)
    _step(network, 5, vectors=vectors)
    assert vectors[0] == vectors[2] and vectors[1].tobytes() == vectors[3].tobytes()
    assert list(network.shapes) == [
        "first/weight",
        "first/bias",
        "a/weight",
        "a/bias",
        "last/bias",
        "out/weight",
        "out/bias",
    ]
    assert list(dict.fromkeys(told.needed)) == list(network.shapes)
    done = [name for what, name in told.events if what == "done"]
    assert done == [
        "out/weight",
        "out/bias",
        "last/bias",
        "a/weight",
        "a/bias",
        "first/weight",
        "first/bias",
    ]
    first_done = next(i for i, (what, _) in enumerate(told.events) if what == "done")
    assert all(what == "done" for what, _ in told.events[first_done:])


def test_inputs_are_read_by_name():
    """In the order in which the model has them, not the data."""
    inputs = {"more": Input("numbers", (2,)), "x": Input("numbers", (4,))}
    body = Sequential({"join": Parallel([From("x", Dense(3)), Dense(3)], Sum())})
    network = Network("two", body, inputs, SquaredError())
    assert not network.reads_in_place
    layout, generator = Layout(network.shapes), np.random.default_rng(2)
    x, more, y = (generator.standard_normal((5, k)) for k in (4, 2, 3))
    parameters, gradient = (layout.views(generator.standard_normal(layout.size)) for _ in range(2))
    batch = Batch(x, y, np.arange(5), named={"x": x, "more": more})
    network.loss_and_gradient(parameters, batch, gradient, NO_SYNC)
    weights = [f"join/branch{number}/weight" for number in range(2)]
    biases = sum(parameters[f"join/branch{number}/bias"] for number in range(2))
    error = x @ parameters[weights[0]] + more @ parameters[weights[1]] + biases - y
    for name, rows in zip(weights, (x, more), strict=True):
        np.testing.assert_allclose(gradient[name], 2 / 3 * rows.T @ error, rtol=1e-12)


def test_plans_of_other_row_counts_and_gradients_live_side_by_side():
    """In one arena, which grows; results do not depend on what was computed before."""
    network, alone = _deep(3), {}
    for rows in (1, 5, 64):
        alone[rows] = []
        _step(_deep(3), rows, vectors=alone[rows])
    for rows in (5, 64, 1, 5, 64):
        found = []
        _step(network, rows, vectors=found)
        assert found[0] == alone[rows][0] and found[1].tobytes() == alone[rows][1].tobytes()


def test_memory_of_a_plan_lasts():
    """Zeros before the first call, then what the last call left: as a cache of keys and values."""
    network = Network("s", Scale(), {"x": Input("numbers", (3,))}, CrossEntropy())
    layout, vector = Layout(network.shapes), np.ones(3)
    views = (
        layout.views(vector),
        Batch(np.ones((2, 3)), np.zeros(2, np.int32), np.arange(2)),
        layout.views(vector.copy()),
    )
    for _ in range(3):
        network.loss_and_gradient(*views, NO_SYNC)
    other = views[0], views[1], layout.views(vector.copy())
    network.loss_and_gradient(*other, NO_SYNC)
    (lasting,) = network._lasting.values()
    (array,) = lasting.values()
    assert (array == 4).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (Activation("relu"), "expected layers with parameters, got none"),
        (From("y", Dense(3)), "expected one of the inputs x, got 'y'"),
        (Sequential([Reshape(5), Dense(3)]), r"expected as many numbers as shape \(6,\) has, got \(5,\)"),
        (Sequential([Dense(6), Tied(Dense(2), {"weight": "layer0/weight"})]), r"layer1/weight: expected the shape of layer0/weight, \(6, 6\), got \(6, 2\)"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_are_refused(body, message):
    with pytest.raises(ConfigurationError, match=message):
        Network("n", body, {"x": Input("numbers", (6,))}, CrossEntropy())


def test_arrays_of_another_type_or_shape_are_refused():
    """Kernels take addresses for what they are said to be."""
    network = _deep(1)
    layout = Layout(network.shapes)
    good, wrong = (
        layout.views(np.zeros(layout.size)),
        layout.views(np.zeros(layout.size, np.float32)),
    )
    batch = Batch(np.zeros((2, 8)), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="layer0/weight: expected a contiguous array of float64"):
        network.loss_and_gradient(good, batch, wrong, NO_SYNC)
