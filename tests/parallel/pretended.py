"""Groups whose ranks pretend to be on several hosts, so that what runs between hosts runs on one machine without root.

What such ranks share in memory is shared by those of a pretended host alone, and lanes are between the pretended hosts. What is
not pretended is the wire: ``tests/faults/test_hosts.py`` has one.
"""

from __future__ import annotations

from mpi4py import MPI

from lepton_mpi.world.rank_group import RankGroup


class _Pretending(MPI.Intracomm):
    """A communicator in which hosts are what ``host_of`` says, by rank."""

    host_of: list[int]

    def Dup(self, info: MPI.Info = MPI.INFO_NULL) -> _Pretending:
        return pretending(super().Dup(info), self.host_of)

    def Split_type(self, split_type: int, key: int = 0, info: MPI.Info = MPI.INFO_NULL):
        return super().Split(self.host_of[self.rank], key)

    def Create_group(self, group: MPI.Group, tag: int = 0) -> _Pretending:
        ranks = MPI.Group.Translate_ranks(group, None, self.Get_group())
        return pretending(super().Create_group(group, tag), [self.host_of[rank] for rank in ranks])


def pretending(comm: MPI.Intracomm, host_of: list[int]) -> _Pretending:
    made = _Pretending(comm)
    made.host_of = host_of
    return made


def on_hosts(world, host_of: list[int]) -> RankGroup:
    """All ranks as a group, rank r on host ``host_of[r]``. Collective."""
    made = RankGroup(pretending(world.comm.Dup(), host_of), world.clock, world)
    world._groups.append(made)
    return made


def placements(size: int) -> list[list[int]]:
    """Hosts of ``size`` ranks, two at least: as even as can be, uneven, dealt in turn, and one each."""
    found = [[rank * 2 // size for rank in range(size)], [0] + [1] * (size - 1)]
    found += [[rank % 2 for rank in range(size)], [*range(size)]]
    return [list(each) for each in dict.fromkeys(map(tuple, found)) if max(each) > 0]
