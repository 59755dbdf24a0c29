"""The sum of many leaves over all ranks, slice by slice, where every rank gets a sum of its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_mpi.collectives.allreduce import check_arguments
from lepton_mpi.collectives.choosing.tuning import Choice, choose
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.messages.mpi import MpiAllreducePlan, MpiTransport
from lepton_mpi.collectives.messages.plan import MessagePlan
from lepton_mpi.collectives.schedules.algorithms import ALGORITHMS
from lepton_mpi.collectives.within_host.vectors import Leaves


@dataclass
class SlicedSum:
    """A planned sum of leaves over all ranks.

    Attributes
    ----------
    nodes : list of (start, stop)
        Runs of leaves that this rank adds up by itself, each into one of ``inputs``.
    inputs : list of arrays, shape (count,)
    result : array, shape (count,)
        After ``plans[k].run()``, slice k holds the sum; not to be written to.
    slices : list of (start, stop)
    plans : list
        One per slice, to be run in order by every rank.
    """

    nodes: list[tuple[int, int]]
    inputs: list[np.ndarray]
    result: np.ndarray
    slices: list[tuple[int, int]]
    plans: list[Any]


def choose_for_gradients(
    group: Group, algorithm: str, slices: list[tuple[int, int]], dtype: np.dtype
) -> Choice:
    """What sums gradients, and why. Collective over ``group``; ConfigurationError for an unfitting name."""
    longest = max((stop - start for start, stop in slices), default=0)
    choice = choose(group, algorithm, "shared", longest * dtype.itemsize, reproducible=True)
    with group.agreeing():
        check_arguments("private", None, "sum", choice.algorithm, group)
    return choice


def make_sliced_sum(
    group: Group,
    count: int,
    dtype: np.dtype,
    leaf_count: int,
    slices: list[tuple[int, int]],
    algorithm: str,
    segment_bytes: int,
) -> SlicedSum:
    """Plan the sum of ``leaf_count`` vectors, spread evenly over the ranks. Collective over ``group``.

    ``algorithm`` is MPI's own or a schedule over messages; ``segment_bytes`` is the size of one message. The bits of
    the sum depend on the number of ranks.
    """
    leaves = Leaves.spread(leaf_count, group.size)
    vector = np.zeros(count, dtype)
    run = leaves.bounds[group.place], leaves.bounds[group.place + 1]
    nodes = [run] if run[0] < run[1] else []
    comm = group.collective_comm
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
    return SlicedSum(nodes, [vector] * len(nodes), vector, slices, plans)


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
