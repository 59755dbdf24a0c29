"""A schedule says, for every rank and ring_step, which chunks go where. Pure: no arrays, no messages.

Rule: every decision about the order of transfers is in a schedule; an executor decides nothing.

A schedule is a function of (world_size, rank) that returns that rank's steps. In one step a rank sends
chunks as they are before the step, and receives chunks that it either adds to its own (ADD) or takes in
place of its own (COPY). What every allreduce schedule promises, checked for all of them by
``tests/serial/test_schedules.py``:

1. what a rank sends in a step, the other rank receives in the same step, chunk by chunk;
2. in one step no chunk is received by COPY and sent, or received twice;
3. afterwards every rank's every chunk holds every rank's contribution exactly once, in the same
   order of additions on all ranks, so all ranks end with the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What happens to a chunk that arrives."""

    ADD = "add"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Send:
    """Chunks [start, stop) go to rank ``dest``."""

    dest: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Receive:
    """Chunks [start, stop) come from rank ``source`` and are added or copied."""

    source: int
    start: int
    stop: int
    action: Action


@dataclass(frozen=True, slots=True)
class Step:
    """What one rank does in one step; its sends and receives overlap in time."""

    sends: tuple[Send, ...] = ()
    receives: tuple[Receive, ...] = ()


@dataclass(frozen=True)
class Algorithm:
    """A named family of schedules.

    Attributes
    ----------
    name : str
    chunk_count : callable(world_size) -> int
    steps : callable(world_size, rank) -> list of Step
        Every rank has the same number of steps; a step may be empty.
    """

    name: str
    chunk_count: Callable[[int], int]
    steps: Callable[[int, int], list[Step]]
