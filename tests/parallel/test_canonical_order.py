"""The sum of micro-batches has the bits of one fixed tree, whoever holds the leaves."""

import math
from time import sleep
from types import SimpleNamespace

import numpy as np
import pytest

from lepton_mpi.collectives.between_hosts.two_level_plan import TwoLevelPlan
from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.sliced_sum import make_sliced_sum
from lepton_mpi.collectives.within_host import plans as host_plans
from lepton_mpi.collectives.within_host.plans import HostPlan
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.strategies.overlapped_parameters import OverlappedParameters
from lepton_mpi.strategies.shared_parameters import SharedParameters
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.vectors import Layout
from tests.parallel.together import equal_everywhere, together

COUNT = 5003
SLICES = {"one": [(0, COUNT)], "two": [(2000, COUNT), (0, 2000)]}
slicings = pytest.mark.parametrize("slices", SLICES.values(), ids=SLICES.keys())
leaf_counts = pytest.mark.parametrize("leaf_count", [1, 2, 3, 5, 8, 13])
plans = pytest.mark.parametrize("plan", [HostPlan, TwoLevelPlan])
places = pytest.mark.parametrize("in_place", [False, True], ids=["out of place", "in place"])


def _canonical_sum(
    world, plan, leaf_count: int, slices, dtype=np.float32, in_place=False
) -> SimpleNamespace:
    """The parts of a sum in host memory, by one plan a slice."""
    if plan is HostPlan and world.host_count > 1:
        pytest.skip("the ranks are on several hosts")
    leaves = Leaves.spread(leaf_count, world.size)
    vectors = HostVectors(world, COUNT, dtype, "shared", leaves, in_place=in_place)
    return SimpleNamespace(
        nodes=leaves.nodes(world.place),
        inputs=vectors.inputs,
        result=vectors.result,
        slices=slices,
        plans=[plan(vectors, *each) for each in slices],
    )


def _leaves(leaf_count: int, run: int, dtype: str = "float32") -> np.ndarray:
    """Both signs, six orders of magnitude: any other order of additions gives other bits."""
    generator = np.random.default_rng([leaf_count, run])
    values = generator.standard_normal((leaf_count, COUNT))
    return (values * 10.0 ** generator.integers(-3, 4, (leaf_count, COUNT))).astype(dtype)


def _tree(vectors: list[np.ndarray]) -> np.ndarray:
    """Neighbours are added in pairs, level by level; one without a neighbour goes up unchanged."""
    while len(vectors) > 1:
        pairs = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        vectors = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return vectors[0]


def _run(world, sum_, leaves: np.ndarray) -> np.ndarray:
    """What a step does: fill one vector per node, then one plan after the other."""
    # A peer may still read a sum that is in the place of a contribution.
    world.host_barrier()
    for (start, stop), vector in zip(sum_.nodes, sum_.inputs, strict=True):
        vector[:] = _tree(list(leaves[start:stop]))
    result = np.full(COUNT, np.nan, leaves.dtype)
    for (start, stop), plan in zip(sum_.slices, sum_.plans, strict=True):
        plan.run()
        result[start:stop] = sum_.result[start:stop]
    return result


def test_the_reference_depends_on_the_order():
    leaves = list(_leaves(8, 0))
    chain = np.add.reduce(leaves, axis=0)
    assert not np.array_equal(_tree(leaves), chain)
    np.testing.assert_allclose(_tree(leaves), chain, rtol=1e-2, atol=1e-2)


@plans
@pytest.mark.parametrize("always", [False, True], ids=["tried", "always"])
def test_results_past_the_caches_have_the_same_bits(world, monkeypatch, plan, always):
    """Before, in and after the trial of both ways, and with one way only."""
    monkeypatch.setattr(host_plans, "TRIAL_BYTES", 0)
    monkeypatch.setattr(host_plans, "STREAM_BYTES", 0 if always else 1 << 60)
    sum_ = _canonical_sum(world, plan, 3, SLICES["two"])
    for run in range(25):
        leaves = _leaves(3, run)
        result = _run(world, sum_, leaves)
        with together(world):
            np.testing.assert_array_equal(result, _tree(list(leaves)))


@plans
@places
@slicings
@leaf_counts
def test_bits_of_the_tree(world, plan, slices, leaf_count, in_place):
    sum_ = _canonical_sum(world, plan, leaf_count, slices, in_place=in_place)
    results = [_run(world, sum_, _leaves(leaf_count, run)) for run in range(10)]
    with together(world):
        for run, result in enumerate(results):
            expected = _tree(list(_leaves(leaf_count, run)))
            assert result.tobytes() == expected.tobytes(), f"run {run}"


