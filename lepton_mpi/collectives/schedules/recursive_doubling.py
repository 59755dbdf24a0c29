"""Recursive doubling: whole vectors are swapped over distance 1, 2, 4, …, and everybody adds.

    p = 4    step 0        step 1              p = 6    before      as for p = 4          after
             0 <-> 1       0 <-> 2                      1 -> 0      with 0 2 4 5          0 -> 1
             2 <-> 3       1 <-> 3                      3 -> 2      for  0 1 2 3          2 -> 3

After step j the groups of 2^(j+1) neighbours hold the same sums, for both ends of a swap add the same
two numbers. If p is no power of two, e = p - 2^floor(log2 p) odd ranks hand their vector to the left
neighbour, look on, and get the result from there at the end.

Cost per rank: log2 p steps and log2 p N bytes for a power of two; otherwise two steps more, and
(floor(log2 p) + 1) N bytes where a rank stands in for its neighbour. The fewest steps possible and far
too many bytes: for short vectors. For a power of two the order of the additions is the canonical one of
``summation_tree.py`` over the ranks.
Source: Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH",
IJHPCA 19 (2005).
"""

from collections.abc import Callable

from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Receive,
    Send,
    Step,
    renumbered,
)


def allreduce_steps(world_size: int, rank: int) -> list[Step]:
    """See the module."""
    return steps_of_any_world(world_size, rank, 1, _power_of_two_steps)


def steps_of_any_world(
    world_size: int,
    rank: int,
    chunk_count: int,
    power_of_two_steps: Callable[[int, int], list[Step]],
) -> list[Step]:
    """An allreduce among any number of ranks out of one among the largest power of two of them.

    Parameters
    ----------
    chunk_count
        Chunks of the whole vector.
    power_of_two_steps : callable(world_size, number) -> list of Step
        The inner schedule. Rank 2i is number i of it if it stands in for 2i + 1, the others follow.
    """
    power = largest_power_of_two(world_size)
    extra = world_size - power
    if extra == 0:
        return power_of_two_steps(world_size, rank)
    paired, looks_on = rank < 2 * extra, rank < 2 * extra and rank % 2 == 1
    number = rank // 2 if paired else rank - extra
    inner = [
        Step() if looks_on else renumbered(step, lambda n: 2 * n if n < extra else n + extra)
        for step in power_of_two_steps(power, number)
    ]
    whole = (0, chunk_count)
    if looks_on:
        return [
            Step((Send(rank - 1, *whole),)),
            *inner,
            Step((), (Receive(rank - 1, *whole, Action.COPY),)),
        ]
    if paired:
        return [
            Step((), (Receive(rank + 1, *whole, Action.ADD),)),
            *inner,
            Step((Send(rank + 1, *whole),)),
        ]
    return [Step(), *inner, Step()]


def largest_power_of_two(number: int) -> int:
    """The largest power of two that is at most ``number``.

    >>> [largest_power_of_two(n) for n in (1, 2, 3, 4, 7)]
    [1, 2, 2, 4, 4]
    """
    return 1 << (number.bit_length() - 1)


def _power_of_two_steps(world_size: int, rank: int) -> list[Step]:
    peers = [rank ^ 1 << level for level in range(world_size.bit_length() - 1)]
    return [Step((Send(peer, 0, 1),), (Receive(peer, 0, 1, Action.ADD),)) for peer in peers]


RECURSIVE_DOUBLING = Algorithm(
    "recursive_doubling", chunk_count=lambda world_size: 1, steps=allreduce_steps
)
