"""Rabenseifner's allreduce: recursive halving (reduce-scatter), then recursive doubling (allgather).

    p = 4, chunks a b c d        reduce-scatter                    allgather
                            step 0         step 1             step 2        step 3
                       0    gives c d      gives b            gives a       gives a b
                       1    gives a b      gives d            gives c       gives c d
                       2    gives c d      gives a            gives b       gives a b
                       3    gives a b      gives c            gives d       gives c d
                       peer     r ^ 1          r ^ 2              r ^ 2         r ^ 1

In every step a rank gives away half of the range that it still works on and adds the other half from its
peer; the longest messages go to the nearest rank. The allgather runs the same swaps backwards.

Cost per rank, p a power of two: 2 log2 p steps and 2(p-1)/p N bytes, the lower bound. Otherwise the extra
ranks are folded in as in ``recursive_doubling.py``: two steps more, and N bytes more for the ranks that
stand in; ``circulant.py`` needs neither. For a power of two the order of the additions is the canonical
one of ``summation_tree.py`` over the ranks.
Source: Rabenseifner, "Optimization of collective reduction operations", ICCS 2004.
"""

from lepton_mpi.collectives.schedules.recursive_doubling import (
    largest_power_of_two,
    steps_of_any_world,
)
from lepton_mpi.collectives.schedules.schedule import Action, Algorithm, Receive, Send, Step


def allreduce_steps(world_size: int, rank: int) -> list[Step]:
    """See the module."""
    return steps_of_any_world(
        world_size, rank, largest_power_of_two(world_size), _power_of_two_steps
    )


def _power_of_two_steps(world_size: int, rank: int) -> list[Step]:
    halving, doubling = [], []
    start, stop = 0, world_size
    for level in range(world_size.bit_length() - 1):
        peer, middle = rank ^ 1 << level, (start + stop) // 2
        lower, upper = (start, middle), (middle, stop)
        kept, given = (upper, lower) if rank >> level & 1 else (lower, upper)
        halving.append(Step((Send(peer, *given),), (Receive(peer, *kept, Action.ADD),)))
        doubling.append(Step((Send(peer, *kept),), (Receive(peer, *given, Action.COPY),)))
        start, stop = kept
    return halving + doubling[::-1]


RABENSEIFNER = Algorithm("rabenseifner", chunk_count=largest_power_of_two, steps=allreduce_steps)
