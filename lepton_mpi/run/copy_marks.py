"""How far each rank of a host is with the copies of an ``--elastic`` run, in memory of the host: those that are left know it of those that died.

    1. put      what this rank has of the epoch's sums; rank 0 also in how many steps the next copy is due
    2. meet     nobody changes parameters any more; then what all have put is read
    3. done     this rank has copied its part, and no rank was lost: nobody has come out of a wait by a loss, and changed what was copied

A copy is whole once all ranks of the host, the dead ones too, are done with it. A message would cost more than the copy itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi.collectives.within_host.flags import HostFlags
from lepton_mpi.collectives.within_host.plans import HostBarrier

if TYPE_CHECKING:
    from lepton_mpi.world.world import World


class CopyMarks:
    """Of one run. Making one, and ``meet``, are collective over the host.

    Parameters
    ----------
    world : World
    """

    def __init__(self, world: World) -> None:
        self._check, self._own = world.check_losses, world.local_rank
        # Of copies with even numbers and odd ones: nobody is two ahead.
        self._sums = world.host_array((2, world.local_size, 2), np.float64)
        self._intervals = world.host_array((2,), np.int64)
        self._flags, self._barrier = HostFlags(world, 1), HostBarrier(world)

    def meet(self, number: int, sums: tuple[float, float], interval: int) -> tuple[np.ndarray, int]:
        """Sums of the ranks of the host, in their order, float64 (2,), and local rank 0's ``interval``. Raises RankLostError."""
        self._sums[number % 2, self._own] = sums
        if self._own == 0:
            self._intervals[number % 2] = interval
        self._barrier.run()
        self._check()
        return self._sums[number % 2].sum(axis=0), int(self._intervals[number % 2])

    def done(self, number: int) -> None:
        """This rank has copied. Raises RankLostError."""
        self._check()
        self._flags.raise_own(0, number + 1)

    def are_all_done(self, number: int) -> bool:
        """Whether copy ``number`` is whole on this host."""
        return self._flags.all_raised(0, number + 1)
