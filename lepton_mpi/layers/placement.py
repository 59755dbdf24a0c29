"""Where the arrays of a plan lie: those that never live at once may have the same addresses in one arena.

Source, greedy by size: Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from lepton_mpi.layers.layer import Shape

# So that no two arrays share a cache line, and vectors are loaded from one.
_ALIGNMENT = 64


@dataclass
class Buffer:
    """Memory of an array: ``offset`` bytes into the arena, during calls ``first`` to ``last``, counted from 0.

    ``rounds``: whether its numbers may be rounded from the forward to the backward pass. ``holds``: what they are, if that is not ``dtype``.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    first: int
    last: int
    offset: int = 0
    rounds: bool = False
    holds: str = ""

    @property
    def byte_count(self) -> int:
        """Of the array itself."""
        return prod(self.shape) * self.dtype.itemsize


def place(buffers: Sequence[Buffer]) -> int:
    """Give each buffer an offset, so that no two share memory that live at once; returns the bytes that they need together.

    The largest first, each at the lowest offset that is free during its life.
    """
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: -b.byte_count):
        start, size = 0, _aligned(buffer.byte_count)
        alive = [b for b in placed if b.first <= buffer.last and buffer.first <= b.last]
        for other in sorted(alive, key=lambda b: b.offset):
            if start + size <= other.offset:
                break
            start = max(start, other.offset + _aligned(other.byte_count))
        buffer.offset = start
        placed.append(buffer)
    return max((b.offset + _aligned(b.byte_count) for b in placed), default=0)


def _aligned(byte_count: int) -> int:
    return -(-byte_count // _ALIGNMENT) * _ALIGNMENT
