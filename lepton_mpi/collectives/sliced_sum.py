"""The sum of many leaves, spread over the ranks, slice by slice: what gradients need."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_mpi.collectives.algorithms import ALGORITHMS
from lepton_mpi.collectives.allreduce import check_arguments
from lepton_mpi.collectives.host_memory import HostPlan, HostVectors, Leaves
from lepton_mpi.collectives.messages import MessagePlan
from lepton_mpi.collectives.mpi import MpiAllreducePlan, MpiTransport
from lepton_mpi.collectives.tuning import choose
from lepton_mpi.collectives.two_level_plan import TwoLevelPlan


@dataclass
class SlicedSum:
    """A planned sum of leaves over all ranks.

    Attributes
    ----------
    algorithm, reason : str
        What was chosen, and why.
    nodes : list of (start, stop)
        Runs of leaves that this rank adds up by itself, each into one of ``inputs``.
    inputs : list of arrays, shape (count,)
    result : array, shape (count,)
        After ``plans[k].run()``, slice k holds the sum; not to be written to.
    slices : list of (start, stop)
    plans : list
        One per slice, to be run in order by every rank.
    """

    algorithm: str
    reason: str
    nodes: list[tuple[int, int]]
    inputs: list[np.ndarray]
    result: np.ndarray
    slices: list[tuple[int, int]]
    plans: list[Any]


def make_sliced_sum(
    world,
    count: int,
    dtype: np.dtype,
    leaf_count: int,
    slices: list[tuple[int, int]],
    algorithm: str,
    segment_bytes: int,
) -> SlicedSum:
    """Plan the sum of ``leaf_count`` vectors, spread evenly over the ranks. Collective over ``world``.

    With "host" and "two_level" the bits of the sum depend on the leaves alone, with the others on the number
    of ranks too. Parameters as for ``make_plan``; ``segment_bytes`` is the size of one message.
    """
    longest = max((stop - start for start, stop in slices), default=0)
    choice = choose(world, algorithm, "shared", longest * dtype.itemsize, reproducible=True)
    algorithm, words = choice.algorithm, (choice.algorithm, choice.reason)
    with world.agreeing():
        check_arguments("shared", None, "sum", algorithm, world)
    leaves = Leaves.spread(leaf_count, world.size)
    if algorithm in ("host", "two_level"):
        vectors = HostVectors(world, count, dtype, "shared", leaves)
        plan_kind = HostPlan if world.host_count == 1 else TwoLevelPlan
        plans = [plan_kind(vectors, start, stop) for start, stop in slices]
        nodes = leaves.nodes(world.place)
        return SlicedSum(*words, nodes, vectors.inputs, vectors.result, slices, plans)
    vector = np.zeros(count, dtype)
    run = leaves.bounds[world.place], leaves.bounds[world.place + 1]
    nodes = [run] if run[0] < run[1] else []
    comm = world.collective_comm
    if algorithm in ("mpi", "mpi_persistent"):
        persistent = algorithm == "mpi_persistent"
        plans = [
            MpiAllreducePlan(vector[start:stop], comm, persistent=persistent)
            for start, stop in slices
        ]
    else:
        transport = MpiTransport(comm)
        plans = [
            MessagePlan(ALGORITHMS[algorithm], vector[a:b], transport, segment_bytes)
            for a, b in slices
        ]
    if not nodes:
        plans = [
            _FromZero(plan, vector[start:stop])
            for plan, (start, stop) in zip(plans, slices, strict=True)
        ]
    return SlicedSum(*words, nodes, [vector] * len(nodes), vector, slices, plans)


class _FromZero:
    """For a rank without a leaf: it adds nothing, and its vector holds the sum of the time before."""

    def __init__(self, plan: Any, vector: np.ndarray) -> None:
        self._plan, self._vector = plan, vector

    @property
    def wait_seconds(self) -> float:
        return self._plan.wait_seconds

    def run(self) -> None:
        self._vector[:] = 0
        self._plan.run()
