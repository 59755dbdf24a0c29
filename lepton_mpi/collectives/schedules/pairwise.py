"""Pairwise exchange: every rank sends every other rank's chunk straight to it; canonical order of addition.

    reduce-scatter, p = 4     step 0          step 1          step 2
                         0 --c1--> 1     0 --c2--> 2     0 --c3--> 3      rank r sends chunk r + s to rank r + s,
                         1 --c2--> 2     1 --c3--> 3     1 --c0--> 0      keeps (HOLD) what arrives for chunk r,
                         2 --c3--> 3     2 --c0--> 0     2 --c1--> 1      and adds all in the tree over ranks:
                         3 --c0--> 0     3 --c1--> 1     3 --c2--> 2      ((0+1)+(2+3)), whoever arrives first

    allgather: every rank sends its finished chunk straight to every other rank.

Every owner has all p contributions of its chunk before it adds, so the order can be the canonical one of
``summation_tree.py``: it depends on the numbers of the ranks alone, and on nothing that a ring or a tree of
messages would force on it. If rank numbers are replaced by numbers of micro-batches, the bits no longer
depend on p either.

Cost per rank: 2(p-1) steps and 2(p-1)/p N bytes, the lower bound; scratch for about 2 log2 p chunks of N/p. The
steps of one half do not wait for each other, so their latencies overlap as far as the network lets p - 1
messages come in at once. Every rank talks to every other: over a slow link between hosts, use it among
owners of one lane (``two_level.py``).
Source: Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005), for the exchange.

``direct`` is the extreme for short vectors: whole vectors go to everybody and everybody adds in the
canonical order. p-1 steps that do not wait for each other, (p-1) N bytes, scratch for 2 log2 p vectors.
"""

from collections.abc import Callable, Sequence

from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Collective,
    Fold,
    Receive,
    Send,
    Step,
)

Range = tuple[int, int]


def reduce_scatter_steps(world_size: int, rank: int) -> list[Step]:
    """Steps after which rank r holds the canonical sum of chunk r."""
    return reduce_scatter_within(range(world_size), rank, _own_chunk)


def allgather_steps(world_size: int, rank: int) -> list[Step]:
    """Steps that start with chunk r on rank r and end with all chunks on all ranks."""
    return allgather_within(range(world_size), rank, _own_chunk)


def allreduce_steps(world_size: int, rank: int) -> list[Step]:
    """Reduce-scatter, then allgather."""
    return reduce_scatter_steps(world_size, rank) + allgather_steps(world_size, rank)


def direct_steps(world_size: int, rank: int) -> list[Step]:
    """Everybody sends the whole vector to everybody."""
    return reduce_scatter_within(range(world_size), rank, lambda member: (0, 1))


def reduce_scatter_within(
    group: Sequence[int], member: int, owned: Callable[[int], Range]
) -> list[Step]:
    """Every member of a group of ranks gets the sum over the group of the chunks that it owns.

    Parameters
    ----------
    group
        Ranks, ascending; also the numbers of the leaves.
    member
        This rank's place in ``group``.
    owned : callable(member) -> (start, stop)
        Chunks of a member; empty if it owns nothing.
    """
    size, own = len(group), owned(member)
    steps = []
    for shift in range(1, size):
        dest, source = (member + shift) % size, (member - shift) % size
        given = owned(dest)
        sends = [Send(group[dest], *given)] if _any(given) else []
        receives = (
            [Receive(group[source], *own, Action.HOLD, leaf=group[source])] if _any(own) else []
        )
        folds = (
            [Fold(*own, own=group[member], leaves=group)] if _any(own) and shift == size - 1 else []
        )
        steps.append(Step(tuple(sends), tuple(receives), tuple(folds)))
    return steps


def allgather_within(
    group: Sequence[int], member: int, owned: Callable[[int], Range]
) -> list[Step]:
    """Every member of a group of ranks gets the chunks of every owner; parameters as above."""
    size, own = len(group), owned(member)
    steps = []
    for shift in range(1, size):
        dest, source = (member + shift) % size, (member - shift) % size
        taken = owned(source)
        sends = [Send(group[dest], *own)] if _any(own) else []
        receives = [Receive(group[source], *taken, Action.COPY)] if _any(taken) else []
        steps.append(Step(tuple(sends), tuple(receives)))
    return steps


def _any(chunks: Range) -> bool:
    return chunks[0] < chunks[1]


def _own_chunk(rank: int) -> Range:
    return rank, rank + 1


def _one_per_rank(world_size: int) -> int:
    return world_size


PAIRWISE = Algorithm("pairwise", _one_per_rank, allreduce_steps, symmetric=True)
DIRECT = Algorithm("direct", lambda world_size: 1, direct_steps, symmetric=True)
PAIRWISE_REDUCE_SCATTER = Algorithm(
    "pairwise", _one_per_rank, reduce_scatter_steps, Collective.REDUCE_SCATTER, symmetric=True
)
PAIRWISE_ALLGATHER = Algorithm(
    "pairwise", _one_per_rank, allgather_steps, Collective.ALLGATHER, symmetric=True
)
