"""What a process can know and set before NumPy and MPI are loaded. Imports neither.

BLAS and Numba read their thread counts when they load, and ``--help`` or a usage error must not start
MPI, so rank and world size come from the launcher's environment here. ``world.py`` checks afterwards
that the MPI library agrees with them.
"""

import ctypes
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lepton_mpi.control_groups import hierarchies, lines_of
from lepton_mpi.processes import look_at
from lepton_mpi.wording import printable

# Each launcher's own names, most specific first. Slurm's are those of a job step: a shell inside
# `salloc` has SLURM_NTASKS set although it is no rank.
_RANK = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
_SIZE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_RANK = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
_LOCAL_SIZE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

# What the variables of ``Joining`` begin with. The launcher's own say of a rank that joins that it is the only one of a job.
JOINS = "LEPTON_JOINS_"

_PR_SET_PDEATHSIG = 1

# Longer than ranks that start at the same time are apart on a busy machine.
_COMPLAINT_SECONDS = 2.0


def _first_number(environment: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    for name in names:
        digits = environment.get(name, "").split("(")[0].split(",")[0]  # Slurm writes "4(x2),3"
        if digits.isdigit():
            return int(digits)
    return default


class Joining(NamedTuple):
    """A rank that joins a job which is running, see ``world/joining.py``.

    Attributes
    ----------
    rank, size : int
        In place of those that the launcher gave: no other process of the job has had this number.
    further : int
        Ranks that come behind it.
    token : str
        Of those that join together.
    began : int
        When the job's program began, in ticks since the boot: what ``--time-limit`` counts from.
    """

    rank: int
    size: int
    further: int
    token: str
    began: int = 0

    def variables(self) -> dict[str, str]:
        """Of its environment."""
        return {f"{JOINS}{name.upper()}": str(value) for name, value in self._asdict().items()}


def joining(environment: Mapping[str, str] = os.environ) -> Joining | None:
    """What this process joins; None where it was started with its job."""
    token = environment.get(f"{JOINS}TOKEN")
    if token is None:
        return None
    rank, size, further, began = (
        _first_number(environment, (f"{JOINS}{name}",), 0)
        for name in ("RANK", "SIZE", "FURTHER", "BEGAN")
    )
    return Joining(rank, size, further, token, began)


def program_began() -> int:
    """When the job's program began, in ticks since the boot, also for a rank that has joined later."""
    joins, found = joining(), look_at("self")
    return (joins.began if joins else 0) or (found.began if found else 0)


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Rank that the launcher gave this process; 0 without a launcher."""
    return _first_number(environment, (f"{JOINS}RANK", *_RANK), 0)


def launched_size(environment: Mapping[str, str] = os.environ) -> int:
    """Number of processes that the launcher started; 1 without a launcher."""
    return _first_number(environment, (f"{JOINS}SIZE", *_SIZE), 1)


def launched_local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Number of this process among those of this job on this host; the job's where the launcher does not say."""
    names = (f"{JOINS}RANK", *_LOCAL_RANK)
    return _first_number(environment, names, launched_rank(environment))


def is_launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher of MPI started this process, if only as one rank."""
    return any(name in environment for name in (*_RANK[:3], _SIZE[2]))


def tolerates_losses(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher leaves the other ranks alone when one ends: Open MPI's ``mpirun --with-ft ulfm``."""
    return environment.get("OMPI_MCA_mpi_ft_enable", "") in ("1", "true")


def launched_local_size(environment: Mapping[str, str] = os.environ) -> int:
    """Number of processes of this job on this host; the job's size where the launcher does not say."""
    names = (f"{JOINS}SIZE", *_LOCAL_SIZE)
    return _first_number(environment, names, launched_size(environment))


def core_numbers() -> set[int]:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def core_quota(root: Path = Path("/")) -> int | None:
    """Whole cores of processor time that the control groups of this process leave it, at least 1; None without such a limit.

    As of ``docker --cpus`` and of a limit in Kubernetes; a process that has used its time up stands still until the next period.
    ``root`` is where proc and sys are; another one is for tests.
    """
    found = []
    for is_unified, groups in hierarchies("cpu", root):
        for group in groups:
            words = " ".join(lines_of(group / "cpu.max")[:1]).split()
            if not is_unified:
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                words = [word for name in names for word in lines_of(group / name)[:1]]
            if len(words) == 2 and all(map(str.isdigit, words)) and int(words[1]):
                found.append(int(words[0]) / int(words[1]))
    return max(1, int(min(found))) if found else None


def core_count() -> int:
    """How many cores this process may keep busy."""
    cores, quota = len(core_numbers()), core_quota()
    return cores if quota is None else min(cores, quota)


def cpu_model() -> str:
    """Name of the processor, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def limit_threads(threads: int) -> None:
    """Give BLAS and Numba ``threads`` threads in this process; 0 divides the cores among the host's ranks.

    Call before NumPy is loaded. A count that the user has put in the environment stays.
    """
    count = threads or max(1, core_count() // launched_local_size())
    for name in _THREADS:
        os.environ.setdefault(name, str(count))


def die_with_launcher() -> None:
    """Ask Linux to end this process when its launcher dies, so that a killed ``mpirun`` leaves no orphans."""
    if launched_size() > 1 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def complain(*lines: str) -> None:
    """Print ``lines`` to standard error, once for the job, before MPI is there to agree by. Every rank calls it.

    Names of files in them may have any characters: each stays one line.

    The others wait for the first one: launchers end a job as soon as one process leaves with an error code, and
    the reason would be lost if that process was not the one that tells it.
    """
    if launched_rank() == 0:
        print("\n".join(map(printable, lines)), file=sys.stderr, flush=True)
    else:
        time.sleep(_COMPLAINT_SECONDS)  # until the launcher ends this process
