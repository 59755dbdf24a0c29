"""Träff's circulant allreduce: as few steps as halving and doubling, as few bytes as the ring, any world size.

    p = 5 is halved to 3, 2, 1          step 0 (5 to 3)    step 1 (3 to 2)    step 2 (2 to 1)
    rank r gives the chunks             r+3 r+4            r+2                r+1
    to rank                             r+3                r+2                r+1
    and adds from its other side to     r   r+1            r                  r            (all mod p)

A rank works on the chunks r, r+1, … (mod p), and each step cuts their number s to ceil(s/2): the upper
ones go to the rank ceil(s/2) further on, for which they are the first of its own. At the end rank r
has the whole sum of chunk r. The allgather runs the same steps backwards with copies.

Cost per rank: 2 ceil(log2 p) steps and 2(p-1)/p N bytes: both lower bounds at once, for every p. Peers are
further away than in a ring, so a ring suits a network whose far links are shared.
Source: Träff, "Optimal, non-pipelined reduce-scatter and allreduce algorithms", arXiv:2410.14234 (2024).
"""

from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Collective,
    Receive,
    Send,
    Step,
    cyclic,
)


def reduce_scatter_steps(world_size: int, rank: int) -> list[Step]:
    """Steps after which rank r holds the sum of chunk r."""
    steps = []
    for wide, narrow in _halvings(world_size):
        given = cyclic(rank + narrow, rank + wide, world_size)
        added = cyclic(rank, rank + wide - narrow, world_size)
        steps.append(_swap(rank + narrow, given, rank - narrow, added, Action.ADD, world_size))
    return steps


def allgather_steps(world_size: int, rank: int) -> list[Step]:
    """Steps that start with chunk r on rank r and end with all chunks on all ranks."""
    steps = []
    for wide, narrow in reversed(_halvings(world_size)):
        given = cyclic(rank, rank + wide - narrow, world_size)
        copied = cyclic(rank + narrow, rank + wide, world_size)
        steps.append(_swap(rank - narrow, given, rank + narrow, copied, Action.COPY, world_size))
    return steps


def allreduce_steps(world_size: int, rank: int) -> list[Step]:
    """Reduce-scatter, then allgather."""
    return reduce_scatter_steps(world_size, rank) + allgather_steps(world_size, rank)


def _halvings(world_size: int) -> list[tuple[int, int]]:
    """(s, ceil(s/2)) from s = p down to s = 2."""
    pairs = []
    while world_size > 1:
        pairs.append((world_size, (world_size + 1) // 2))
        world_size = pairs[-1][1]
    return pairs


def _swap(
    dest: int, given: list, source: int, taken: list, action: Action, world_size: int
) -> Step:
    sends = tuple(Send(dest % world_size, start, stop) for start, stop in given)
    return Step(
        sends, tuple(Receive(source % world_size, start, stop, action) for start, stop in taken)
    )


def _one_per_rank(world_size: int) -> int:
    return world_size


CIRCULANT = Algorithm("circulant", _one_per_rank, allreduce_steps, symmetric=True)
CIRCULANT_REDUCE_SCATTER = Algorithm(
    "circulant", _one_per_rank, reduce_scatter_steps, Collective.REDUCE_SCATTER, symmetric=True
)
CIRCULANT_ALLGATHER = Algorithm(
    "circulant", _one_per_rank, allgather_steps, Collective.ALLGATHER, symmetric=True
)
