"""Double binary tree: each half of the vector is summed up a tree and sent down again, both at once.

    tree of half a, p = 7           tree of half b: all ranks moved on by one
             3                               4
          1     5                         2     6          inner ranks of one tree are leaves of the
         0 2   4 6                       1 3   5 0         other, so no rank works twice as hard

Places count from left to right: rank r has place r + 1 in the first tree and place r in the second, rank 0
the last one. Place v with lowest set bit b is a leaf if b = 1; else its left child is v - b/2, and the right
one is made the same way from the places after v, up to v + b - 1. Odd places are leaves, and moving on by
one swaps odd and even. Both children send in the step in which their parent expects them, so that their
segments arrive in turn.

Cost per rank: 2 floor(log2 p) steps and at most 2 N bytes sent. Step by step each would take up to N as a whole;
cut into segments (``program.py``) the levels work at the same time, and all takes about as long as 2 log2 p
segments and 2 N bytes: the latency of a tree and nearly the bandwidth of a ring, from a few segments per
level on.
Source: Sanders, Speck and Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan",
Parallel Computing 35 (2009); the second tree by moving on instead of by colouring.
"""

from dataclasses import dataclass

from lepton_mpi.collectives.schedules.recursive_doubling import largest_power_of_two
from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Collective,
    Receive,
    Send,
    Step,
    renumbered,
)


def allreduce_steps(world_size: int, rank: int) -> list[Step]:
    """Up both trees, then down both; half a is chunk 0, half b is chunk 1."""
    up = _up_steps(world_size, rank)
    return up + _turned_back(up)


def broadcast_steps(world_size: int, rank: int) -> list[Step]:
    """Rank 0 gives each half to the root of a tree over the other ranks, and both send them down.

    1 + floor(log2(p-1)) steps and at most N bytes per rank, which is the least that rank 0 can send.
    """
    others = world_size - 1
    if others == 0:
        return []
    roots = [1 + _rank_at(largest_power_of_two(others), others, half) for half in (0, 1)]
    if rank == 0:
        first = Step(tuple(Send(root, half, half + 1) for half, root in enumerate(roots)))
        return [first, *[Step()] * _height(others)]
    first = Step(
        (), tuple(Receive(0, half, half + 1, Action.COPY) for half in (0, 1) if roots[half] == rank)
    )
    down = _turned_back(_up_steps(others, rank - 1))
    return [first, *(renumbered(step, lambda other: other + 1) for step in down)]


def _up_steps(world_size: int, rank: int) -> list[Step]:
    """In step j the nodes of height j + 1 of both trees receive from their children and add."""
    nodes = [_node(world_size, rank, half) for half in (0, 1)]
    steps = []
    for height in range(1, _height(world_size) + 1):
        sends, receives = [], []
        for half, node in enumerate(nodes):
            if node.parent_height == height:
                sends.append(Send(node.parent, half, half + 1))
            if node.height == height:
                receives += [Receive(child, half, half + 1, Action.ADD) for child in node.children]
        steps.append(Step(tuple(sends), tuple(receives)))
    return steps


def _turned_back(steps: list[Step]) -> list[Step]:
    """The same transfers in the opposite direction, last step first, with copies."""
    return [
        Step(
            tuple(Send(r.source, r.start, r.stop) for r in step.receives),
            tuple(Receive(s.dest, s.start, s.stop, Action.COPY) for s in step.sends),
        )
        for step in reversed(steps)
    ]


@dataclass(frozen=True, slots=True)
class _Node:
    """A rank in one tree; heights count from the leaves, -1 where there is no parent."""

    height: int
    children: tuple[int, ...]
    parent: int
    parent_height: int


def _node(world_size: int, rank: int, half: int) -> _Node:
    place = rank + 1 if half == 0 else rank or world_size
    above, at = -1, largest_power_of_two(world_size)
    while at != place:
        above, at = at, _children(at, world_size)[place > at]
    children = tuple(_rank_at(child, world_size, half) for child in _children(place, world_size))
    if above < 0:
        return _Node(_level(place), children, -1, -1)
    return _Node(_level(place), children, _rank_at(above, world_size, half), _level(above))


def _children(place: int, world_size: int) -> list[int]:
    below = place & -place
    if below == 1:
        return []
    after = min(below - 1, world_size - place)
    return [place - below // 2] + ([place + largest_power_of_two(after)] if after else [])


def _level(place: int) -> int:
    return (place & -place).bit_length() - 1


def _height(world_size: int) -> int:
    return world_size.bit_length() - 1


def _rank_at(place: int, world_size: int, half: int) -> int:
    return place - 1 if half == 0 else place % world_size


DOUBLE_BINARY_TREE = Algorithm(
    "double_binary_tree", chunk_count=lambda world_size: 2, steps=allreduce_steps
)
DOUBLE_BINARY_TREE_BROADCAST = Algorithm(
    "double_binary_tree",
    chunk_count=lambda world_size: 2,
    steps=broadcast_steps,
    collective=Collective.BROADCAST,
)
