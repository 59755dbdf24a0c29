"""Backend ``lepton`` of ``torch.distributed``: the class that torch asks for, and its registration."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from lepton_mpi.torch import environment
from lepton_mpi.torch.job import Job, join
from lepton_mpi.torch.process_group import CollectiveVerbs

NAME = "lepton"

# Later torch derives backends in Python from BackendBase; before, Python may only stand in for the whole process group.
_Base: Any = getattr(dist, "BackendBase", dist.ProcessGroup)
_CPU = torch.device("cpu")


class LeptonProcessGroup(CollectiveVerbs, _Base):
    """Ranks of the job as torch sees them. Parameters are those of ``CollectiveVerbs``; torch makes it."""

    def __init__(self, job: Job, group: Any, name: str, timeout_seconds: float) -> None:
        _Base.__init__(self, group.rank, group.size)
        self._torchs_name = self._description = ""
        self._open(job, group, name, timeout_seconds)

    def getBackendName(self) -> str:
        """As torch's C++ asks."""
        return NAME

    _get_backend_name = name = getBackendName

    # What torch's C++ asks a subclass in Python for, since it keeps them with the backends that C++ has.

    def getGroupName(self) -> str:
        """By which torch finds the group."""
        return self._torchs_name

    def setGroupName(self, name: str) -> None:
        """Called by torch once."""
        self._torchs_name = name

    def getGroupDesc(self) -> str:
        """For people."""
        return self._description

    def setGroupDesc(self, description: str) -> None:
        """Called by torch once."""
        self._description = description

    @property
    def _device_types(self) -> list[torch.device]:
        return [_CPU]

    def _get_backend(self, device: torch.device) -> LeptonProcessGroup:
        return self

    @property
    def supports_splitting(self) -> bool:
        """By ``split_group``."""
        return True

    def split_group(
        self,
        new_ranks: list[int],
        timeout: Any = None,
        opts: Any = None,
        group_name: str | None = None,
        group_desc: str | None = None,
        device_types: Any = None,
    ) -> LeptonProcessGroup | None:
        """Some ranks of this group, in their order, as a group of its own; None on the others. Collective over the listed."""
        if self.rank() not in new_ranks:
            return None
        members = [self._members[rank] for rank in new_ranks]
        seconds = timeout.total_seconds() if timeout is not None else self._timeout_seconds
        name = group_name or group_desc or f"{self._name}:split"
        made = LeptonProcessGroup(self._job, self._job.group(members), name, seconds)
        made._set_group_name(name)
        made._set_group_desc(group_desc or name)
        return made


def make_process_group(options: Any, pg_options: Any = None) -> LeptonProcessGroup:
    """What torch calls for ``init_process_group("lepton")`` and ``new_group``. Collective over the ranks of the group.

    Raises LauncherError and ConfigurationError: no MPI, torchrun in place of mpirun, ranks that are not MPI's.
    """
    job = join()
    members = list(options.global_ranks_in_group)
    group = job.group(members) if members else job.number(options.group_rank, options.group_size)
    name = str(options.group_id) if members else "default"
    return LeptonProcessGroup(job, group, name, options.timeout.total_seconds())


def register() -> None:
    """Make ``lepton`` known to torch. Does nothing the second time."""
    if NAME in dist.Backend.backend_list:
        return
    environment.describe_job_to_torch()
    environment.take_over_rendezvous()
    dist.Backend.register_backend(NAME, make_process_group, extended_api=True, devices=["cpu"])
