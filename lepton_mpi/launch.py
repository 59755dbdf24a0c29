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

# Each launcher's own names, most specific first. Slurm's are those of a job step: a shell inside
# `salloc` has SLURM_NTASKS set although it is no rank.
_RANK = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
_SIZE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_SIZE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_PR_SET_PDEATHSIG = 1

# Longer than ranks that start at the same time are apart on a busy machine.
_COMPLAINT_SECONDS = 2.0


def _first_number(environment: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    for name in names:
        digits = environment.get(name, "").split("(")[0].split(",")[0]  # Slurm writes "4(x2),3"
        if digits.isdigit():
            return int(digits)
    return default


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Rank that the launcher gave this process; 0 without a launcher."""
    return _first_number(environment, _RANK, 0)


def launched_size(environment: Mapping[str, str] = os.environ) -> int:
    """Number of processes that the launcher started; 1 without a launcher."""
    return _first_number(environment, _SIZE, 1)


def launched_local_size(environment: Mapping[str, str] = os.environ) -> int:
    """Number of processes of this job on this host; the job's size where the launcher does not say."""
    return _first_number(environment, _LOCAL_SIZE, launched_size(environment))


def core_numbers() -> set[int]:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def core_count() -> int:
    """How many cores this process may run on."""
    return len(core_numbers())


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
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def complain(text: str) -> None:
    """Print ``text`` to standard error, once for the job, before MPI is there to agree by. Every rank calls it.

    The others wait for the first one: launchers end a job as soon as one process leaves with an error code, and
    the reason would be lost if that process was not the one that tells it.
    """
    if launched_rank() == 0:
        print(text, file=sys.stderr, flush=True)
    else:
        time.sleep(_COMPLAINT_SECONDS)  # until the launcher ends this process
