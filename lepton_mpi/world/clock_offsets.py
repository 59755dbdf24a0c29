"""How far the clocks of hosts are apart, by Cristian's algorithm ("Probabilistic clock synchronization", Distributed Computing 3, 1989).

    rank 0         sent ------------------------------- received
    first rank of another host         answered

The answer was given between the two, so the other clock is ahead by ``answered - (sent + received) / 2``, give or take half of the time
in between. Of many rounds the one of the shortest time is taken. Ranks of a host have one CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from lepton_mpi.world.rank_group import RankGroup

_ROUNDS = 64
_TAG = 104


class Offset(NamedTuple):
    """Of a host's clock.

    Attributes
    ----------
    at : float
        When it was measured, seconds of the first host's clock.
    seconds : float
        How far the host's clock is ahead of the first host's.
    error_seconds : float
        It is off by no more than this.
    """

    at: float = 0.0
    seconds: float = 0.0
    error_seconds: float = 0.0


def best_of(rounds: Sequence[tuple[float, float, float]]) -> Offset:
    """Of rounds (sent, answered, received).

    >>> best_of([(0.0, 100.0, 8.0), (10.0, 113.0, 14.0)])
    Offset(at=12.0, seconds=101.0, error_seconds=2.0)
    """
    sent, answered, received = min(rounds, key=lambda each: each[2] - each[0])
    middle = (sent + received) / 2
    return Offset(middle, answered - middle, (received - sent) / 2)


def aligned(first: Offset, second: Offset, moment: float) -> float:
    """A moment of the host's clock by that of the first host, along the line through two offsets, since clocks drift apart.

    >>> [aligned(Offset(0.0, 1.0), Offset(10.0, 2.0), moment) for moment in (1.0, 6.5, 12.0)]
    [0.0, 5.0, 10.0]
    """
    if second.at <= first.at:
        return moment - first.seconds
    slope = (second.seconds - first.seconds) / (second.at - first.at)
    return (moment - first.seconds + slope * first.at) / (1 + slope)


def measure(group: RankGroup) -> list[Offset]:
    """Of every host of the group, the same on all ranks. Collective."""
    found = [Offset()] * group.host_count
    if group.host_count > 1:
        for host, ranks in enumerate(group.ranks_of_hosts):
            if host != group.host_index_of(0):
                found[host] = _with(group, ranks[0])
        found = group.broadcast(found)
    return found


def _with(group: RankGroup, other: int) -> Offset:
    """Rank 0 and ``other`` talk; what rank 0 returns counts."""
    comm, clock, empty = group.comm, np.zeros(1), np.zeros(0)
    rounds = []
    for _ in range(_ROUNDS):
        if group.rank == 0:
            sent = monotonic()
            comm.Send(empty, other, _TAG)
            comm.Recv(clock, other, _TAG)
            rounds.append((sent, float(clock[0]), monotonic()))
        elif group.rank == other:
            comm.Recv(empty, 0, _TAG)
            clock[0] = monotonic()
            comm.Send(clock, 0, _TAG)
    return best_of(rounds) if rounds else Offset()
