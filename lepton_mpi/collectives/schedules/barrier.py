"""Dissemination barrier: every rank passes on, in each step twice as far, who it has heard of.

    p = 5     step 0: r -> r + 1      step 1: r -> r + 2      step 2: r -> r + 4      (mod p)
              r has heard of          of                      of
              r - 1, r                r - 3, …, r             all

A message is one element, best a zero, and receiving adds it to the own one: a message of step j + 1 cannot
leave before that of step j has come, and no executor needs to know that this is a barrier.

Cost per rank: ceil(log2 p) steps, the lower bound, of one element each.
Source: Hensgen, Finkel and Manber, "Two algorithms for barrier synchronization", IJPP 17 (1988).
"""

from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Collective,
    Receive,
    Send,
    Step,
)


def barrier_steps(world_size: int, rank: int) -> list[Step]:
    """See the module. The vector needs one element at least, or there is nothing to send."""
    distances = [1 << level for level in range((world_size - 1).bit_length())]
    return [
        Step(
            (Send((rank + distance) % world_size, 0, 1),),
            (Receive((rank - distance) % world_size, 0, 1, Action.ADD),),
        )
        for distance in distances
    ]


DISSEMINATION_BARRIER = Algorithm(
    "dissemination", lambda world_size: 1, barrier_steps, Collective.BARRIER, symmetric=True
)
