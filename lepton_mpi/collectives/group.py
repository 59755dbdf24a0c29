"""``Group``: some ranks, as collectives and strategies see them. The whole job is one; ``group`` makes others.

    job of 4 ranks on hosts a and b      rank  0 1 | 2 3     hosts a = [0, 1], b = [2, 3], two lanes
    group([2, 3])                        rank      | 0 1     one host, as in a job of 2 ranks
    group([3, 1])                        rank    1 | 0       hosts b = [0], a = [1], one lane

Whatever runs on a job of n ranks runs on any group of n, with the same bits. Groups without a common rank may run at the
same time. A rank that is in several groups uses one after the other, in an order in which no two of them wait for each other.

Nobody may assume that a group is the job: ``size`` is the group's, ``rank`` counts its ranks, and output that one rank
of the job is to print is not for a group's rank 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from mpi4py import MPI
    from numpy.typing import DTypeLike

    from lepton_mpi.errors import LeptonError


class Clock(Protocol):
    """What this rank tells of itself to the ranks of its host, and what its time is spent on."""

    def enter(self, phase: str, step: int | None = None) -> None:
        """From now on this rank is in ``phase``, one of ``world/heartbeats.py``."""

    @property
    def row(self) -> np.ndarray:
        """What it tells: step, number of the phase, CLOCK_MONOTONIC seconds at its begin; float64."""

    def number_of(self, phase: str) -> int:
        """Of a phase, as it stands in the row."""

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count ``seconds`` that are booked under ``source`` as ``target``."""


class Group(Protocol):
    """Ranks 0 to ``size - 1``. "Collective" below: over the group, by all of its ranks in the same order.

    Attributes
    ----------
    rank, size : int
        This rank's number, and how many there are.
    host_index, host_count : int
        This rank's host, and how many the group is on; hosts are numbered by their lowest rank.
    local_rank, local_size : int
        Number of this rank among the group's ranks on its host, and how many they are.
    ranks_of_hosts : list of lists of int
        Ranks of each host; ascending.
    place, places_of_hosts : int, list of ranges
        Numbers of this rank, and of each host's ranks, counted host by host. Ranks may be dealt to hosts in turn, and what
        belongs to a host should be next to each other.
    lane_count : int
        Lanes between hosts: the lowest number of ranks on a host.
    lane_comm : MPI.Comm or None
        This rank's lane, the ranks of the same ``local_rank``, by host_index; None on one host and for ranks on no lane.
    collective_comm : MPI.Comm
        All ranks, in order. It and ``lane_comm`` carry nothing but the messages of collectives.
    cores : int
        Cores of this host for the group's ranks, all together.
    mpi, cpu : str
        The MPI library and, of rank 0, the processor.
    remembered : dict
        What modules keep for the life of the group, each under a name of its own.
    clock : Clock
        This rank's, the same one in all of its groups.
    """

    rank: int
    size: int
    host_index: int
    host_count: int
    local_rank: int
    local_size: int
    ranks_of_hosts: list[list[int]]
    place: int
    places_of_hosts: list[range]
    lane_count: int
    lane_comm: MPI.Comm | None
    collective_comm: MPI.Comm
    cores: int
    mpi: str
    cpu: str
    remembered: dict[str, Any]

    @property
    def clock(self) -> Clock:
        """See above."""

    def agree(self, error: LeptonError | None) -> None:
        """Raise, on every rank, the error of the lowest rank that has one. Collective."""

    def agreeing(self) -> AbstractContextManager[None]:
        """A block in which a LeptonError of one rank is raised on all of them. Collective."""

    def agree_on(self, what: str, value: Any) -> None:
        """Raise RankError on every rank unless all hold the same ``value``. Collective."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's ``value``, any that can be pickled. Collective."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of a small array over ranks, in rank order: the same bits everywhere. Collective."""

    def least(self, value: int) -> int:
        """The least of all ranks' numbers. Collective."""

    def host_array(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        name: str = "other",
        are_awaited: bool = False,
    ) -> np.ndarray:
        """Array of zeros in memory that the group's ranks on this host share, for as long as it or a view is referenced.

        ``name`` is what it is counted under, see ``world/memory.py``. ``are_awaited`` is for words, int64, that ranks wait for in a kernel,
        but for the first line: where a job goes on without ranks that died, such waits end. Collective over the host.
        """

    def host_barrier(self) -> None:
        """Wait for the group's ranks on this host. Collective over the host."""

    def check_losses(self) -> None:
        """To be called while waiting in memory elsewhere than in a kernel: raises an error where a rank is lost and the job goes on without it."""

    def watch(self, look: Callable[[], str]) -> None:
        """Have a method called about once a second, from another thread, as long as its object lives; a text that it returns ends the job."""

    def group(self, ranks: Sequence[int]) -> Group:
        """Some of these ranks as a group, numbered as listed. Collective over the listed ranks alone, which list the same.

        Raises ConfigurationError for ranks that do not exist or are listed twice, and on a rank that is not listed;
        RankError if the lists differ.
        """

    def close(self) -> None:
        """Give back communicators and memory, those of groups made of it too. Collective.

        Plans of the group must not run any more. What is not closed ends with the job.
        """
