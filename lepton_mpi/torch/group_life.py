"""The life of a process group: how it begins, how a call is carried out, in which thread, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.distributed import Work

from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.torch.monitor import Calls
from lepton_mpi.torch.work import DoneWork, HelpedWork, JointWork, Turns, seconds_of

if TYPE_CHECKING:
    from lepton_mpi.torch.job import Job
    from lepton_mpi.world.rank_group import RankGroup


class GroupLife:
    """What all calls of a process group need.

    Its classes are mixed into one of torch's, whose constructor takes other arguments, so ``_open`` is called in place of one.
    """

    def _open(self, job: Job, group: RankGroup, name: str, timeout_seconds: float) -> None:
        """Collective over the ranks of ``group``, which belongs to the process group from now on.

        Parameters
        ----------
        name : str
            What reports call it.
        timeout_seconds : float
            Of a call, after which the job ends with a report.
        """
        self._job, self._group, self._name = job, group, name
        self._timeout_seconds = timeout_seconds
        self._communicator: Communicator | None = Communicator(group)
        self._me, self._ranks = group.rank, group.size
        # Torch's ranks in the job.
        self._members: list[int] = group.comm.allgather(job.ranks.index(job.world.rank))
        self._calls = Calls(group, self._members, name, timeout_seconds)
        job.monitor.watch(self._calls)
        self._turns = Turns(name)
        job.turns.append(self._turns)
        self._coalesced: list[Any] | None = None

    # -- carrying out ----------------------------------------------------------------------------

    def _carry_out(
        self, verb: str, call: Callable[[Communicator], Any], tensors: list[Tensor], opts: Any
    ) -> Work:
        """Now or by the helper, as ``opts`` has it."""
        communicator, calls = self._communicator, self._calls
        if communicator is None:
            raise RuntimeError(f"process group {self._name} was destroyed; {verb} came after that")
        seconds = seconds_of(getattr(opts, "timeout", None), self._timeout_seconds)

        def carry_out() -> None:
            calls.begin(verb, seconds)
            try:
                call(communicator)
            finally:
                calls.end()

        if getattr(opts, "asyncOp", True):
            work: Any = self._turns.later(carry_out, HelpedWork(tensors))
        else:
            self._turns.now(carry_out)
            work = DoneWork(tensors)
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work

    def carry_out(
        self, verb: str, call: Callable[[Communicator], Any], tensors: list[Tensor]
    ) -> Work:
        """A call that hooks of DDP make of their own, by the helper. Collective over the group; ``verb`` is for reports."""
        return self._carry_out(verb, call, tensors, None)

    @property
    def is_on_one_host(self) -> bool:
        """Whether all ranks are."""
        return self._group.host_count == 1

    # -- several calls as one --------------------------------------------------------------------

    def _start_coalescing(self, device: Any = None) -> None:
        self._coalesced = []

    def _end_coalescing(self, device: Any = None) -> Work:
        works, self._coalesced = self._coalesced or [], None
        return JointWork(works)

    # -- the end, and what torch asks ------------------------------------------------------------

    def shutdown(self) -> None:
        """Give back what the group holds. Collective over it; does nothing the second time."""
        if self._communicator is None:
            return
        communicator, self._communicator = self._communicator, None
        self._turns.close(self._timeout_seconds)
        self._job.turns.remove(self._turns)
        self._job.keep_mpi_free()
        communicator.close()
        self._job.monitor.forget(self._calls)
        self._job.drop(self._group)

    def abort(self) -> None:
        """The same: calls that are under way end first, or the job does."""
        self.shutdown()

    def set_timeout(self, timeout: timedelta) -> None:
        """Of the calls from now on."""
        self._timeout_seconds = timeout.total_seconds()
        self._calls.timeout_seconds = self._timeout_seconds

    _set_default_timeout = set_timeout

    def _get_sequence_number_for_group(self) -> int:
        return self._calls.count

    def _set_sequence_number_for_group(self) -> None:
        """Calls are counted from 0 on all ranks."""
