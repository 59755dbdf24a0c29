"""Some ranks of the job over MPI: where they are, what they share, how they agree. The contract is ``collectives/group.py``."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError, LeptonError, RankError
from lepton_mpi.world import memory, shared_memory
from lepton_mpi.world.calls import ROOM_BYTES, Call, Calls

if TYPE_CHECKING:
    from mpi4py import MPI
    from numpy.typing import DTypeLike

    from lepton_mpi.world.losses import Losses
    from lepton_mpi.world.stopping import Stopping
    from lepton_mpi.world.watchdog import PhaseClock

_Comm = TypeVar("_Comm", bound="MPI.Comm")

# The first line of a control block has no word that a rank waits for.
CONTROL_AT = 16
# Of what is said on ``comm`` before a new group has a communicator of its own.
_LISTS_TAG, _VERDICT_TAG, _MAKING_TAG = 101, 102, 103


class RankGroup:
    """The ranks of a communicator, as a ``Group``, whose attributes are not repeated here. Collective over them.

    Parameters
    ----------
    comm : MPI.Intracomm
        Belongs to the group from now on.
    clock : PhaseClock
        This rank's.
    parent : RankGroup, optional
        Whose ranks these are.
    losses : Losses, optional
        What ends the waits of this rank when another one is lost.

    Attributes
    ----------
    comm : MPI.Intracomm
        For what this class and its users say; ``collective_comm`` is for the collectives alone.
    host_comm : MPI.Intracomm
        The ranks of this host, by local_rank.
    host_ranks : list of int
        The same by their numbers in the group.
    cores : int
        Cores that the ranks of this host can keep busy; ``has_core_quota`` if control groups leave them fewer than they may
        run on.
    stopping : Stopping or None
        On which step the ranks stop; None for a part of a job, since a signal asks all of it to stop.
    can_agree_to_stop : bool
        Whether its hosts are connected, so that ``stopping`` can be asked.
    """

    comm: MPI.Intracomm
    losses: Losses | None
    stopping: Stopping | None = None
    can_agree_to_stop: bool = False

    def __init__(
        self,
        comm: MPI.Intracomm,
        clock: PhaseClock,
        parent: RankGroup | None = None,
        losses: Losses | None = None,
    ) -> None:
        from lepton_mpi.world.mpi import MPI, mpi_library

        self.losses = parent.losses if parent else losses
        self.comm, self.clock = self._owned(comm), clock
        self.collective_comm: MPI.Comm = self._owned(comm.Dup())
        self.rank, self.size = comm.rank, comm.size
        by_host = comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        self.host_comm: MPI.Comm = self._owned(by_host)
        self.local_rank, self.local_size = self.host_comm.rank, self.host_comm.size
        self.mpi, self.cpu = mpi_library(), comm.bcast(launcher.cpu_model())
        self.cores = self._count_cores(parent)
        self.remembered: dict[str, Any] = {}
        self._find_hosts()
        self.lane_comm: MPI.Comm | None = None
        if self.host_count > 1:
            on_lane = self.local_rank < self.lane_count
            lane = comm.Split(self.local_rank if on_lane else MPI.UNDEFINED, self.host_index)
            self.lane_comm = self._owned(lane) if on_lane else None
        self._parent, self._groups = parent, list[RankGroup]()
        # What a part of the job agrees on the rest knows nothing of: ``run`` ends the job with it.
        is_job: bool = parent is None or (parent._calls.is_job and self.size == parent.size)
        self._calls: Calls = Calls(comm, clock, is_job)
        self._is_open = True

    def _owned(self, comm: _Comm) -> _Comm:
        """``comm``, which is revoked when a rank is lost."""
        if self.losses:
            self.losses.revoke_with(comm)
        return comm

    def catching_signals(self) -> AbstractContextManager[None]:
        """A block in which a signal asks ``stopping``: of a part of a job none does, and a signal ends it."""
        return nullcontext()

    def at_failure(self, last_words: Callable[[], None] | None) -> None:
        """Have one rank of every host call ``last_words`` when the job fails, for a second at most; None: no more."""
        if self._parent:
            self._parent.at_failure(last_words)

    def check_losses(self) -> None:
        """See ``Group``: raises RankLostError."""
        if self.losses:
            self.losses.check()

    def watch(self, look: Callable[[], str]) -> None:
        """See ``Group``."""
        if self._parent:
            self._parent.watch(look)

    def host_index_of(self, rank: int) -> int:
        """The host of a rank, counted as ``host_index``."""
        return next(host for host, ranks in enumerate(self.ranks_of_hosts) if rank in ranks)

    def _find_hosts(self) -> None:
        """Which ranks are on which host: the same on every rank."""
        self.host_ranks: list[int] = self.host_comm.allgather(self.rank)
        hosts = {ranks[0]: ranks for ranks in self.comm.allgather(self.host_ranks)}
        self.ranks_of_hosts = [hosts[leader] for leader in sorted(hosts)]
        self.host_index = sorted(hosts).index(self.host_ranks[0])
        self.host_count = len(hosts)
        self.places_of_hosts = places_of_hosts(self.ranks_of_hosts)
        self.place = self.places_of_hosts[self.host_index][self.local_rank]
        self.lane_count = min(map(len, self.ranks_of_hosts))

    def _count_cores(self, parent: RankGroup | None) -> int:
        """Cores that the ranks of this host may run on: all together, since launchers may bind each rank to its own.

        No more than a quota of processor time allows. Of cores that ranks of other groups use as well, a part: with a core less than ranks, waiting ranks give it away.
        """
        found = self.host_comm.allgather((launcher.core_numbers(), launcher.core_quota()))
        cores = len(set[int]().union(*(numbers for numbers, _ in found)))
        quotas = [quota for _, quota in found if quota is not None and quota < cores]
        self.has_core_quota = bool(quotas)
        cores = min([cores, *quotas])
        if parent is None:
            return cores
        return max(1, min(cores, parent.cores * self.local_size // parent.local_size))

    # -- agreement -------------------------------------------------------------------------------

    def agree(self, error: LeptonError | None) -> None:
        """Raise, on every rank, the error of the lowest rank that has one. Collective."""
        if not self._calls.meet(Call("agree"), error is not None).any():
            return
        errors = self.comm.allgather(error and (type(error), str(error)))
        for kind, message in filter(None, errors):
            agreed = kind(message)
            agreed.agreed = self._calls.is_job
            raise agreed from error

    @contextmanager
    def agreeing(self) -> Generator[None]:
        """A block in which a LeptonError of one rank is raised on all of them. Collective."""
        error = None
        try:
            yield
        except LeptonError as raised:
            error = raised
        self.agree(error)

    def agree_on(self, what: str, value: Any) -> None:
        """Raise RankError on every rank unless all ranks hold the same ``value``. Collective.

        Of dicts, the message has what differs.
        """
        told = self._calls.meet(Call("agree_on"), _digest(value))
        if (told == told[0]).all() and told[0]:
            return
        values = self.comm.allgather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                first, came = _different(values[0], other)
                self.agree(
                    RankError(
                        f"{what} differs between ranks: rank 0 has {first}, rank {rank} has {came}"
                    )
                )

    def broadcast(self, value: Any) -> Any:
        """Rank 0's ``value``, any that can be pickled. Collective."""
        self._calls.meet(Call("broadcast"))
        return self.comm.bcast(value)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of a small array over ranks, in rank order, so that all ranks get the same bits. Collective."""
        values = np.ascontiguousarray(values)
        call = Call("sum", values.dtype.name, values.size)
        if values.nbytes <= ROOM_BYTES:
            self._calls.meet(call, 0, values)
            return self._calls.more_of(values).sum(axis=0)
        self._calls.meet(call)
        everybody = np.empty((self.size, *values.shape), values.dtype)
        self.comm.Allgather(values, everybody)
        return everybody.sum(axis=0)

    def array_of(self, rank: int, values: np.ndarray) -> np.ndarray:
        """The ``values`` of one rank, of one dimension and any length, on all. Collective."""
        counts = self._calls.meet(Call("array_of", values.dtype.name, root=rank), len(values))
        count = int(counts[rank])
        found = values if self.rank == rank else np.empty(count, values.dtype)
        self.comm.Bcast(found, root=rank)
        return found

    def least(self, value: int) -> int:
        """The least of all ranks' whole numbers. Collective."""
        return int(self._calls.meet(Call("least"), value).min())

    # -- memory ----------------------------------------------------------------------------------

    def host_array(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        name: str = "other",
        are_awaited: bool = False,
    ) -> np.ndarray:
        """Array of zeros that all ranks of this host read and write in place. Collective over the host.

        ``name`` is what ``memory.py`` counts it under; ``are_awaited`` is for words that ranks wait for, behind a line of others.
        """
        array = shared_memory.host_array(self.host_comm, shape, dtype, name)
        if self.losses and are_awaited:
            self.losses.fill_with(array, CONTROL_AT)
        return array

    def host_barrier(self) -> None:
        """Wait for all ranks of this host. Collective over the host."""
        self.clock.begin_meeting()
        self.host_comm.Barrier()
        self.clock.end_meeting()

    def memory_available(self) -> int:
        """Bytes of memory that this host has free for this job."""
        return memory.available_bytes()

    # -- smaller groups --------------------------------------------------------------------------

    def group(self, ranks: Sequence[int]) -> RankGroup:
        """Some of these ranks as a group, numbered as listed. Collective over the listed ranks alone, which list the same.

        Raises ConfigurationError and RankError, see ``Group``.
        """
        ranks = list(ranks)
        if len(set(ranks)) != len(ranks) or not set(ranks) <= set(range(self.size)):
            raise ConfigurationError(
                f"group: expected different ranks from 0 to {self.size - 1}, got {ranks}"
            )
        if self.rank not in ranks:
            raise ConfigurationError(
                f"group: rank {self.rank} is not in {ranks}; only the listed ranks make a group"
            )
        self._check_lists(ranks)
        everybody = self.comm.Get_group()
        members = everybody.Incl(ranks)
        made = RankGroup(self.comm.Create_group(members, _MAKING_TAG), self.clock, self)
        members.Free()
        everybody.Free()
        self._groups.append(made)
        return made

    def _check_lists(self, ranks: list[int]) -> None:
        """Raise RankError on all ``ranks`` if they list different ones: MPI would fail, or wait for ever."""
        leader = min(ranks)
        if self.rank == leader:
            others = [rank for rank in ranks if rank != leader]
            lists = {rank: self.comm.recv(source=rank, tag=_LISTS_TAG) for rank in others}
            different = {rank: other for rank, other in lists.items() if other != ranks}
            verdict = (leader, ranks, different)
            for rank in others:
                self.comm.send(verdict, rank, _VERDICT_TAG)
        else:
            self.comm.send(ranks, leader, _LISTS_TAG)
            _, ranks, different = self.comm.recv(source=leader, tag=_VERDICT_TAG)
        for rank, other in different.items():
            raise RankError(f"group: rank {leader} lists {ranks}, rank {rank} lists {other}")

    def close(self) -> None:
        """Give back communicators, those of groups made of it too. Collective; does nothing the second time."""
        if not self._is_open:
            return
        self._is_open = False
        for made in list(self._groups):
            made.close()
        if self._parent:
            self._parent._groups.remove(self)
        self.remembered.clear()
        for comm in (self.lane_comm, self.host_comm, self.collective_comm, self.comm):
            if comm is not None:
                comm.Free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: Any
    ) -> None:
        """Close, unless this rank alone leaves by an error: then the others may wait elsewhere, and the job ends."""
        if error is None or (isinstance(error, LeptonError) and error.agreed):
            self.close()


def _different(one: Any, other: Any) -> tuple[Any, Any]:
    """Both, or where they are dicts those of their entries that differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one, other
    keys = [key for key in one | other if one.get(key) != other.get(key)]
    return tuple({key: side[key] for key in keys if key in side} for side in (one, other))  # type: ignore[return-value]


def _digest(value: Any) -> int:
    """Of what ``value`` says, the same for equal ones of one program; 0 where it cannot be told. Others are compared themselves."""
    try:
        content = pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return 0
    return int.from_bytes(blake2b(content, digest_size=7).digest(), "little")


def places_of_hosts(ranks_of_hosts: list[list[int]]) -> list[range]:
    """Places of each host's ranks: consecutive numbers, in the order of hosts and local ranks.

    >>> places_of_hosts([[0, 2], [1, 3, 4]])
    [range(0, 2), range(2, 5)]
    """
    stops = list(accumulate(map(len, ranks_of_hosts)))
    return [
        range(stop - len(ranks), stop) for ranks, stop in zip(ranks_of_hosts, stops, strict=True)
    ]


if TYPE_CHECKING:
    from lepton_mpi.collectives.group import Group

    def _is_a_group(ranks: RankGroup) -> Group:
        return ranks