@plans
def test_bits_of_the_tree_in_float64(world, plan):
    sum_ = _canonical_sum(world, plan, 8, SLICES["two"], np.float64)
    result = _run(world, sum_, _leaves(8, 0, "float64"))
    with together(world):
        assert result.tobytes() == _tree(list(_leaves(8, 0, "float64"))).tobytes()


@slicings
@leaf_counts
def test_nodes_of_all_ranks_are_all_leaves_once(world, slices, leaf_count):
    sum_ = _canonical_sum(world, TwoLevelPlan, leaf_count, slices)
    runs = [run for nodes in world.comm.allgather(sum_.nodes) for run in nodes]
    with together(world):
        assert [leaf for start, stop in runs for leaf in range(start, stop)] == [*range(leaf_count)]
        assert len(sum_.inputs) == len(sum_.nodes)


@leaf_counts
@pytest.mark.parametrize("clip_norm", [math.inf, 1e30], ids=["fused", "in two phases"])
@pytest.mark.parametrize("slices", [None, *SLICES.values()], ids=["one host", *SLICES])
def test_an_update_has_the_bits_of_the_tree(world, slices, leaf_count, clip_norm):
    """From 0, one step of plain gradient descent with rate 1 leaves the negative sum."""
    if slices is None and world.host_count > 1:
        pytest.skip("for one host")
    common = (
        *(world, Layout({"a": (3, 1001), "b": (2000,)}), np.dtype(np.float32), leaf_count),
        *(Settings("sgd", lambda step: 1.0, momentum=0.0), clip_norm),
    )
    kind = OverlappedParameters if slices else SharedParameters
    strategy = kind(Setting(*common, slices or ()), Choice("", ""))
    wrong = []
    for run in range(5):
        leaves = _leaves(leaf_count, run)
        world.host_barrier()
        if world.local_rank == 0:
            strategy.parameters[:] = 0
        world.host_barrier()
        for share in strategy.shares(run + 1):
            share.vector[:] = leaves[share.number]
        strategy.step(run + 1, 1)
        strategy.finish()
        if strategy.parameters.tobytes() != (-_tree(list(leaves)) + 0).tobytes():
            wrong.append(run)
    with together(world):
        assert not wrong, f"runs {wrong}"


@pytest.mark.parametrize("slow_rank", [0, -1], ids=["the first", "the last"])
def test_a_gradient_is_kept_until_all_have_added_it(world, slow_rank):
    """Ranks whose next batch is empty write 0 over their gradients, while a slow one is still in the step before."""
    layout = Layout({"a": (1000,), "b": (2000,)})
    common = (
        *(world, layout, np.dtype(np.float32), world.size),
        *(Settings("sgd", lambda step: 1.0, momentum=0.0), math.inf, layout.buckets(700)),
    )
    strategy = OverlappedParameters(Setting(*common, is_asked=True), Choice("", ""))
    for share in strategy.shares(1):
        share.vector[:] = 1 + world.rank
        if world.rank == slow_rank % world.size:
            sleep(0.2)
    strategy.step(1, 1)
    for share in strategy.shares(2):
        share.vector[:] = 0
    strategy.step(2, 1)
    strategy.finish()
    with together(world):
        np.testing.assert_array_equal(strategy.parameters, -sum(range(1, world.size + 1)))


@pytest.mark.parametrize(
    "algorithm", ["ring", "recursive_doubling", "pairwise", "mpi", "mpi_persistent"]
)
@slicings
@leaf_counts
def test_other_algorithms_sum_the_same_leaves(world, algorithm, slices, leaf_count):
    """Whole numbers, so any order is exact; a rank without a leaf must add nothing, also the second time."""
    sum_ = make_sliced_sum(world, COUNT, np.dtype(np.float32), leaf_count, slices, algorithm, 4096)
    wrong = []
    for run in range(3):
        leaves = np.arange(COUNT) % 100 + 100.0 * np.arange(leaf_count)[:, None] + run
        result = _run(world, sum_, leaves.astype(np.float32))
        if not np.array_equal(result, leaves.sum(axis=0)):
            wrong.append(run)
    with together(world):
        assert not wrong, f"runs {wrong}"
    equal_everywhere(world, result.tobytes())
