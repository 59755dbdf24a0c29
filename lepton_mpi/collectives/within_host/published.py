"""Vectors that each rank of a host publishes, and of which others take the newest whole one; nobody waits (a seqlock of two slots).

    publish    version v is written to slot v mod 2, then the rank's word is set to v
    take       the word says v; slot v mod 2 is copied; if the word still says v, nobody has written there meanwhile

The writer comes back to a slot only for version v + 2, after its word says v + 1. Who was too slow tries again with the newer one, a few
times: then the writer is very much faster, and there is a next time.
Source: Lameter, "Effective synchronization on Linux/NUMA systems", 2005 (sequence locks); Boehm, "Can seqlocks get along with programming
language memory models?", MSPC 2012, for its fences.
"""

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host.atomics import LINE_WORDS
from lepton_mpi.collectives.within_host.published_kernels import raise_version, read_version
from lepton_mpi.collectives.within_host.vectors import row_width

_SLOTS, _TRIES = 2, 3


class Published:
    """Making one is collective over the host; nothing else is.

    Parameters
    ----------
    group : Group
    count : int
        Elements of a vector.
    dtype
    name : str
        What the memory is counted under, see ``Group.host_array``: 2 vectors a rank.
    """

    def __init__(self, group: Group, count: int, dtype: np.dtype, name: str = "other") -> None:
        self._own, self._count, self._version = group.local_rank, count, 0
        shape = group.local_size * _SLOTS, row_width(count, dtype.itemsize)
        self._slots = group.host_array(shape, dtype, name)
        self._words = group.host_array((group.local_size * LINE_WORDS,), np.int64)
        # Of each rank what was taken last.
        self._taken = [0] * group.local_size

    @property
    def vector_count(self) -> int:
        """Vectors that the host holds."""
        return len(self._slots)

    def publish(self, vector: np.ndarray) -> None:
        """From now on this is what others take; ``vector``, shape (count,), is copied."""
        self._version += 1
        self._slot(self._own, self._version)[:] = vector
        raise_version(self._words, self._own, self._version)

    def take(self, local_rank: int, out: np.ndarray) -> bool:
        """Fill ``out`` with the newest vector of a rank of this host; False if it is none, or the one that was taken last.

        What is in ``out`` then has no meaning.
        """
        for _ in range(_TRIES):
            version = read_version(self._words, local_rank)
            if version == self._taken[local_rank]:
                return False
            out[:] = self._slot(local_rank, version)
            if read_version(self._words, local_rank) == version:
                self._taken[local_rank] = version
                return True
        return False

    def forget(self) -> None:
        """Take nothing of what is published now. To be called while nobody publishes."""
        self._taken = [read_version(self._words, rank) for rank in range(len(self._taken))]

    def _slot(self, local_rank: int, version: int) -> np.ndarray:
        return self._slots[local_rank * _SLOTS + version % _SLOTS, : self._count]
