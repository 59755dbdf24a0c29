"""How a rank adds up the gradients of the micro-batches it holds; which rows form one is said in ``data/order.py``.

A step's global batch is a fixed number of micro-batches, whatever the number of ranks, and the sum of
their gradients runs along one fixed tree (``collectives/summation_tree.py``). A rank holds a contiguous run
of micro-batches; it computes them one after the other and adds two whenever they form a node:

    micro-batch   0     1     2     3          vectors in use
    after 0       [0]                          1
    after 1       [0+1]                        2, then 1 again
    after 3       [(0+1) + (2+3)]              3, then 1 again

so a run of k needs about log2 k vectors beside its own. With fewer rows than a full batch some of the last
micro-batches are empty; their gradient is 0, and they stay in the tree.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from lepton_mpi.collectives.summation_tree import EagerSum
from lepton_mpi.strategies.strategy import Share
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout


class Follower(Protocol):
    """What goes on with gradients while a step computes the rest of them.

    Attributes
    ----------
    awaits : bool
        Whether a model has to call ``need`` before it reads a parameter.
    """

    awaits: bool

    def need(self, name: str) -> None:
        """Return once this parameter is that after the last step."""

    def begin(self) -> None:
        """A step begins."""

    def ready(self, bucket: int) -> None:
        """All of this rank's sums are complete in ``bucket``; called for every bucket, in order."""


class NodeSums:
    """Vectors for the gradients of this rank's micro-batches, and their sums, node by node.

    Parameters
    ----------
    layout : Layout
    nodes : list of (start, stop)
        Runs of micro-batches, one sum each.
    sums : list of arrays, shape (layout.size,)
        Where the sum of each node is to be.
    buckets : list of (start, stop)
        Slices of the vectors.
    follower : optional
        Its ``begin()`` is called before the first vector, and its ``ready(number)`` for each bucket, in order, as soon as
        all sums are complete in it: of the last vector the model tells which parameters are (``Sync.done``), and
        what it does not tell is complete when it returns.

    Attributes
    ----------
    numbers : list of int
        This rank's micro-batches.
    extra_count : int
        Vectors that it has made beside ``sums``.
    """

    def __init__(
        self,
        layout: Layout,
        nodes: list[tuple[int, int]],
        sums: list[np.ndarray],
        buckets: Sequence[tuple[int, int]] = (),
        follower: Follower | None = None,
    ) -> None:
        plan: list[tuple[list[np.ndarray], int]] = []
        extra: list[np.ndarray] = []
        for (start, stop), own in zip(nodes, sums, strict=True):
            tree, depth = EagerSum(range(start, stop)), 0
            for number in range(start, stop):
                merges = len(tree.arrive(number))
                while len(extra) < depth:
                    extra.append(np.zeros_like(own))
                # The vector to be filled is the last; as many are then added to the one before them.
                plan.append(([own, *extra[:depth]], merges))
                depth += 1 - merges
        self.numbers = [number for start, stop in nodes for number in range(start, stop)]
        self._plan, self.extra_count = plan, len(extra)
        self._shares = [
            self._share(number, vectors[-1], layout, follower)
            for number, (vectors, _) in zip(self.numbers, plan, strict=True)
        ]
        self._merges = any(merges for _, merges in self._plan)
        self._follower, self._buckets = follower, list(buckets)
        self._bounds = dict(zip(layout.shapes, layout.bounds, strict=True))
        self._buckets_of = buckets_of(layout, buckets)
        # Elements of each bucket that nobody has told of.
        self._missing: list[int] = []
        self._next = 0

    def _share(
        self, number: int, vector: np.ndarray, layout: Layout, follower: Follower | None
    ) -> Share:
        """Of the last micro-batch the model tells what is done: only then sums can be complete."""
        sync = NO_SYNC
        if follower:
            done = self._done if number == self.numbers[-1] else NO_SYNC.done
            sync = _Following(follower, done, follows=number == self.numbers[-1])
        return Share(number, vector, layout.views(vector), sync)

    def shares(self) -> Iterable[Share]:
        """A share for each of ``numbers``; fill it before taking the next."""
        return self._filled_in_turn() if self._follower or self._merges else self._shares

    def _filled_in_turn(self) -> Iterator[Share]:
        self._missing = [stop - start for start, stop in self._buckets]
        self._next = 0
        if self._follower:
            self._follower.begin()
        for position, (share, (vectors, merges)) in enumerate(
            zip(self._shares, self._plan, strict=True)
        ):
            yield share
            if not self._follower or position < len(self._plan) - 1:
                _merge(vectors, merges, slice(None))
        if self._follower:
            self._advance(len(self._buckets))

    def _done(self, name: str, start: int = 0, stop: int | None = None) -> None:
        first, end = self._bounds[name]
        first, end = first + start, end if stop is None else first + stop
        for number in self._buckets_of[name]:
            bucket = self._buckets[number]
            self._missing[number] -= max(0, min(end, bucket[1]) - max(first, bucket[0]))
        complete = self._next
        while complete < len(self._missing) and self._missing[complete] <= 0:
            complete += 1
        self._advance(complete)

    def _advance(self, stop: int) -> None:
        """Buckets before ``stop`` are complete."""
        for number in range(self._next, stop):
            if self._plan:
                vectors, merges = self._plan[-1]
                _merge(vectors, merges, slice(*self._buckets[number]))
            self._next = number + 1
            if self._follower:
                self._follower.ready(number)


def sums_of_run(layout: Layout, bounds: Sequence[int], place: int, vector: np.ndarray) -> NodeSums:
    """Of micro-batches [bounds[place], bounds[place + 1]), added up in ``vector``; of none, if there are none."""
    runs = [(bounds[place], bounds[place + 1])] if bounds[place] < bounds[place + 1] else []
    return NodeSums(layout, runs, [vector] * len(runs))


class _Following:
    """The ``Sync`` of a micro-batch for a follower."""

    def __init__(self, follower: Follower, done: Callable[..., None], follows: bool) -> None:
        self.awaits, self.follows = follower.awaits, follows
        self.need, self.done = follower.need, done


def buckets_of(layout: Layout, buckets: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    """In which buckets, (start, stop), each parameter has elements."""
    return {
        name: [
            number
            for number, bucket in enumerate(buckets)
            if max(start, bucket[0]) < min(stop, bucket[1])
        ]
        for name, (start, stop) in zip(layout.shapes, layout.bounds, strict=True)
    }


def _merge(vectors: list[np.ndarray], merges: int, part: slice) -> None:
    for upper in range(len(vectors) - 1, len(vectors) - 1 - merges, -1):
        np.add(vectors[upper - 1][part], vectors[upper][part], out=vectors[upper - 1][part])
