"""How far each rank of a host is with several things, told without waiting. See ``flag_kernels.py``."""

import numpy as np

from lepton_mpi.collectives.atomics import LINE_WORDS
from lepton_mpi.collectives.flag_kernels import flags_reached, raise_flag


class HostFlags:
    """Making one is collective over the host.

    Parameters
    ----------
    world : World
    count : int
        Of things, numbered from 0.
    """

    def __init__(self, world, count: int) -> None:
        self._ranks, self._own = world.local_size, world.local_rank
        self._words = world.host_array((max(1, count * self._ranks * LINE_WORDS),), np.int64)

    def raise_own(self, number: int, value: int) -> None:
        """This rank has done ``number`` in round ``value``, after all that it has stored before."""
        raise_flag(self._words, number * self._ranks + self._own, value)

    def all_raised(self, number: int, value: int) -> bool:
        """Whether all ranks have done ``number`` in round ``value`` or a later one; then what they stored is visible."""
        first = number * self._ranks
        return flags_reached(self._words, first, first + self._ranks, value)
