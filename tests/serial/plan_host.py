"""The ranks of a host for plans in shared memory, in one process and without MPI."""

from types import SimpleNamespace

import numpy as np


class PlanHost:
    """Groups of the ranks of a host, in one process: what each makes first, second, … is the same memory on all."""

    def __init__(self, size: int) -> None:
        self._made: dict[int, np.ndarray] = {}
        self.groups = [self._group(rank, size) for rank in range(size)]

    def _group(self, rank: int, size: int) -> SimpleNamespace:
        group = SimpleNamespace(local_rank=rank, local_size=size, cores=2, host_index=0, count=0)
        group.ranks_of_hosts, group.remembered = [[10 + each for each in range(size)]], {}
        group.clock, group.looks = SimpleNamespace(row=np.zeros(3)), []
        group.host_barrier, group.watch = lambda: None, group.looks.append

        def host_array(shape, dtype, *_, **__):
            group.count += 1
            return self._made.setdefault(group.count, np.zeros(shape, dtype))

        group.host_array = host_array
        return group
