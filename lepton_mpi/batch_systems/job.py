"""What a batch script is written from. Imports no NumPy."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Mpi = Literal["openmpi", "mpich", "intel"]


@dataclass(frozen=True)
class Job:
    """A job that trains on whole nodes, or an array of jobs, one for each run of a sweep.

    Attributes
    ----------
    name : str
    nodes, ranks_per_node, cores_per_rank : int
    seconds, warning_seconds : float
        The time limit, and how long before it the ranks are told.
    is_requeued : bool
        Whether a job that was stopped before its end is started again.
    queue, account : str
        Empty for the usual ones.
    directives : tuple of str
        More options of the batch system.
    modules : tuple of str
    environment : str
        Folder of a Python environment; empty for none.
    mpi : Mpi
    launcher : str
        Words in place of the usual launcher; empty for that.
    options : tuple of str
        Of train, or of sweep with its file in front.
    run_count, at_once : int
        Runs of a sweep, 0 for a job that trains; how many of them may run at the same time, 0 for all.
    written_by : str
        The command.
    """

    name: str
    nodes: int
    ranks_per_node: int
    cores_per_rank: int
    seconds: float
    warning_seconds: float
    is_requeued: bool
    queue: str
    account: str
    directives: tuple[str, ...]
    modules: tuple[str, ...]
    environment: str
    mpi: Mpi
    launcher: str
    options: tuple[str, ...]
    run_count: int
    at_once: int
    written_by: str

    @property
    def ranks(self) -> int:
        """Of the whole job."""
        return self.nodes * self.ranks_per_node

    @property
    def cores_per_node(self) -> int:
        """That its ranks fill."""
        return self.ranks_per_node * self.cores_per_rank


def mpirun(job: Job, host_file: str) -> str:
    """The launcher of an MPI that is told its hosts by a file, a line for each rank; ``host_file`` is a word of the shell."""
    ranks, cores = job.ranks, job.cores_per_rank
    words = {
        "openmpi": f"mpirun -n {ranks} --hostfile {host_file} --map-by ppr:{job.ranks_per_node}:node:PE={cores} "
        "--bind-to core -x OMP_NUM_THREADS",
        "mpich": f"mpiexec -n {ranks} -f {host_file} -ppn {job.ranks_per_node} -bind-to core:{cores}",
        "intel": f"mpirun -n {ranks} -machinefile {host_file} -ppn {job.ranks_per_node} -genv I_MPI_PIN_DOMAIN {cores}",
    }
    return job.launcher or words[job.mpi]


def lines_of_options(words: Sequence[str]) -> Iterator[str]:
    """Words for a shell, an option with its values on a line."""
    line: list[str] = []
    for word in words:
        if word.startswith("--") and line:
            yield shlex.join(line)
            line = []
        line.append(word)
    if line:
        yield shlex.join(line)
