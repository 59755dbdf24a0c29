"""Synchronised batch normalisation: several micro-batches are as one, on any split, and their gradients slopes of the summed loss."""

import threading

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.layers import channel_norm_kernels as kernels
from lepton_mpi.layers.batch_norm import BatchNorm, strips
from lepton_mpi.layers.compose import Residual, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.sync_batch_norm import SyncBatchNorm
from lepton_mpi.models.model import MicroBatch
from lepton_mpi.models.network import Network
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests import reference_images
from tests.serial.built_networks import MODELS, batch_of, network_of
from tests.serial.slopes import CLASSES, central_slopes, check_slopes, parameters_of
from tests.serial.slopes import batch_of as slopes_batch
from tests.serial.slopes import network_of as between_layers

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
relu = pytest.mark.parametrize("with_relu", [False, True], ids=["plain", "relu"])


class Ranks:
    """Exchanges of some threads, which meet as ranks do; each gets the sum in rank order."""

    def __init__(self, size: int, count: int) -> None:
        self.count, self._barrier, self._tables = count, threading.Barrier(size, timeout=60), {}

    def of(self, rank: int) -> "Ranks._Exchange":
        return self._Exchange(self, rank)

    class _Exchange:
        def __init__(self, ranks: "Ranks", rank: int) -> None:
            self.count, self._ranks, self._rank, self.shapes = ranks.count, ranks, rank, []

        def sum(self, table: np.ndarray) -> None:
            self.shapes.append(table.shape)
            tables, barrier = self._ranks._tables, self._ranks._barrier
            tables[self._rank] = table.copy()
            barrier.wait()
            table[...] = sum(tables[rank] for rank in sorted(tables))
            barrier.wait()


def _cut(batch: Batch, rows: list[int]) -> list[Batch]:
    ends = np.cumsum(rows)
    return [batch.part(stop - count, stop) for count, stop in zip(rows, ends, strict=True)]


