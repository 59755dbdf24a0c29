"""Every allreduce schedule of the package, and some that only the tests have.

The tests' own are as unlike the ring as can be, so that the executors are held to what ``schedule.py``
promises and not to the ring's habits.
"""

from lepton_mpi.collectives.schedules.ring import RING
from lepton_mpi.collectives.schedules.schedule import Action, Algorithm, Receive, Send, Step

PACKAGE = [RING]


def _chain_steps(world_size: int, rank: int) -> list[Step]:
    """One chunk; the sum grows from rank 0 to the last rank, and the last tells rank 0, 1, …"""
    grow = [_move(rank, step, step + 1, 1, Action.ADD) for step in range(world_size - 1)]
    last = world_size - 1
    return grow + [_move(rank, last, dest, 1, Action.COPY) for dest in range(last)]


def _doubling_steps(world_size: int, rank: int) -> list[Step]:
    """Whole vectors in two chunks, swapped at distance 1, 2, 4, …; ranks past a power of two join by proxy."""
    power = 1 << (world_size.bit_length() - 1)
    extra = range(power, world_size)
    steps = [_move(rank, late, late - power, 2, Action.ADD) for late in extra]
    distance = 1
    while distance < power:
        peer = rank ^ distance
        swap = Step((Send(peer, 0, 2),), (Receive(peer, 0, 2, Action.ADD),))
        steps.append(swap if rank < power else Step())
        distance *= 2
    return steps + [_move(rank, late - power, late, 2, Action.COPY) for late in extra]


def _move(rank: int, source: int, dest: int, chunk_count: int, action: Action) -> Step:
    if rank == source:
        return Step(sends=(Send(dest, 0, chunk_count),))
    return Step(receives=(Receive(source, 0, chunk_count, action),)) if rank == dest else Step()


CHAIN = Algorithm("chain", chunk_count=lambda world_size: 1, steps=_chain_steps)
DOUBLING = Algorithm("doubling", chunk_count=lambda world_size: 2, steps=_doubling_steps)

ALL = [*PACKAGE, CHAIN, DOUBLING]
