"""All schedules by name. Which of them is fastest where is the tuner's business, not this table's.

    allreduce            steps                      bytes sent per rank, at most       order of additions
    ring                 2 (p-1)                    2 (p-1)/p N                        around the ring
    bidirectional_ring   2 (p-1)                    2 (p-1)/p N                        around the ring
    recursive_doubling   floor(log2 p)      [+ 2]   log2 p N           [+ N]           canonical [its own]
    rabenseifner         2 floor(log2 p)    [+ 2]   2 (p-1)/p N        [+ N]           canonical [its own]
    circulant            2 ceil(log2 p)             2 (p-1)/p N                        its own
    double_binary_tree   2 floor(log2 p)            2 N                                the trees'
    pairwise             2 (p-1)                    2 (p-1)/p N                        canonical
    direct               p-1                        (p-1) N                            canonical
    two_level            2 (n-1) + 2 (H-1)          see there                          see there

In brackets what changes if p is no power of two. "Canonical" is the order of ``summation_tree.py`` over the
ranks. ``cost.py`` counts steps and bytes from the schedules themselves.
"""

from lepton_mpi.collectives.schedules.alltoall import BRUCK, PAIRWISE_ALLTOALL
from lepton_mpi.collectives.schedules.barrier import DISSEMINATION_BARRIER
from lepton_mpi.collectives.schedules.broadcast import BINOMIAL_BROADCAST
from lepton_mpi.collectives.schedules.circulant import (
    CIRCULANT,
    CIRCULANT_ALLGATHER,
    CIRCULANT_REDUCE_SCATTER,
)
from lepton_mpi.collectives.schedules.double_binary_tree import (
    DOUBLE_BINARY_TREE,
    DOUBLE_BINARY_TREE_BROADCAST,
)
from lepton_mpi.collectives.schedules.pairwise import (
    DIRECT,
    PAIRWISE,
    PAIRWISE_ALLGATHER,
    PAIRWISE_REDUCE_SCATTER,
)
from lepton_mpi.collectives.schedules.rabenseifner import RABENSEIFNER
from lepton_mpi.collectives.schedules.recursive_doubling import RECURSIVE_DOUBLING
from lepton_mpi.collectives.schedules.ring import (
    BIDIRECTIONAL_RING,
    RING,
    RING_ALLGATHER,
    RING_REDUCE_SCATTER,
)
from lepton_mpi.collectives.schedules.rooted import (
    BINOMIAL_GATHER,
    BINOMIAL_REDUCE,
    BINOMIAL_SCATTER,
    CIRCULANT_REDUCE,
    LINEAR_GATHER,
    LINEAR_SCATTER,
)
from lepton_mpi.collectives.schedules.schedule import Algorithm, Collective
from lepton_mpi.collectives.schedules.two_level import TWO_LEVEL


def _by_name(*algorithms: Algorithm) -> dict[str, Algorithm]:
    return {algorithm.name: algorithm for algorithm in algorithms}


ALGORITHMS = _by_name(
    RING,
    BIDIRECTIONAL_RING,
    RECURSIVE_DOUBLING,
    RABENSEIFNER,
    CIRCULANT,
    DOUBLE_BINARY_TREE,
    PAIRWISE,
    DIRECT,
    TWO_LEVEL,
)

COLLECTIVES: dict[Collective, dict[str, Algorithm]] = {
    Collective.ALLREDUCE: ALGORITHMS,
    Collective.REDUCE_SCATTER: _by_name(
        RING_REDUCE_SCATTER, CIRCULANT_REDUCE_SCATTER, PAIRWISE_REDUCE_SCATTER
    ),
    Collective.ALLGATHER: _by_name(RING_ALLGATHER, CIRCULANT_ALLGATHER, PAIRWISE_ALLGATHER),
    Collective.BROADCAST: _by_name(BINOMIAL_BROADCAST, DOUBLE_BINARY_TREE_BROADCAST),
    Collective.REDUCE: _by_name(BINOMIAL_REDUCE, CIRCULANT_REDUCE),
    Collective.GATHER: _by_name(BINOMIAL_GATHER, LINEAR_GATHER),
    Collective.SCATTER: _by_name(BINOMIAL_SCATTER, LINEAR_SCATTER),
    Collective.ALLTOALL: _by_name(PAIRWISE_ALLTOALL, BRUCK),
    Collective.BARRIER: _by_name(DISSEMINATION_BARRIER),
}
