"""Two levels: sums inside each host, lanes between the hosts, copies inside each host again. By messages.

    host 0: ranks 0 1    host 1: ranks 2 3 4        L = 2 lanes, the ranks of the smallest host

    reduce-scatter       slice 0 -> rank 0, slice 1 -> rank 1;  slice 0 -> rank 2, slice 1 -> rank 3
    lanes                allreduce of slice 0 among ranks 0 and 2, of slice 1 among ranks 1 and 3
    allgather            ranks 0 and 1 to all of host 0;  ranks 2 and 3 to all of host 1

On every host the first L ranks own a slice of N/L; a bigger host has ranks that own none, for a lane needs a
rank on every host. All three parts are pairwise exchanges (``pairwise.py``). Ranks are numbered host by host.

Cost per host: 2 (H-1)/H N bytes on the wire, the lower bound for H hosts, side by side in L lanes.
Cost per rank: 2 (n-1) + 2 (H-1) steps, n the ranks of the largest host; an owner sends at most
((n_host + L - 2)/L + 2 (H-1)/(H L)) N bytes. The real run replaces the first and the last part by reads of shared
memory; this schedule is what it is checked against, and what remains where memory cannot be shared.

The sum has the canonical order over the ranks if the ranks of every host are one node of the tree, as with
2, 4, 8, … ranks on each; otherwise its order depends on how ranks are placed.
Source: the lanes are the leaders of Bayatpour et al., "Scalable reduction collectives with data partitioning-
based multi-leader design", SC 2017, one leader for each slice.
"""

from collections.abc import Sequence
from itertools import accumulate

from lepton_mpi.collectives.schedules.pairwise import allgather_within, reduce_scatter_within
from lepton_mpi.collectives.schedules.schedule import Algorithm, Step


def two_level(ranks_per_host: Sequence[int], name: str = "two_level") -> Algorithm:
    """Allreduce for hosts with these numbers of ranks, in the order of the ranks.

    Chunk ``lane * H + h`` is the part of slice ``lane`` that host h finishes.
    """

    def chunk_count(world_size: int) -> int:
        return min(ranks_per_host) * len(ranks_per_host)

    def steps(world_size: int, rank: int) -> list[Step]:
        assert sum(ranks_per_host) == world_size, (ranks_per_host, world_size)
        return allreduce_steps(ranks_per_host, rank)

    return Algorithm(name, chunk_count, steps, symmetric=min(ranks_per_host) == max(ranks_per_host))


def allreduce_steps(ranks_per_host: Sequence[int], rank: int) -> list[Step]:
    """See the module."""
    firsts = [0, *accumulate(ranks_per_host)]
    host_count, lane_count = len(ranks_per_host), min(ranks_per_host)
    host = next(h for h in range(host_count) if rank < firsts[h + 1])
    on_host, local_rank = range(firsts[host], firsts[host + 1]), rank - firsts[host]

    def slice_of(member: int) -> tuple[int, int]:
        owns = member < lane_count
        return (member * host_count, (member + 1) * host_count) if owns else (0, 0)

    def part_of(host: int) -> tuple[int, int]:
        return local_rank * host_count + host, local_rank * host_count + host + 1

    idle = [Step()] * (max(ranks_per_host) - len(on_host))
    lanes = [Step()] * (2 * (host_count - 1))
    if local_rank < lane_count:
        lane = [first + local_rank for first in firsts[:-1]]
        lanes = reduce_scatter_within(lane, host, part_of) + allgather_within(lane, host, part_of)
    inward = reduce_scatter_within(on_host, local_rank, slice_of)
    outward = allgather_within(on_host, local_rank, slice_of)
    return inward + idle + lanes + outward + idle


def halves(world_size: int) -> list[int]:
    """Two hosts with ranks as equal as can be, the smaller one first; one host for one rank.

    >>> halves(5)
    [2, 3]
    """
    return [world_size // 2, (world_size + 1) // 2] if world_size > 1 else [1]


# The example for ``explain`` and for tests; real placements come through ``two_level``.
TWO_LEVEL = Algorithm(
    "two_level",
    chunk_count=lambda world_size: two_level(halves(world_size)).chunk_count(world_size),
    steps=lambda world_size, rank: allreduce_steps(halves(world_size), rank),
)
