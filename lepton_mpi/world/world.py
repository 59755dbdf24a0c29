"""The ranks of a run: who they are, what they share, how they agree, and how a failing job ends.

The rule that keeps a job from hanging: an error is either agreed on, and then every rank raises it at the
same place (``World.agree``), or it is one rank's own, and then that rank aborts the job. There is no
third way: the excepthook set here makes sure of it for code that knows nothing of this rule.
"""

import fcntl
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from math import prod
from typing import Any

import mpi4py
import numpy as np

from lepton_mpi import launch
from lepton_mpi.errors import LauncherError, LeptonError, RankError
from lepton_mpi.world import memory, pages
from lepton_mpi.world.watchdog import PhaseClock, Watchdog

# mpi4py's default, MPI_THREAD_MULTIPLE, makes MPICH avoid its shared-memory collectives.
mpi4py.rc.thread_level = "funneled"
with warnings.catch_warnings():
    # mpi4py guesses at a wrong launcher here; `_check_launcher` knows, and says what to do.
    warnings.simplefilter("ignore")
    from mpi4py import MPI


def run(function: Callable[["World"], Any], timeout_seconds: float) -> int:
    """Call ``function(world)`` on every rank and return the exit code of the job. Collective."""
    try:
        world = World(timeout_seconds)
    except LauncherError as error:
        launch.complain(f"lepton_mpi: {error}")
        return error.exit_code
    try:
        function(world)
        return 0
    except LeptonError as error:
        if not error.agreed:
            world.fail(f"lepton_mpi: rank {world.rank} of {world.size}: {error}", error.exit_code)
        if world.rank == 0:
            print(f"lepton_mpi: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except (
        SystemExit
    ) as leaving:  # of one rank: it would wait in MPI's end for the others, and they for it
        world.fail(
            f"lepton_mpi: rank {world.rank} of {world.size} left by sys.exit({leaving.code!r})"
        )
        raise
    finally:
        world.clock.enter("over")
        world.watchdog.stop()


