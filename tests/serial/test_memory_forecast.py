"""What a run is predicted to take: of models by what Python's allocator sees, and of initial parameters that none is wasted on."""

import tracemalloc
from collections.abc import Callable
from math import pi

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from lepton_mpi.collectives.within_host.vectors import Leaves
from lepton_mpi.kernels import counter_random
from lepton_mpi.layers import initial
from lepton_mpi.models.gpt import Gpt, Shape
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout

SINGLE = np.dtype(np.float32)


def _peak_bytes(call) -> int:
    """Of what NumPy allocates meanwhile."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("evaluated", [0, 40, 3])
def test_a_network_takes_what_its_plans_say(evaluated):
    """One arena, which training and evaluation share; the rest is Python's own."""
    shape = Shape(context=64, vocabulary=50, layers=2, width=96, heads=3)
    _work(Gpt(shape), evaluated)()  # what kernels take when they are loaded is not meant
    model = Gpt(shape)
    batches = [(8, True), *([(evaluated, False)] if evaluated else [])]
    expected = model.memory_bytes(batches, SINGLE)
    assert expected == model.memory_bytes(reversed(batches), SINGLE)
    assert expected > 1 << 20
    assert expected <= _peak_bytes(_work(model, evaluated)) <= 1.05 * expected


def _work(model: Gpt, evaluated: int) -> Callable[[], None]:
    """A step on 8 rows, and an evaluation."""
    layout = Layout(model.shapes)
    parameters = layout.views(np.zeros(layout.size, SINGLE))
    gradient = layout.views(np.zeros(layout.size, SINGLE))
    model.initialise(parameters, 0)
    tokens = np.zeros((40, 64), np.int32)
    predicted = np.zeros_like(tokens)

    def work() -> None:
        model.loss_and_gradient(parameters, Batch(tokens[:8], tokens[:8]), gradient, NO_SYNC)
        if evaluated:
            batch = Batch(tokens[:evaluated], tokens[:evaluated])
            model.evaluate(parameters, batch, predicted[:evaluated])

    return work


def test_more_rows_in_evaluation_than_in_training_count():
    """The larger of both plans."""
    model = Gpt(Shape(context=16, vocabulary=50, layers=2, width=24, heads=3))
    trained, evaluated = (model.memory_bytes([each], SINGLE) for each in ((4, True), (200, False)))
    assert evaluated > trained
    assert model.memory_bytes([(4, True), (200, False)], SINGLE) == evaluated


@pytest.mark.parametrize(("activation", "per_hidden"), [("relu", 2), ("tanh", 3)])
def test_an_mlp_takes_outputs_slopes_and_gradients(activation, per_hidden):
    """Of each hidden layer; the loss works in place, and evaluation has no gradients. Every row count has its own."""
    model = Mlp((20, 30, 40, 10), activation=activation)
    trained = model.memory_bytes([(8, True)], SINGLE)
    hidden, scratch = 8 * 70 * per_hidden, trained // 4 - 8 * (70 * per_hidden + 10)
    assert trained == 4 * (hidden + 8 * 10 + scratch)
    assert 0 <= scratch <= 2 * 40 * 40
    evaluated = 4 * (100 * 70 * (per_hidden - 1) + 100 * 10)
    assert model.memory_bytes([(100, False)], SINGLE) == evaluated
    assert model.memory_bytes([(8, True), (100, False)], SINGLE) == trained + evaluated
    assert model.memory_bytes([(8, True), (8, False)], SINGLE) == trained


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_sums_on_their_way_are_counted(count):
    """As many vectors as are made beside those that are handed over: none of 1, 1 of 2, 2 of 4."""
    layout = Layout({"w": (1000,)})
    leaves = Leaves.spread(count, 1)
    sums = [np.zeros(1000, SINGLE) for _ in leaves.nodes(0)]
    made: list[NodeSums] = []
    peak = _peak_bytes(lambda: made.append(NodeSums(layout, leaves.nodes(0), sums)))
    assert made[0].extra_count == count.bit_length() - 1
    assert made[0].extra_count * 4000 <= peak < made[0].extra_count * 4000 + 20_000


SIZES = [1, 2, 5, (1 << 16) - 1, 1 << 16, (1 << 17) + 3, (1 << 18) + 1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_initial_values_do_not_depend_on_how_many_are_made_at_a_time(size, dtype):
    """Uniform and normal ones, by their formulas, of all numbers at once; also in memory that is not in one piece."""
    numbers = counter_random.uniform(3, 14, 2 * -(-size // 2))
    half = len(numbers) // 2
    radius, angle = np.sqrt(-2 * np.log1p(-numbers[:half])), 2 * pi * numbers[half:]
    pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
    expected = {
        initial.uniform(0.25): 0.25 * (2 * numbers[:size] - 1),
        initial.normal(0.02): 0.02 * pairs,
    }
    for fill, values in expected.items():
        array, wide = np.zeros(size, dtype), np.zeros((size, 2), dtype)
        fill(array, 3, 4)
        fill(wide[:, 0], 3, 4)
        np.testing.assert_array_equal(array, values.astype(dtype))
        np.testing.assert_array_equal(wide[:, 0], array)
        assert not wide[:, 1].any()


@pytest.mark.parametrize("fill", [initial.glorot_uniform, initial.he_uniform, initial.normal(0.1)])
def test_initial_values_of_a_large_matrix_take_little_memory(fill):
    """A few megabytes, where all numbers at once would take several times the matrix."""
    array = np.zeros((2000, 2000), SINGLE)
    assert _peak_bytes(lambda: fill(array, 0, 0)) < 6 << 20
    assert abs(array.mean()) < 1e-3
    assert array.std() > 0.01
