"""Whether other processes take the cores of a host's ranks, and so which form of a long reduction is the faster one.

    staged call     counts the waits in which other processes had the core for a time slice: a turn
    next long call  every rank tells the others, in shared memory and before their first meeting, whether they were many
    after it        if they were on one rank: the next 16 long calls are direct, then 32 each time in a row

All ranks read what all told, so they decide the same. A staged call in between finds out whether the machine is still busy.
"""

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host.meeting_kernels import TURNS

# Beside 4 busy programs on 2 cores, most meetings cost a turn; beside short-lived ones 1 or 2 of 33 do, and stages are faster.
_TURNS_MIN, _BYTES_OF_TURN = 3, 4 << 20
_DIRECT_CALLS, _DIRECT_CALLS_MAX = 16, 32


class LostTurns:
    """Making one is collective over the host.

    Parameters
    ----------
    group : Group
    words : memoryview
        The plan of the calls.
    is_possible : bool
        Whether ranks can read each other's memory; the same on all.
    """

    def __init__(self, group: Group, words: memoryview, is_possible: bool) -> None:
        self._told = group.host_array((2, group.local_size), np.int64)
        self._own, self._words, self._is_possible = group.local_rank, words, is_possible
        self._turns, self._number, self._has_lost = 0, 0, False
        self._direct_calls, self._next_direct_calls = 0, _DIRECT_CALLS

    def begin(self) -> bool:
        """Before a long call of all ranks; returns whether it is direct."""
        self._told[self._number % 2, self._own] = self._has_lost
        self._turns = self._words[TURNS]
        return self._is_possible and self._direct_calls > 0

    def end(self, byte_count: int) -> None:
        """After the call, which reduced so many bytes."""
        any_lost, was_direct = self._told[self._number % 2].any(), self._direct_calls > 0
        self._number += 1
        lost = self._words[TURNS] - self._turns
        self._has_lost = not was_direct and lost >= max(_TURNS_MIN, byte_count // _BYTES_OF_TURN)
        if any_lost:
            self._direct_calls = self._next_direct_calls
            self._next_direct_calls = min(2 * self._next_direct_calls, _DIRECT_CALLS_MAX)
            self._has_lost = False
        elif was_direct:
            self._direct_calls -= 1
        elif self._number % _DIRECT_CALLS == 0:
            self._next_direct_calls = _DIRECT_CALLS
