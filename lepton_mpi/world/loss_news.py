"""How the ranks of a host learn that a rank of another host is lost, which they cannot see: their leader is told, and rings.

    word 0        a rank is lost: all that is computed now is worthless
    word 1 + r    rank r is; of those on other hosts, which the leader writes
    bell          a pipe that all ranks of the host can wait for, and nobody reads: it rings once

A host is lost where Linux has heard nothing from it for ``--peer-timeout``, as the leader of host 0 finds (``host_links.py``): then all of
its ranks are. That is so on the side of host 0 alone. On the other side, of a network that has come apart, the ranks end themselves,
so that a job never becomes two.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi.world.host_links import LOST, HostLinks

if TYPE_CHECKING:
    from lepton_mpi.world.members import Member
    from lepton_mpi.world.rank_group import RankGroup


class LossNews:
    """Of the ranks of one world. Collective over them to make.

    Parameters
    ----------
    group : RankGroup
        All ranks.
    members : list of Member
        By rank.
    links : HostLinks
        Of a leader those to the leaders of other hosts, of others none. They are closed with this.

    Attributes
    ----------
    flag : int64, shape (1,)
        Word 0, in memory of the host.
    bell : int
        Descriptor to poll for input; -1 where there is one host.
    links : HostLinks
    """

    def __init__(self, group: RankGroup, members: list[Member], links: HostLinks) -> None:
        self._words = group.host_array((1 + group.size,), np.int64, "lost")
        self.flag = self._words[:1]
        self._numbers = [member.number for member in members]
        self._ranks = {member.number: rank for rank, member in enumerate(members)}
        self._ranks_of_hosts, self._host = group.ranks_of_hosts, group.host_index
        self.links = links
        self.bell = self._ring = -1
        if group.host_count > 1:
            self._share_bell(group)

    def _share_bell(self, group: RankGroup) -> None:
        told = None
        if group.local_rank == 0:
            self.bell, self._ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            told = f"/proc/{os.getpid()}/fd/{self.bell}"
        path = group.host_comm.bcast(told)
        if group.local_rank:
            # What opens memory of the host opens this: ``shared_memory.py`` has said so where it cannot be.
            self.bell = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        group.host_comm.Barrier()

    def tell(self, numbers: set[int]) -> None:
        """These members are lost. By a leader, who has the bell and the links, the other ranks of the host learn it, and the other hosts."""
        for number in numbers & self._ranks.keys():
            self._words[1 + self._ranks[number]] = 1
        if self._ring >= 0:
            with suppress(OSError):  # it has rung
                os.write(self._ring, b"!")
        for number in numbers:
            self.links.send(LOST, number)

    def said(self) -> set[int]:
        """Members that the leader has said to be lost."""
        return {self._numbers[rank] for rank in np.flatnonzero(self._words[1:])}

    def of_host(self, host: int) -> set[int]:
        """Members on a host that is lost."""
        return {self._numbers[rank] for rank in self._ranks_of_hosts[host]}

    def leader_of(self, host: int) -> set[int]:
        """The one that has a host's connections."""
        return {self._numbers[self._ranks_of_hosts[host][0]]}

    @property
    def is_centre(self) -> bool:
        """Whether this is the host that all others are connected to."""
        return self._host == 0

    def close(self) -> None:
        """Give back the bell, and leave the other hosts. By the thread that polls them alone, which must not take new descriptors for old ones."""
        self.links.close()
        for descriptor in (self.bell, self._ring):
            if descriptor >= 0:
                os.close(descriptor)
        self.bell = self._ring = -1
