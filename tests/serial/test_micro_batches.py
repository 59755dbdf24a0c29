"""A rank's gradients: their sums node by node, and the news of buckets that are complete."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.collectives.summation_tree import additions, whole_nodes
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.vectors import Layout

LAYOUT = Layout({"a": (3, 2), "b": (4,), "none": (0,), "c": (2, 2), "d": (1,)})
BUCKETS = LAYOUT.buckets(5)


class _Follower:
    """Notes what it is told, and what the sums hold in a bucket at that moment."""

    awaits = False

    def __init__(self, sums: list[np.ndarray]) -> None:
        self.sums, self.begun, self.seen = sums, 0, []

    def need(self, name: str) -> None:
        raise AssertionError("nothing is awaited")

    def begin(self) -> None:
        self.begun, self.seen = self.begun + 1, []

    def ready(self, bucket: int) -> None:
        self.seen.append([row[slice(*BUCKETS[bucket])].copy() for row in self.sums])


def _leaf(number: int, round_: int) -> np.ndarray:
    return np.random.default_rng([number, round_]).standard_normal(LAYOUT.size)


def _expected(nodes, round_: int) -> list[np.ndarray]:
    """The sum of every node by the tree of all micro-batches."""
    sums = []
    for start, stop in nodes:
        held = {number: _leaf(number, round_) for number in range(start, stop)}
        for left, right in additions(range(start, stop)):
            held[left] = held[left] + held[right]
        sums.append(held[start])
    return sums


@given(
    count=st.integers(1, 13),
    data=st.data(),
    told=st.lists(st.sampled_from(list(LAYOUT.shapes)), unique=True),
)
def test_buckets_are_reported_in_order_with_their_sums_complete(count, data, told):
    """Whatever the model tells, in whatever order; twice, and also on a rank without micro-batches."""
    start = data.draw(st.integers(0, count))
    nodes = whole_nodes(start, data.draw(st.integers(start, count)), count)
    sums = [np.full(LAYOUT.size, np.nan) for _ in nodes]
    follower = _Follower(sums)
    node_sums = NodeSums(LAYOUT, nodes, sums, BUCKETS, follower)
    for round_ in range(2):
        for share in node_sums.shares():
            is_last = share.number == node_sums.numbers[-1]
            assert share.sync.follows == is_last
            leaf, views = LAYOUT.views(_leaf(share.number, round_)), share.gradient
            for name in [*told, *(name for name in views if name not in told)]:
                views[name][...] = leaf[name]
                if name in told:
                    share.sync.done(name)
            assert is_last or not follower.seen
        for mine, exact in zip(sums, _expected(nodes, round_), strict=True):
            np.testing.assert_array_equal(mine, exact)
        assert follower.begun == round_ + 1
        assert len(follower.seen) == len(BUCKETS)
        for bucket, seen in zip(BUCKETS, follower.seen, strict=True):
            for mine, exact in zip(seen, _expected(nodes, round_), strict=True):
                np.testing.assert_array_equal(mine, exact[slice(*bucket)])


@pytest.mark.parametrize("run", [(0, 4), (1, 4), (2, 3)])
def test_a_bucket_is_reported_before_the_rest_is_filled(run):
    """The last layer's, while the first is still unknown: that is what it is good for."""
    nodes = whole_nodes(*run, 4)
    sums = [np.zeros(LAYOUT.size) for _ in nodes]
    follower = _Follower(sums)
    node_sums = NodeSums(LAYOUT, nodes, sums, BUCKETS, follower)
    for share in node_sums.shares():
        share.vector[:] = share.number
        if share.number == run[1] - 1:
            share.sync.done("d")
            assert not follower.seen, "c belongs to the same bucket"
            share.sync.done("c")
            assert len(follower.seen) == 1
            share.sync.done("b")
            share.sync.done("a", 1, 6)
            assert len(follower.seen) == 3, "of a the elements from 3 on are the next bucket"
    assert len(follower.seen) == len(BUCKETS) == 4
