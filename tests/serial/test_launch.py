"""What a process reads from the launcher's environment."""

import os
import subprocess
import sys

import pytest

from lepton_mpi import launch

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALNRANKS": "4"}
SLURM_STEP = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_NTASKS": "16",
}
# A batch script or a shell inside salloc: tasks are reserved, and none is started yet.
SLURM_SCRIPT = {
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "0",
    "SLURM_TASKS_PER_NODE": "8(x2)",
    "SLURM_JOB_ID": "1",
}


@pytest.mark.parametrize(
    ("environment", "rank", "size", "local_size"),
    [
        ({}, 0, 1, 1),
        (OPEN_MPI, 3, 8, 4),
        (MPICH, 3, 8, 4),
        (SLURM_STEP, 3, 8, 4),
        (SLURM_SCRIPT, 0, 1, 1),
        (SLURM_STEP | {"SLURM_STEP_TASKS_PER_NODE": "3,2(x2),1"}, 3, 8, 3),
        (SLURM_STEP | {"SLURM_STEP_TASKS_PER_NODE": "8"}, 3, 8, 8),
        (SLURM_SCRIPT | OPEN_MPI, 3, 8, 4),
        (SLURM_SCRIPT | MPICH, 3, 8, 4),
        (SLURM_STEP | {"PMIX_RANK": "3"}, 3, 8, 4),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "0"}, 0, 8, 8),
        ({"OMPI_COMM_WORLD_SIZE": "", "OMPI_COMM_WORLD_RANK": "x"}, 0, 1, 1),
        ({"PMI_SIZE": "-1", "PMI_RANK": "1.5"}, 0, 1, 1),
    ],
    ids=[
        "none",
        "Open MPI",
        "MPICH or Intel MPI",
        "srun",
        "batch script",
        "srun, uneven",
        "srun, one host",
        "Open MPI in a batch script",
        "MPICH in a batch script",
        "srun with PMIx",
        "local size unknown",
        "empty and not a number",
        "no counts",
    ],
)
def test_rank_and_sizes(environment, rank, size, local_size):
    """Rank, number of processes and number on this host, for each launcher."""
    assert launch.launched_rank(environment) == rank
    assert launch.launched_size(environment) == size
    assert launch.launched_local_size(environment) == local_size


@pytest.fixture
def no_thread_counts(monkeypatch):
    """An environment without thread counts and launcher."""
    for name in (*launch._THREADS, *OPEN_MPI, *MPICH, *SLURM_STEP):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def _limited(threads: int) -> set[str]:
    launch.limit_threads(threads)
    return {os.environ[name] for name in launch._THREADS}


def test_threads_are_set_as_asked(no_thread_counts):
    """BLAS and Numba get the given number of threads."""
    assert _limited(3) == {"3"}


@pytest.mark.parametrize(
    ("cores", "ranks", "threads"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 8, 1)]
)
def test_cores_are_divided_among_the_ranks_of_a_host(no_thread_counts, cores, ranks, threads):
    """0 gives each rank its share of the cores, one at least."""
    no_thread_counts.setattr(launch, "core_count", lambda: cores)
    no_thread_counts.setenv("OMPI_COMM_WORLD_SIZE", "64")
    no_thread_counts.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", str(ranks))
    assert _limited(0) == {str(threads)}


def test_the_users_own_thread_counts_stay(no_thread_counts):
    """What stands in the environment is not replaced."""
    no_thread_counts.setenv("OMP_NUM_THREADS", "7")
    assert _limited(2) == {"7", "2"}


def test_cores_are_those_that_the_process_may_use():
    """A process that is bound to one core counts one."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from lepton_mpi import launch; print(launch.core_count())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert ended.stdout == "1\n", ended.stderr
