"""A schedule says, for every rank and ring_step, which chunks go where. Pure: no arrays, no messages.

Rule: every decision about the order of transfers is in a schedule; an executor decides nothing.

A schedule is a function of (world_size, rank) that returns that rank's steps. In one step a rank sends
chunks as they are before the step, and receives chunks that it adds to its own (ADD), takes in place of
its own (COPY), or keeps beside its own (HOLD) until a Fold adds all that was kept in the order of
``summation_tree.py``. What every schedule promises, checked for all of them by ``trace.py`` and
``tests/serial/test_algorithms.py``:

1. what a rank sends in a step, the other rank receives in the same step, chunk by chunk, and several
   transfers between the same two ranks are listed in the same order on both;
2. in one step a chunk that is copied onto is neither sent nor received a second time; one that is sent
   is added to at most once, as part of the same range; others may be added to several times, which
   happens in the order listed;
3. from the first HOLD to the Fold a chunk may be sent, as it was before, but not otherwise received, and
   the Fold is in the step of the last HOLD;
4. afterwards every chunk that the collective speaks of holds every rank's contribution exactly once,
   added in the same order on all ranks, so all ranks end with the same bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What happens to a chunk that arrives."""

    ADD = "add"
    COPY = "copy"
    HOLD = "hold"


class Collective(Enum):
    """What the ranks of a schedule want. Rank r *owns* the r-th of ``world_size`` equal runs of chunks."""

    ALLREDUCE = "allreduce"  # every rank ends with the sum of all chunks
    REDUCE_SCATTER = "reduce_scatter"  # every rank ends with the sum of the chunks it owns
    ALLGATHER = "allgather"  # every rank gives the chunks it owns and ends with all
    BROADCAST = "broadcast"  # every rank ends with the chunks of rank 0
    REDUCE = "reduce"  # rank 0 ends with the sum of all chunks
    GATHER = "gather"  # every rank gives the chunks it owns and rank 0 ends with all
    SCATTER = "scatter"  # every rank ends with the chunks of rank 0 that it owns
    ALLTOALL = "alltoall"  # every rank gives the chunks it owns, the d-th of which rank d ends with
    BARRIER = "barrier"  # no rank ends before every rank has begun


# In which contributions are added.
SUMS = frozenset((Collective.ALLREDUCE, Collective.REDUCE_SCATTER, Collective.REDUCE))


@dataclass(frozen=True, slots=True)
class Send:
    """Chunks [start, stop) go to rank ``dest``."""

    dest: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Receive:
    """Chunks [start, stop) come from rank ``source``; HOLD keeps them as leaf ``leaf`` of the coming Fold."""

    source: int
    start: int
    stop: int
    action: Action
    leaf: int = -1


@dataclass(frozen=True, slots=True)
class Fold:
    """Own chunks [start, stop) become the sum of ``leaves``, added in the tree over these numbers.

    Own values are leaf ``own``; each other leaf was received by HOLD, as this very range. Carried out
    at the end of the step. An executor may add held leaves to each other as they arrive: the tree fixes
    the bits.
    """

    start: int
    stop: int
    own: int
    leaves: Sequence[int]


@dataclass(frozen=True, slots=True)
class Step:
    """What one rank does in one step; its sends and receives overlap in time."""

    sends: tuple[Send, ...] = ()
    receives: tuple[Receive, ...] = ()
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True)
class Algorithm:
    """A named family of schedules.

    Attributes
    ----------
    name : str
    chunk_count : callable(world_size) -> int
    steps : callable(world_size, rank) -> list of Step
        Every rank has the same number of steps; a step may be empty.
    collective : Collective
    symmetric : bool
        In every step all ranks send, receive and add equally many chunks, so that costs follow from
        rank 0 alone, for any number of ranks in no time.
    """

    name: str
    chunk_count: Callable[[int], int]
    steps: Callable[[int, int], list[Step]]
    collective: Collective = Collective.ALLREDUCE
    symmetric: bool = False


def renumbered(
    step: Step,
    rank_of: Callable[[int], int],
    chunks_of: Callable[[int, int], tuple[int, int]] = lambda start, stop: (start, stop),
) -> Step:
    """The same step with rank ``rank_of(r)`` in place of r and other chunks in place of [start, stop).

    For schedules that are made of smaller ones. The leaves of a fold keep their numbers.
    """
    sends = [Send(rank_of(s.dest), *chunks_of(s.start, s.stop)) for s in step.sends]
    receives = [
        Receive(rank_of(r.source), *chunks_of(r.start, r.stop), r.action, r.leaf)
        for r in step.receives
    ]
    folds = [Fold(*chunks_of(f.start, f.stop), f.own, f.leaves) for f in step.folds]
    return Step(tuple(sends), tuple(receives), tuple(folds))


def cyclic(start: int, stop: int, chunk_count: int) -> list[tuple[int, int]]:
    """Chunks start to stop - 1, taken modulo ``chunk_count``, as at most two ordinary ranges.

    >>> cyclic(3, 6, 5)
    [(3, 5), (0, 1)]
    """
    assert 0 <= stop - start <= chunk_count
    start, stop = start % chunk_count, start % chunk_count + stop - start
    pieces = [(start, min(stop, chunk_count)), (0, stop - chunk_count)]
    return [(first, last) for first, last in pieces if first < last]
