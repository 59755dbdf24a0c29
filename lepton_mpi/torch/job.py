"""The job that torch's process groups belong to: one ``World``, opened by the first of them and closed by the last.

c10d hands a backend neither a context nor a word about its end, so the present job is kept here, by module.

    init_process_group        join(): MPI, the World, the monitor of its process groups
    new_group                 job.group(ranks): a Group of them
    destroy_process_group     job.drop(group); the last one closes the World, and the next init opens a new one
    end of the program        without destroy_process_group: atexit says that this rank is over, so that nobody calls it dead

An exception that nobody catches ends the job by the excepthook of ``world/failure.py``. torch wraps that hook in one of its own
that holds back whatever is printed until the hook returns, which ours never does, and that stays for ever: so the hook here
prints to the real stream, and closing the job removes torch's.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from types import TracebackType

from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.torch.monitor import Monitor
from lepton_mpi.torch.work import Turns
from lepton_mpi.world.rank_group import RankGroup
from lepton_mpi.world.world import World

# Time limits are those of process groups, which the monitor keeps: a rank may compute for as long as it likes.
_NO_LIMIT_SECONDS = 1e9

_present: Job | None = None


class Job:
    """All ranks, for torch. Collective over the job.

    Attributes
    ----------
    world : World
    monitor : Monitor
    turns : list of Turns
        Of the process groups that there are.
    ranks : list of int
        MPI's rank of each of torch's; the same numbers unless ``init_process_group`` was told others.
    """

    def __init__(self) -> None:
        _start_mpi()
        self.world = World(_NO_LIMIT_SECONDS)
        self.world.clock.name_steps("torch")
        self.world.clock.enter("compute", 0)
        self._failure_hook = sys.excepthook
        self._stderr = sys.stderr
        sys.excepthook = self._on_exception
        self.ranks = list(range(self.world.size))
        self.monitor = Monitor(self.world)
        self.turns: list[Turns] = []
        self._groups: list[RankGroup] = []
        self._process = os.getpid()
        atexit.register(self._at_exit)

    def number(self, rank: int, size: int) -> RankGroup:
        """The group of the whole job, numbered as torch has it. Collective over the job.

        Raises ConfigurationError, on all ranks, for numbers that are not those of the job.
        """
        ranks = self.world.comm.allgather((rank, size))
        if sorted(ranks) != [(one, self.world.size) for one in range(self.world.size)]:
            raise ConfigurationError(
                f"init_process_group: expected ranks 0 to {self.world.size - 1} of {self.world.size}, those of the job that MPI "
                f"started, got (rank, world_size) = {ranks}"
            )
        torchs = [one for one, _ in ranks]
        self.ranks = [torchs.index(one) for one in range(self.world.size)]
        group = self.world if self.ranks == sorted(self.ranks) else self.world.group(self.ranks)
        self._groups.append(group)
        return group

    def group(self, ranks: Sequence[int]) -> RankGroup:
        """Some ranks, by torch's numbers, in this order. Collective over them alone."""
        self.keep_mpi_free()
        group = self.world.group([self.ranks[rank] for rank in ranks])
        self._groups.append(group)
        return group

    def keep_mpi_free(self) -> None:
        """Return once no helper thread is in a call, before this one calls MPI; on one host they call no MPI."""
        if self.world.host_count > 1:
            for turns in self.turns:
                turns.drain()

    def drop(self, group: RankGroup) -> None:
        """A process group has ended; with the last one the job of torch has. Collective over the group."""
        self._groups.remove(group)
        if group is not self.world:
            group.close()
        if not self._groups:
            self.close()

    def close(self) -> None:
        """Give back all that the job holds. Collective over the job."""
        global _present
        _present = None
        atexit.unregister(self._at_exit)
        self.monitor.stop()
        # With it goes torch's: each init_process_group would wrap the one before.
        sys.excepthook = self._failure_hook
        self.world.clock.enter("end")
        self.world.close()

    def _at_exit(self) -> None:
        if os.getpid() == self._process:
            self.monitor.leave()
            self.world.abandon()

    def _on_exception(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        sys.stderr = self._stderr
        self._failure_hook(kind, error, trace)


def join() -> Job:
    """The present job, opened if there is none. Collective over the job."""
    global _present
    if _present is None:
        _present = Job()
    return _present


def _start_mpi() -> None:
    """Start MPI; LauncherError if it does not know all of torch's processes, or was started for one thread."""
    from lepton_mpi.world.mpi import MPI, check_launcher

    check_launcher()
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and MPI.COMM_WORLD.size == 1:
        raise LauncherError(
            f"WORLD_SIZE is {started}, but MPI sees one process: torchrun starts processes that do not know of each other as MPI "
            f"ranks. Start the same program by `mpirun -n {started} python …` or `srun --mpi=pmix python …` in place of "
            f"`torchrun --nproc-per-node {started} …`"
        )
    if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
        raise LauncherError(
            "MPI was started for one thread, but process groups of torch call it from several: leave mpi4py.rc.thread_level as it "
            'is, or set it to "serialized"'
        )
