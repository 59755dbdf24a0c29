"""Vectors in memory that a host's ranks share, and the ways to hand them over; the plans that sum them are in ``plans.py``.

``HostVectors`` is one table per host. Each rank owns some of its rows and fills them with its
contributions; peers read them where they are. Three ways to hand over a vector, N bytes, n ranks:

    shared    the sum goes to one more row, which all ranks of the host read     (n + 1) N bytes moved
              or, in place, to the row of the first contribution: one vector less in the caches
    private   the sum goes to every rank's own row, as MPI's allreduce does      2 n N
    array     any NumPy array, copied in and out through a narrow table          2 n N, and 3 n N in cache

The order of additions is canonical (``summation_tree``): leaves are numbered over all places of the
group, and a rank that holds a run of leaves contributes one row for each whole node of the tree in it.
"""

from dataclasses import dataclass

import numpy as np

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.summation_tree import whole_nodes

_ALIGNMENT_BYTES = 4096


@dataclass(frozen=True)
class Leaves:
    """Who contributes what: of ``count`` leaves, place p (see Group) holds [bounds[p], bounds[p + 1])."""

    count: int
    bounds: tuple[int, ...]

    @classmethod
    def spread(cls, count: int, world_size: int) -> "Leaves":
        """``count`` leaves over the ranks, as evenly as contiguous runs can be."""
        return cls(count, tuple(chunk_bounds(count, world_size)))

    def nodes(self, place: int) -> list[tuple[int, int]]:
        """Whole nodes (start, stop) of the tree in the run of one place: one row each."""
        return self.nodes_of_host(range(place, place + 1))

    def nodes_of_host(self, places: range) -> list[tuple[int, int]]:
        """Whole nodes of the run of all ``places`` of a host."""
        return whole_nodes(self.bounds[places.start], self.bounds[places.stop], self.count)


class HostVectors:
    """A table of vectors shared by the ranks of a host. Making one is collective over the host.

    Parameters
    ----------
    group : Group
    count : int
        Elements of a vector.
    dtype : float32, float64, int32 or int64
    mode : {"shared", "private"}
        Where sums go: to rows of the host, or to each rank's own row.
    in_place : bool
        In mode "shared": over contributions, and no rows for the sums. Then whoever fills a row for the next sum first
        makes sure that all ranks of the host have read the last one, for example by a ``HostBarrier``.
    leaves : Leaves, optional
        Default: one leaf a rank.
    name : str
        What the table is counted under, see ``Group.host_array``.

    Attributes
    ----------
    inputs : list of arrays, shape (count,)
        This rank's rows, one for each of ``leaves.nodes(group.place)``; may be empty.
    result : array, shape (count,)
        Where the sum is after a plan's ``run``. Shared: the same memory on all ranks of the host.
    node_starts : list of int
        First leaf of each input row of the host, ascending.
    host_nodes : list of (start, stop)
        Whole nodes of the host's own run of leaves. With one host that is the root.
    targets : list of lists of int
        For each of ``host_nodes``, one at least, the rows that receive its sum.
    keeps_inputs : bool
        Whether sums leave the contributions as they are.
    overwrites_own : bool
        Whether one takes the place of one of this rank's.
    """

    def __init__(
        self,
        group: Group,
        count: int,
        dtype,
        mode: str,
        leaves: Leaves | None = None,
        name: str = "other",
        in_place: bool = False,
    ) -> None:
        self.group, self.count, self.dtype, self.mode = group, count, np.dtype(dtype), mode
        self.leaves = leaves or Leaves.spread(group.size, group.size)
        rows_of_rank = [
            self.leaves.nodes(place) for place in group.places_of_hosts[group.host_index]
        ]
        self.node_starts = [start for nodes in rows_of_rank for start, _ in nodes]
        self.nodes_of_hosts = [
            self.leaves.nodes_of_host(places) for places in group.places_of_hosts
        ]
        self.host_nodes = self.nodes_of_hosts[group.host_index]
        offsets = np.cumsum([0, *map(len, rows_of_rank)])
        own = range(offsets[group.local_rank], offsets[group.local_rank + 1])

        row_count = int(offsets[-1])
        self.keeps_inputs = mode == "shared" and not (in_place and self.host_nodes)
        if self.keeps_inputs:
            self.targets = [[row_count + node] for node in range(max(1, len(self.host_nodes)))]
        elif mode == "shared":
            self.targets = [[self.node_starts.index(start)] for start, _ in self.host_nodes]
        else:
            # A rank without a leaf has no row of its own, and reads the sum in the first row.
            filled = zip(offsets, rows_of_rank, strict=False)
            self.targets = [[int(offset) for offset, nodes in filled if nodes]]
        rows = row_count + len(self.targets) * self.keeps_inputs
        width = row_width(count, self.dtype.itemsize)
        self.table = group.host_array((rows, width), self.dtype, name)
        self.inputs = [self.table[row, :count] for row in own]
        self.overwrites_own = any(row in own for rows in self.targets for row in rows)
        map_pages(group, self.table, self.inputs)
        self.result = self.table[
            own.start if mode == "private" and own else self.targets[0][0], :count
        ]

    @property
    def node_sums(self) -> list[np.ndarray]:
        """In mode "shared" the sums of ``host_nodes``, each of shape (count,); the first is ``result``."""
        return [self.table[row, : self.count] for (row,) in self.targets[: len(self.host_nodes)]]


def row_width(count: int, itemsize: int) -> int:
    """Elements from one row of a table to the next, for rows of ``count``: each begins with a page."""
    return -(-max(1, count) * itemsize // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES // itemsize


def map_pages(group: Group, memory: np.ndarray, own: list[np.ndarray]) -> None:
    """Have all pages of shared ``memory`` in this rank's page table before the first call. Collective over the host.

    Faults would come with the first calls otherwise, 150 000 a rank for 9 vectors of 64 MiB. A page is placed
    near the core that touches it first, so every rank first writes zeros to what is its ``own``.
    """
    for array in own:
        array[:] = 0
    group.host_barrier()
    memory.reshape(-1)[:: _ALIGNMENT_BYTES // memory.itemsize].max(initial=0)
