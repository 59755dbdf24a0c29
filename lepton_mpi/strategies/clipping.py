"""Clipping by the norm of the whole gradient, the same on any number of ranks.

The squares are added up in blocks of fixed places in the vector, and the sums of blocks in their order, whoever
adds them, so the norm has the same bits however many ranks there are.
Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.
"""

import math
from collections.abc import Sequence

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host.plans import HostBarrier
from lepton_mpi.strategies.norm_kernels import sum_of_squares

_BLOCK_ELEMENTS = 32 << 10
# Parts (start, stop) of the vector that the norm is of.
Spans = Sequence[tuple[int, int]]


class ReplicatedNorm:
    """Norm of a gradient of which every rank has a copy; every rank computes it alone."""

    def __init__(self, gradient: np.ndarray, spans: Spans) -> None:
        self._blocks = _blocks(gradient, spans)
        self._squares = np.zeros(len(self._blocks))

    def compute(self) -> float:
        """The Euclidean norm."""
        for number, block in enumerate(self._blocks):
            self._squares[number] = sum_of_squares(block)
        return math.sqrt(self._squares.sum())


class SharedNorm:
    """Norm of a gradient in memory that the host shares; its ranks share the work, too. Making one is collective over the group."""

    def __init__(self, group: Group, gradient: np.ndarray, spans: Spans) -> None:
        blocks = _blocks(gradient, spans)
        self._squares = group.host_array((len(blocks),), np.dtype(np.float64))
        own = range(group.local_rank, len(blocks), group.local_size)
        self._own = [(number, blocks[number]) for number in own]
        self._barrier = HostBarrier(group)

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others, over all calls."""
        return self._barrier.wait_seconds

    def compute(self) -> float:
        """The Euclidean norm. All ranks of the host."""
        for number, block in self._own:
            self._squares[number] = sum_of_squares(block)
        self._barrier.run()
        return math.sqrt(self._squares.sum())


def clipped_scale(scale: float, norm_of_sum: float, norm_max: float) -> float:
    """``scale``, or less, so that ``scale * norm_of_sum`` is at most ``norm_max``; NaN stays NaN.

    >>> clipped_scale(0.5, 8.0, 1.0), clipped_scale(0.5, 1.0, 1.0)
    (0.125, 0.5)
    """
    norm = norm_of_sum * scale
    return scale * (norm_max / norm) if not norm <= norm_max else scale


def _blocks(gradient: np.ndarray, spans: Spans) -> list[np.ndarray]:
    return [
        gradient[start : min(start + _BLOCK_ELEMENTS, stop)]
        for first, stop in spans
        for start in range(first, stop, _BLOCK_ELEMENTS)
    ]
