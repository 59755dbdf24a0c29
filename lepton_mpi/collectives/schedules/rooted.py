"""Reduce, gather and scatter with root 0: binomial trees, and for long vectors a reduce in two halves.

    binomial, p = 6    step 0                        step 1       step 2
    reduce             1 -> 0   3 -> 2   5 -> 4      2 -> 0       4 -> 0       the whole vector, added
    gather             1 -> 0   3 -> 2   5 -> 4      2 -> 0       4 -> 0       the chunks of the sender's subtree
    scatter            0 -> 4                        0 -> 2       0 -> 1   2 -> 3   4 -> 5      those of the receiver's

    linear             step s: rank s + 1 sends its chunk to the root, or gets it from there
    circulant reduce   the reduce-scatter of ``circulant.py``, then a binomial gather of the sums

Cost of the busiest rank; all additions of a binomial reduce are in the order of ``summation_tree.py``::

                       steps            sent                received
    binomial reduce    ceil(log2 p)     N                   ceil(log2 p) N
    circulant reduce   2 ceil(log2 p)   N to 3/2 N          2 (p-1)/p N
    binomial gather    ceil(log2 p)     up to 1/2 N         (p-1)/p N
    linear gather      p - 1            1/p N               (p-1)/p N
    scatter            as gather, with sent and received the other way round

Sources: Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005); Traeff, "Optimal, non-pipelined reduce-scatter and allreduce", 2024.
"""

from lepton_mpi.collectives.schedules import circulant
from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Collective,
    Receive,
    Send,
    Step,
)


def binomial_reduce_steps(world_size: int, rank: int) -> list[Step]:
    """The root ends with the sum of all vectors, of one chunk."""
    return [
        _move(rank, source, dest, (0, 1), Action.ADD)
        for source, dest, _ in _up_the_tree(world_size, rank)
    ]


def binomial_gather_steps(world_size: int, rank: int) -> list[Step]:
    """The root ends with the chunks of all ranks."""
    return [
        _move(rank, source, dest, chunks, Action.COPY)
        for source, dest, chunks in _up_the_tree(world_size, rank)
    ]


def binomial_scatter_steps(world_size: int, rank: int) -> list[Step]:
    """Every rank ends with its chunk: the gather backwards."""
    return [
        _move(rank, dest, source, chunks, Action.COPY)
        for source, dest, chunks in reversed(_up_the_tree(world_size, rank))
    ]


def linear_gather_steps(world_size: int, rank: int) -> list[Step]:
    """One rank after the other sends its chunk to the root."""
    return [
        _move(rank, sender, 0, (sender, sender + 1), Action.COPY) for sender in range(1, world_size)
    ]


def linear_scatter_steps(world_size: int, rank: int) -> list[Step]:
    """The root sends each rank its chunk, one after the other."""
    return [_move(rank, 0, dest, (dest, dest + 1), Action.COPY) for dest in range(1, world_size)]


def circulant_reduce_steps(world_size: int, rank: int) -> list[Step]:
    """Each rank sums a chunk, and the root gathers them."""
    halves = circulant.reduce_scatter_steps(world_size, rank)
    return halves + binomial_gather_steps(world_size, rank)


def _up_the_tree(world_size: int, rank: int) -> list[tuple[int, int, tuple[int, int]]]:
    """For each level: who sends in the pair that ``rank`` is one of, to whom, and the ranks of the sender's subtree.

    Sender and receiver are -1 where the rank is in no pair of a level.
    """
    moves = []
    for level in range((world_size - 1).bit_length()):
        width = 1 << level
        child = rank if rank % (2 * width) else rank + width
        is_pair = rank % width == 0 and child < world_size
        ranks = child, min(child + width, world_size)
        moves.append((child, child - width, ranks) if is_pair else (-1, -1, ranks))
    return moves


def _move(rank: int, source: int, dest: int, chunks: tuple[int, int], action: Action) -> Step:
    """The part that ``rank`` has in one transfer."""
    sends = (Send(dest, *chunks),) if rank == source else ()
    receives = (Receive(source, *chunks, action),) if rank == dest else ()
    return Step(sends, receives)


def _one_per_rank(world_size: int) -> int:
    return world_size


BINOMIAL_REDUCE = Algorithm(
    "binomial", lambda world_size: 1, binomial_reduce_steps, Collective.REDUCE
)
CIRCULANT_REDUCE = Algorithm("circulant", _one_per_rank, circulant_reduce_steps, Collective.REDUCE)
BINOMIAL_GATHER = Algorithm("binomial", _one_per_rank, binomial_gather_steps, Collective.GATHER)
LINEAR_GATHER = Algorithm("linear", _one_per_rank, linear_gather_steps, Collective.GATHER)
BINOMIAL_SCATTER = Algorithm("binomial", _one_per_rank, binomial_scatter_steps, Collective.SCATTER)
LINEAR_SCATTER = Algorithm("linear", _one_per_rank, linear_scatter_steps, Collective.SCATTER)
