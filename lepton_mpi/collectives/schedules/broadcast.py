"""Binomial broadcast: everybody who has the vector sends it on, so those who have it double in each step.

    p = 6     step 0     step 1              step 2
              0 -> 1     0 -> 2  1 -> 3      0 -> 4  1 -> 5

Cost per rank: ceil(log2 p) steps, the lower bound; rank 0 sends up to ceil(log2 p) N bytes. For short
vectors; for long ones see ``double_binary_tree.broadcast_steps``. Other roots: ``rooted_at``.
Source: Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005).
"""

from dataclasses import replace

from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Collective,
    Receive,
    Send,
    Step,
    renumbered,
)


def broadcast_steps(world_size: int, rank: int) -> list[Step]:
    """In step j the ranks below 2^j send to those 2^j further on."""
    steps = []
    for level in range((world_size - 1).bit_length()):
        distance = 1 << level
        if rank < distance:
            sends = (Send(rank + distance, 0, 1),) if rank + distance < world_size else ()
            steps.append(Step(sends))
        else:
            receives = (Receive(rank - distance, 0, 1, Action.COPY),) if rank < 2 * distance else ()
            steps.append(Step((), receives))
    return steps


def rooted_at(root: int, algorithm: Algorithm) -> Algorithm:
    """The same broadcast from, or reduce to, rank ``root``: all ranks moved on by ``root``, cyclically."""
    assert algorithm.collective in (Collective.BROADCAST, Collective.REDUCE)

    def steps(world_size: int, rank: int) -> list[Step]:
        moved = algorithm.steps(world_size, (rank - root) % world_size)
        return [renumbered(step, lambda other: (other + root) % world_size) for step in moved]

    return replace(algorithm, steps=steps)


BINOMIAL_BROADCAST = Algorithm(
    "binomial", lambda world_size: 1, broadcast_steps, Collective.BROADCAST
)
