"""The unit of the gradient sum: which rows form it, and how a rank adds up those it holds.

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

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from lepton_mpi.collectives.summation_tree import EagerSum
from lepton_mpi.vectors import Layout


@dataclass(frozen=True)
class MicroBatches:
    """How a batch of ``batch_rows`` is cut into ``count`` micro-batches of ``rows``; the last may be shorter."""

    batch_rows: int
    rows: int

    @property
    def count(self) -> int:
        return -(-self.batch_rows // self.rows)

    def bounds(self, number: int, start: int, stop: int) -> tuple[int, int]:
        """Rows of micro-batch ``number`` of a step of rows [start, stop); equal numbers if it has none."""
        first = min(start + number * self.rows, stop)
        return first, min(first + self.rows, stop)

    def reads(
        self, numbers: list[int], rows: np.ndarray, steps: list[tuple[int, int]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of the micro-batches ``numbers`` of every step, in turn, each with the rows that follow them.

        >>> reads = MicroBatches(4, 2).reads([1], np.arange(7), [(0, 4), (4, 7)])
        >>> [(now.tolist(), then.tolist()) for now, then in reads]
        [([2, 3], [6]), ([6], [])]
        """
        bounds = (self.bounds(number, *step) for step in steps for number in numbers)
        each = (rows[start:stop] for start, stop in bounds)
        return pairwise(chain(each, [rows[:0]]))


class NodeSums:
    """Vectors for the gradients of this rank's micro-batches, and their sums, node by node.

    Parameters
    ----------
    layout : Layout
    nodes : list of (start, stop)
        Runs of micro-batches, one sum each.
    sums : list of arrays, shape (layout.size,)
        Where the sum of each node is to be.

    Attributes
    ----------
    numbers : list of int
        This rank's micro-batches.
    """

    def __init__(
        self, layout: Layout, nodes: list[tuple[int, int]], sums: list[np.ndarray]
    ) -> None:
        self._plan: list[tuple[int, int, list[np.ndarray], int, int]] = []
        extra: list[np.ndarray] = []
        for (start, stop), own in zip(nodes, sums, strict=True):
            tree, depth = EagerSum(range(start, stop)), 0
            for number in range(start, stop):
                merges = len(tree.arrive(number))
                while len(extra) < depth:
                    extra.append(np.zeros_like(own))
                self._plan.append((number, depth, [own, *extra[:depth]], merges, len(self._plan)))
                depth += 1 - merges
        self.numbers = [number for number, *_ in self._plan]
        self._views = [layout.views(vectors[depth]) for _, depth, vectors, _, _ in self._plan]

    def __iter__(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield (vector, named views of the vector) for each of ``numbers``; fill it before taking the next."""
        for _, depth, vectors, merges, index in self._plan:
            yield vectors[depth], self._views[index]
            for upper in range(depth, depth - merges, -1):
                np.add(vectors[upper - 1], vectors[upper], out=vectors[upper - 1])