def _on_ranks(make, vector, batch: Batch, rows: list[int], runs: list[range]):
    """Loss, the gradient of each micro-batch, and the shapes that each rank exchanged; ``runs`` are those of each rank."""
    parts, ranks = _cut(batch, rows), Ranks(len(runs), len(rows))
    layout = Layout(make().shapes)
    gradients = np.full((len(rows), layout.size), np.nan, vector.dtype)
    exchanges = [ranks.of(rank) for rank in range(len(runs))]
    losses: list[float] = [0.0] * len(runs)

    def compute(rank: int) -> None:
        mine = []
        for number in runs[rank]:
            if rows[number]:
                mine.append(MicroBatch(number, parts[number], layout.views(gradients[number])))
            else:
                gradients[number] = 0
        sums = make().loss_and_gradients(layout.views(vector), mine, exchanges[rank])
        losses[rank] = sums[0]

    threads = [threading.Thread(target=compute, args=(rank,)) for rank in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return sum(losses), gradients, [exchange.shapes for exchange in exchanges]


def _random(seed: int, *shape: int, dtype=np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@dtypes
@relu
@pytest.mark.parametrize(("places", "channels"), [(0, 3), (1, 1), (5, 3), (91, 12), (3, 300), (2500, 8)])  # fmt: skip
def test_kernels_match_their_twins(dtype, with_relu, places, channels):
    """Moments, sums, and grad_x by means that are not those of x itself."""
    x, slope = (_random(s, places * channels, dtype=dtype) for s in (1, 2))
    weight, bias = (_random(s, channels, dtype=dtype) for s in (3, 4))
    memory = strips(channels)
    wide, totals = np.full(memory["wide"].shape, np.nan, dtype), np.full((2, channels), np.nan)
    statistics = np.stack([_random(5, channels), _random(6, channels) ** 2 + 0.5]).astype(dtype)
    given = statistics, weight, bias, 1e-5, with_relu
    means, twin = _random(7, 2, channels), reference_images
    cases = [
        (kernels.batch_moments, twin.batch_moments, (x, wide, totals), np.full((2, channels), np.nan)),
        (kernels.gradient_sums, twin.gradient_sums, (x, *given, wide, slope), np.full((2, channels), np.nan)),
        (kernels.gradient_by, twin.gradient_by, (x, *given, means, wide, slope), np.full_like(x, np.nan)),
    ]  # fmt: skip
    for kernel, exact_kernel, arguments, out in cases:
        exact = out.copy()
        kernel(*arguments, out)
        exact_kernel(*arguments, exact)
        assert not np.isnan(out).any(), "a part of the output was not filled"
        tolerance = (64 + places) * np.finfo(dtype).eps * max(1, np.abs(exact).max(initial=0))
        np.testing.assert_allclose(out, exact, rtol=0, atol=tolerance)


PARTS = {
    "plain": (lambda norm: norm(), (5, 4, 3)),
    "relu": (lambda norm: norm(relu=True), (5,)),
    "one channel": (lambda norm: norm(relu=True), (3, 1)),
    "momentum": (lambda norm: norm(momentum=0.5, epsilon=0.1), (4,)),
    "residual": (
        lambda norm: Residual(Sequential([Dense(4), norm(), Dense(4), norm(True)])),
        (4,),
    ),
}
# Rows of each micro-batch: one is empty, and one has a single row.
ROWS = [3, 0, 4, 1]
SPLITS = [[range(4)], [range(2), range(2, 4)], [range(1), range(1, 2), range(2, 4)], [range(1), range(1, 2), range(2, 3), range(3, 4), range(0)]]  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_gradients_of_one_micro_batch_are_slopes(name, rows):
    """Which is then all there is."""
    make, shape = PARTS[name]
    check_slopes(between_layers(make(SyncBatchNorm), shape), rows, 60)


@pytest.mark.parametrize("name", PARTS)
def test_micro_batches_are_as_one(name):
    """Loss, the sum of the gradients and of the running statistics: those of plain batch normalisation over all rows at once."""
    make, shape = PARTS[name]
    whole, split = (between_layers(make(norm), shape) for norm in (BatchNorm, SyncBatchNorm))
    assert whole.shapes == split.shapes and whole.averaged == split.averaged
    (layout, vector), batch = parameters_of(whole), slopes_batch(whole, sum(ROWS))
    exact = np.full(layout.size, np.nan)
    views = layout.views(vector), batch, layout.views(exact)
    loss, _ = whole.loss_and_gradient(*views, NO_SYNC)
    found, gradients, _ = _on_ranks(lambda: split, vector, batch, ROWS, [range(4)])
    np.testing.assert_allclose(found, loss, rtol=1e-12)
    scale = np.abs(exact).max()
    np.testing.assert_allclose(gradients.sum(axis=0), exact, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("name", PARTS)
def test_gradients_of_several_are_the_slopes_of_the_summed_loss(name):
    """Central differences of fourth order in float64, to 1e-6 of the largest."""
    make, shape = PARTS[name]
    network = between_layers(make(SyncBatchNorm), shape)
    (layout, vector), batch = parameters_of(network), slopes_batch(network, sum(ROWS))

    def loss(moved: np.ndarray) -> tuple[float, np.ndarray]:
        summed, gradients, _ = _on_ranks(lambda: network, moved, batch, ROWS, [range(4)])
        return summed, gradients.sum(axis=0)

    gradient = loss(vector)[1]
    numbers = layout.views(np.arange(layout.size))
    trained = [numbers[key].reshape(-1) for key in network.shapes if key not in network.averaged]
    which = np.random.default_rng(0).permutation(np.concatenate(trained))[:40]
    slopes = central_slopes(lambda moved: loss(moved)[0], vector, which)
    np.testing.assert_allclose(gradient[which], slopes, rtol=0, atol=1e-6 * np.abs(slopes).max())


@dtypes
@pytest.mark.parametrize("runs", SPLITS[1:], ids=[f"{len(runs)} ranks" for runs in SPLITS[1:]])
def test_no_bit_depends_on_who_computes_what(dtype, runs):
    """Every rank meets the others as often, also one whose micro-batch is empty, and one that has none."""

    def make() -> Network:
        return between_layers(PARTS["residual"][0](SyncBatchNorm), (4,))

    vector = parameters_of(make())[1].astype(dtype)
    batch = slopes_batch(make(), sum(ROWS), dtype)
    _, alone, (shapes,) = _on_ranks(make, vector, batch, ROWS, SPLITS[0])
    _, gradients, exchanged = _on_ranks(make, vector, batch, ROWS, runs)
    assert gradients.tobytes() == alone.tobytes()
    assert exchanged == [shapes] * len(runs) and len(shapes) == 4


class _Negative(SyncBatchNorm):
    """Tells -0 where it has 0."""

    def tell_backward(self, p, at, when, part):
        super().tell_backward(p, at, when, part)
        part[part == 0] = -0.0


def test_no_rank_tells_a_negative_zero():
    """Plus another rank's 0 it would be 0, and alone stay what it is."""
    told = []

    class Listening:
        count = 2

        def sum(self, table: np.ndarray) -> None:
            told.append(table.copy())

    network = between_layers(Sequential([_Negative(True)]), (4,))
    (layout, vector), batch = parameters_of(network), slopes_batch(network, 1)
    gradient = layout.views(np.zeros(layout.size))
    parts = [MicroBatch(0, batch, gradient)]
    network.loss_and_gradients(layout.views(vector), parts, Listening())
    zeros = np.concatenate([table[table == 0] for table in told])
    assert len(told) == 2 and len(zeros) and not np.signbit(zeros).any()


@pytest.mark.parametrize("options", [{"recompute": 1}, {"activations": "bfloat16"}], ids=str)
@pytest.mark.parametrize("name", ["resnet8", "tcn", "speech_cnn", "cnn", "wide_and_deep"])
def test_memory_may_be_saved(name, options):
    """The bits with recomputation are those without; rounded activations leave the loss, and running statistics."""
    own = {"model": MODELS[name][1] | {"norm": "sync_batch"}}
    results = []
    for more in ({}, options):
        network, facts = network_of(name, own=own, **more)
        assert network.synchronised
        layout, batch = Layout(network.shapes), batch_of(facts)
        vector = np.zeros(layout.size, np.float32)
        network.initialise(layout.views(vector), 1)
        ready = network
        results.append(_on_ranks(lambda made=ready: made, vector, batch, [2, 4], [range(2)]))
    (loss, plain, _), (again, saved, _) = results
    assert loss == again
    if "recompute" in options:
        assert plain.tobytes() == saved.tobytes()
    distance = np.linalg.norm(plain.sum(axis=0) - saved.sum(axis=0))
    assert distance < 2.0**-7 * np.linalg.norm(plain.sum(axis=0))


def test_the_loss_curve_is_that_of_the_whole_batch():
    """50 steps of gradient descent in float32: micro-batches of 4, 4 and 2 rows against one of 10, to 1e-5 of each loss."""
    curves = []
    for norm, rows in ((BatchNorm, [10]), (SyncBatchNorm, [4, 4, 2])):
        body = Sequential([Dense(6), norm(True), Dense(6), norm(True), Dense(CLASSES)])
        network = between_layers(body, (6,))
        (layout, vector), curve = parameters_of(network), []
        vector = vector.astype(np.float32)
        for step in range(50):
            whole = slopes_batch(network, 10, np.float32)
            x = whole.x + np.float32(0.3) * _random(step, *whole.x.shape, dtype=np.float32)
            batch = whole._replace(x=x)
            if norm is BatchNorm:
                gradient = np.zeros_like(vector)
                views = layout.views(vector), batch, layout.views(gradient)
                loss = network.loss_and_gradient(*views, NO_SYNC)[0]
            else:
                made = network
                loss, parts, _ = _on_ranks(lambda made=made: made, vector, batch, rows, [range(3)])
                gradient = parts.sum(axis=0)
            for name, view in layout.views(vector).items():
                part = layout.views(gradient)[name]
                view += (0.1 * (part / 10 - view)) if name in network.averaged else -0.02 * part
            curve.append(loss)
        curves.append(curve)
    assert curves[0][-1] < 0.5 * curves[0][0], "hardly anything was learnt"
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)


def test_evaluation_goes_by_the_running_statistics():
    """Alone, with the bits of plain batch normalisation."""
    plain, sync = (between_layers(norm(relu=True), (4, 3)) for norm in (BatchNorm, SyncBatchNorm))
    (layout, vector), batch = parameters_of(plain), slopes_batch(plain, 5)
    outputs = np.empty((2, 5, CLASSES))
    for network, out in zip((plain, sync), outputs, strict=True):
        network.predict(layout.views(vector), batch, out)
    assert outputs[0].tobytes() == outputs[1].tobytes()
