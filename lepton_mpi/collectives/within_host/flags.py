"""How far each rank of a host is with several things, told without waiting. See ``flag_kernels.py``."""

import os
from collections.abc import Callable
from time import perf_counter

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host.atomics import LINE_WORDS
from lepton_mpi.collectives.within_host.flag_kernels import flags_alike, flags_reached, raise_flag


class HostFlags:
    """Making one is collective over the host.

    Parameters
    ----------
    group : Group
    count : int
        Of things, numbered from 0.
    """

    def __init__(self, group: Group, count: int) -> None:
        self._ranks, self._own = group.local_size, group.local_rank
        self._words = group.host_array((max(1, count * self._ranks * LINE_WORDS),), np.int64)

    def raise_own(self, number: int, value: int, told: int = 0) -> None:
        """This rank has done ``number`` in round ``value``, after all that it has stored before; ``told`` is for ``all_alike``."""
        raise_flag(self._words, number * self._ranks + self._own, value, told)

    def all_raised(self, number: int, value: int) -> bool:
        """Whether all ranks have done ``number`` in round ``value`` or a later one; then what they stored is visible."""
        first = number * self._ranks
        return flags_reached(self._words, first, first + self._ranks, value)

    def all_alike(self, number: int, value: int) -> int:
        """As ``all_raised``: 0 or 1; or 1 more than the local rank of one that has told another thing than the first.

        No rank may be more than a round ahead.
        """
        first = number * self._ranks
        return flags_alike(self._words, first, first + self._ranks, value)

    def told(self, number: int, value: int, local_rank: int) -> int:
        """What a rank told in a round that ``all_alike`` has seen."""
        return int(self._words[(number * self._ranks + local_rank) * LINE_WORDS + 1 + (value & 1)])


def let_messages_go_on(group: Group) -> Callable[[], object]:
    """What to call while waiting in memory: a library may hold on to bytes that are sent until it is called again.

    Two hosts, each waiting in memory for one of its ranks that waits for such bytes, would wait for ever.
    """
    return group.lane_comm.Iprobe if group.lane_comm is not None else lambda: None


class HostMeeting:
    """All ranks of a host meet, while what they have sent to other hosts goes on. Making and running are collective over the host.

    Attributes
    ----------
    wait_seconds : float
        Sum over runs.
    """

    def __init__(self, group: Group) -> None:
        self._flags, self._round, self.wait_seconds = HostFlags(group, 1), 0, 0.0
        self._go_on, self._check_losses = let_messages_go_on(group), group.check_losses

    def run(self) -> None:
        """Return once all ranks of the host have called it."""
        began, self._round = perf_counter(), self._round + 1
        self._flags.raise_own(0, self._round)
        while not self._flags.all_raised(0, self._round):
            self._go_on()
            self._check_losses()
            os.sched_yield()
        self.wait_seconds += perf_counter() - began