class World:
    """All ranks of the job, and this rank's place among them. Making one is collective over the job.

    Attributes
    ----------
    comm : MPI.Comm
        For what this class and its users say; ``collective_comm`` is for the collectives alone.
    rank, size : int
        Process number and number of processes.
    host_index, host_count : int
        This rank's host, and how many there are; hosts are numbered by their lowest rank.
    local_rank, local_size : int
        Place among, and number of, the ranks of this host.
    host_ranks, ranks_of_hosts : list of int, list of lists of int
        Ranks of this host, and of all hosts by host_index; ascending.
    place, places_of_hosts : int, list of ranges
        Number of this rank, and those of all hosts' ranks, counted host by host: launchers may deal ranks
        to hosts in turn, and what belongs to a host should be next to each other.
    lane_count : int
        The lowest number of ranks on a host; so many lanes run between hosts.
    lane_comm : MPI.Comm or None
        The ranks of the same local_rank, by host_index; None on one host and for ranks on no lane.
    cores : int
        Cores of this host that its ranks may run on, all together: launchers may bind each rank to its own.
    mpi, cpu : str
        The MPI library and, of rank 0, the processor, for people.
    remembered : dict
        What other modules keep for the life of the job, each under a name of its own.
    clock : PhaseClock
    """

    def __init__(self, timeout_seconds: float = 300.0) -> None:
        _check_launcher()
        launch.die_with_launcher()
        self.comm = MPI.COMM_WORLD.Dup()
        self.collective_comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.host_comm = self.comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        self.local_rank, self.local_size = self.host_comm.rank, self.host_comm.size
        self.host_ranks = self.host_comm.allgather(self.rank)
        self.cores = len(set().union(*self.host_comm.allgather(launch.core_numbers())))
        self.mpi, self.cpu = mpi_library(), self.comm.bcast(launch.cpu_model())
        self.remembered: dict[str, Any] = {}
        leader = self.host_comm.bcast(self.rank)
        leaders = sorted(set(self.comm.allgather(leader)))
        self.host_index, self.host_count = leaders.index(leader), len(leaders)
        ranks_of_hosts = {ranks[0]: ranks for ranks in self.comm.allgather(self.host_ranks)}
        self.ranks_of_hosts = [ranks_of_hosts[leader] for leader in leaders]
        self.places_of_hosts = places_of_hosts(self.ranks_of_hosts)
        self.place = self.places_of_hosts[self.host_index][self.local_rank]
        self.lane_count = min(map(len, self.ranks_of_hosts))
        self.lane_comm = None
        if self.host_count > 1:
            on_lane = self.local_rank < self.lane_count
            lane = self.comm.Split(self.local_rank if on_lane else MPI.UNDEFINED, self.host_index)
            self.lane_comm = lane if on_lane else None
        self._lock_file = self._open_host_file()
        self._failing = self.host_array((1,), np.int64)
        self.timeout_seconds = timeout_seconds
        self.clock = PhaseClock(self.host_array((self.local_size, 3), np.float64), self.local_rank)
        self._process_ids = self.host_comm.allgather(os.getpid())
        self.watchdog = Watchdog(
            self.clock, timeout_seconds, self._process_ids, self._on_timeout, self._on_death
        )
        sys.excepthook = self._excepthook
        threading.excepthook = lambda hook: self._excepthook(
            hook.exc_type, hook.exc_value, hook.exc_traceback
        )

    # -- agreement -------------------------------------------------------------------------------

    def agree(self, error: LeptonError | None) -> None:
        """Raise, on every rank, the error of the lowest rank that has one. Collective."""
        errors = self.comm.allgather(error and (type(error), str(error)))
        for kind, message in filter(None, errors):
            agreed = kind(message)
            agreed.agreed = True
            raise agreed from error

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """A block in which a LeptonError of one rank is raised on all of them. Collective."""
        error = None
        try:
            yield
        except LeptonError as raised:
            error = raised
        self.agree(error)

    def agree_on(self, what: str, value: Any) -> None:
        """Raise RankError on every rank unless all ranks hold the same ``value``. Collective."""
        values = self.comm.allgather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                self.agree(
                    RankError(
                        f"{what} differs between ranks: rank 0 has {values[0]}, rank {rank} has {other}"
                    )
                )

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of a small array over ranks, in rank order, so that all ranks get the same bits. Collective."""
        everybody = np.empty((self.size, *values.shape), values.dtype)
        self.comm.Allgather(np.ascontiguousarray(values), everybody)
        return everybody.sum(axis=0)

    def least(self, value: int) -> int:
        """The least of all ranks' whole numbers. Collective."""
        return min(self.comm.allgather(value))

    def memory_available(self) -> int:
        """Bytes of memory that this host has free for this job."""
        return memory.available_bytes()

    def first_of_host_first(self, load: Callable[[], Any]) -> Any:
        """``load()`` on rank 0, then on each host's first rank, then on the others. Collective.

        For importing Numba kernels: whoever comes first compiles and writes the cache, the others only
        read it. Ranks that write one cache at the same time can leave it damaged for good, and a cache
        on a network file system is common to all hosts.
        """
        turn = 0 if self.rank == 0 else 1 if self.local_rank == 0 else 2
        for now in range(3):
            if now == turn:
                result = load()
            if now < 2:
                self.comm.Barrier()
        return result

    # -- memory shared by a host -----------------------------------------------------------------

    def host_array(self, shape: tuple[int, ...], dtype: Any, name: str = "other") -> np.ndarray:
        """Array of zeros that all ranks of this host read and write in place. Collective over the host.

        The memory has no name in any file system, so nothing of it outlives the ranks, however they end; ``name`` is
        what ``memory.py`` counts it under.
        """
        dtype = np.dtype(dtype)
        length = pages.file_length(max(1, prod(shape) * dtype.itemsize))
        file = self._open_host_file(length, name)
        memory = pages.map_file(file, length)
        os.close(file)
        self._take_large_pages(memory)
        return memory[: prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def _take_large_pages(self, memory: np.ndarray) -> None:
        """Each rank makes its part of the pages, which are placed near its core; then all map them as they are."""
        page = pages.LARGE_PAGE_BYTES
        count = memory.size // page
        if count == 0:
            return
        bounds = [count * rank // self.local_size * page for rank in range(self.local_size + 1)]
        pages.collapse(memory[bounds[self.local_rank] : bounds[self.local_rank + 1]])
        self.host_barrier()
        pages.collapse(memory)

    def host_barrier(self) -> None:
        """Wait for all ranks of this host. Collective over the host."""
        self.host_comm.Barrier()

    def _open_host_file(self, length: int = 1, name: str = "other") -> int:
        """Descriptor of one unnamed file, opened by each rank of the host on its own."""
        made = None
        if self.local_rank == 0:
            made = os.memfd_create(f"lepton_mpi:{name}")
            os.ftruncate(made, length)
        path = self.host_comm.bcast(f"/proc/{os.getpid()}/fd/{made}")
        file = os.open(path, os.O_RDWR)
        self.host_comm.Barrier()
        if made is not None:
            os.close(made)
        return file

    # -- the end of a failing job ----------------------------------------------------------------

    def fail(self, report: str, exit_code: int = RankError.exit_code) -> None:
        """Print ``report``, unless another rank of this host has failed before, and end the job."""
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)  # Linux takes it back from a rank that dies
        first = not self._failing[0]
        self._failing[0] = 1
        if first:
            sys.stdout.flush()
            print(report, file=sys.stderr, flush=True)
            time.sleep(0.05)  # launchers drop what they have not passed on yet when the job aborts
        fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        if not first:
            time.sleep(2)  # the first one has the cause, and will end this process too
        threading.Timer(2, os._exit, (exit_code,)).start()  # should MPI itself be stuck
        MPI.COMM_WORLD.Abort(exit_code)

    def _excepthook(
        self, kind: type[BaseException], error: BaseException | None, trace: Any
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            self.fail("lepton_mpi: interrupted", 130)
        lines = traceback.format_exception(kind, error, trace)
        self.fail(f"lepton_mpi: rank {self.rank} of {self.size} failed:\n{''.join(lines)}")

    def _on_death(self, local_rank: int) -> None:
        """Called from the watchdog's thread."""
        self.fail(
            f"lepton_mpi: rank {self.host_ranks[local_rank]} of {self.size} (process {self._process_ids[local_rank]}) "
            f"died: {self.clock.state(local_rank)}"
        )

    def _on_timeout(self) -> None:
        """Called from the watchdog's thread."""
        if self.clock.waits_for_others():
            time.sleep(1)  # let a rank that is itself the cause speak first
        host = "\n".join(f"  local rank {i}: {self.clock.state(i)}" for i in range(self.local_size))
        stack = ""
        if not self.clock.waits_for_others():
            frame = sys._current_frames().get(threading.main_thread().ident)
            stack = "".join(["where it is:\n", *traceback.format_stack(frame)])
        self.fail(
            f"lepton_mpi: rank {self.rank} of {self.size} made no progress for {self.timeout_seconds:g} s "
            f"(--timeout); the ranks of its host:\n{host}\n{stack}"
        )


def places_of_hosts(ranks_of_hosts: list[list[int]]) -> list[range]:
    """Places of each host's ranks: consecutive numbers, in the order of hosts and local ranks.

    >>> places_of_hosts([[0, 2], [1, 3, 4]])
    [range(0, 2), range(2, 5)]
    """
    stops = list(accumulate(map(len, ranks_of_hosts)))
    return [
        range(stop - len(ranks), stop) for ranks, stop in zip(ranks_of_hosts, stops, strict=True)
    ]


def mpi_library() -> str:
    """Name and version of the MPI library in use, as ``Open MPI 5.0.11``."""
    words = MPI.Get_library_version().split()
    if words[0] == "Open":
        return f"Open MPI {words[2].lstrip('v').rstrip(',')}"
    if words[0].startswith("MPICH"):
        return f"MPICH {words[2]}"
    return f"Intel MPI {words[3]}" if words[0].startswith("Intel") else " ".join(words[:4])


def _check_launcher() -> None:
    started, found = launch.launched_size(), MPI.COMM_WORLD.size
    if started > 1 and found == 1:
        raise LauncherError(
            f"the launcher started {started} processes, but {mpi_library()} sees each of them alone: "
            "mpirun or srun belongs to another MPI. Use the mpirun of the MPI that mpi4py loads "
            f"({sys.prefix}/bin/mpirun, if it came with pip), with srun try --mpi=pmix or --mpi=pmi2"
        )
