"""What workers hand over for a mean, in a table that their host shares: a row of each rank worker, or one of a host worker.

A row is a worker's part of the mean, so that the sum of all rows is the mean: the parameters, or how far they are from an anchor.
"""

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.strategies.workers import HostWorker, Worker


class WorkerRows:
    """Making one is collective over the group.

    Attributes
    ----------
    vectors : HostVectors
        The table, in mode "shared".
    is_of_host : bool
        Whether the ranks of a host fill its one row together, each its own spans.
    """

    def __init__(self, setting: Setting, worker: Worker) -> None:
        group, size, dtype = setting.group, setting.layout.size, setting.dtype
        self.is_of_host = isinstance(worker, HostWorker)
        leaves = _leaf_of_each_host(group) if self.is_of_host else None
        self.vectors = HostVectors(
            group, size, dtype, "shared", leaves, "differences", self.is_of_host
        )
        of_rank = self.vectors.inputs
        self._row = self.vectors.table[0, :size] if self.is_of_host else of_rank[0]
        self._factor = dtype.type(1 / worker.count)

    @property
    def vector_count(self) -> int:
        """Vectors of the whole length that a host holds."""
        return len(self.vectors.table)

    def fill(self, span: slice, parameters: np.ndarray, anchor: np.ndarray | None) -> None:
        """Hand over this worker's part of the mean of ``parameters[span]``, without ``anchor[span]`` if there is one."""
        row = self._row[span]
        if anchor is None:
            row[:] = parameters[span]
        else:
            np.subtract(parameters[span], anchor[span], out=row)
        row *= self._factor


def _leaf_of_each_host(group: Group) -> Leaves:
    """The first rank of each host has one."""
    starts = [places.start for places in group.places_of_hosts]
    bounds = tuple(sum(start < place for start in starts) for place in range(group.size + 1))
    return Leaves(group.host_count, bounds)
