"""What a process reads from the launcher's environment."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lepton_mpi import launcher

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
    assert launcher.launched_rank(environment) == rank
    assert launcher.launched_size(environment) == size
    assert launcher.launched_local_size(environment) == local_size


@pytest.fixture
def no_thread_counts(monkeypatch):
    """An environment without thread counts and launcher."""
    for name in (*launcher._THREADS, *OPEN_MPI, *MPICH, *SLURM_STEP):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def _limited(threads: int) -> set[str]:
    launcher.limit_threads(threads)
    return {os.environ[name] for name in launcher._THREADS}


def test_threads_are_set_as_asked(no_thread_counts):
    """BLAS and Numba get the given number of threads."""
    assert _limited(3) == {"3"}


@pytest.mark.parametrize(
    ("cores", "ranks", "threads"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 8, 1)]
)
def test_cores_are_divided_among_the_ranks_of_a_host(no_thread_counts, cores, ranks, threads):
    """0 gives each rank its share of the cores, one at least."""
    no_thread_counts.setattr(launcher, "core_count", lambda: cores)
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
        "from lepton_mpi import launcher; print(launcher.core_count())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert ended.stdout == "1\n", ended.stderr


_GROUPS = {
    "none": ({}, None),
    "no limit": ({"cpu.max": "max 100000"}, None),
    "a core": ({"a/b/cpu.max": "100000 100000"}, 1),
    "two and a half": ({"a/b/cpu.max": "250000 100000"}, 2),
    "less than one": ({"a/b/cpu.max": "20000 100000"}, 1),
    "of the group around it": ({"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
    "of a container": ({"cpu.max": "400000 100000"}, 4),
    "version 1": ({"cpu/a/b/cpu.cfs_quota_us": "200000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 2),
    "version 1, no limit": (
        {"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"},
        None,
    ),
    "of other kinds": ({"memory/a/b/cpu.max": "100000 100000", "cpu.max": "?"}, None),
}


@pytest.mark.parametrize("name", _GROUPS)
def test_a_quota_of_processor_time_limits_the_cores(tmp_path, name):
    """Of both versions of control groups, and of every group that the process is in."""
    files, expected = _GROUPS[name]
    (tmp_path / "proc/self").mkdir(parents=True)
    of_version = "4:memory:/a/b\n2:cpu,cpuacct:/a/b\n" if "version" in name else "0::/a/b\n"
    (tmp_path / "proc/self/cgroup").write_text(of_version)
    for file, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert launcher.core_quota(tmp_path) == expected


def test_cores_are_the_fewer_of_those_and_the_quota(monkeypatch):
    """Whichever it is."""
    monkeypatch.setattr(launcher, "core_numbers", lambda: {0, 1, 2, 3})
    for quota, cores in ((None, 4), (2, 2), (9, 4)):
        monkeypatch.setattr(launcher, "core_quota", lambda quota=quota: quota)
        assert launcher.core_count() == cores


def test_the_head_says_how_many_cores_there_are_if_they_are_few():
    """Fewer than ranks, or fewer by a quota than the process may run on."""
    from lepton_mpi.run import summary

    for ranks, cores, has_quota, words in (
        (2, 4, False, "2 ranks on 1 host, "),
        (8, 2, False, "2 ranks on 1 host, 2 cores for 8 ranks, "),
        (2, 1, True, "2 ranks on 1 host, 1 core by cpu.max for 2 ranks, "),
        (2, 3, True, "2 ranks on 1 host, 3 cores by cpu.max, "),
    ):
        world = SimpleNamespace(
            **{"size": 2, "host_count": 1, "local_size": ranks, "cores": cores, "mpi": "MPI 4"},
            has_core_quota=has_quota,
        )
        text = summary._world_text(SimpleNamespace(threads=1), world)
        assert text == f"{words}MPI 4, 1 thread a rank"
