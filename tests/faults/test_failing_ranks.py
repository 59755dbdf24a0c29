"""A rank that raises, hangs, dies or is stopped ends the job, and one message names it."""

import os
import re
import signal
import time

import psutil
import pytest

from tests.faults import jobs

_MODEL = """
import os, signal, time
import numpy as np
from lepton_mpi.launcher import launched_rank

class Failing:
    def __init__(self, feature_shape, class_count):
        self.shapes = {{"weight": (int(np.prod(feature_shape)), class_count)}}
        self.calls = 0

    def loss_and_gradient(self, parameters, batch, gradient, sync):
        self.calls += 1
        if launched_rank() == 2 and self.calls == 5:
            {action}
        gradient["weight"][:] = 0
        return 0.0
"""


def _train_failing(folder, action: str, *options: str) -> jobs.Ended:
    """Train on 4 ranks a model that does ``action`` at its fifth call on rank 2."""
    path = folder / "failing.py"
    path.write_text(_MODEL.format(action=action))
    return jobs.run(4, *jobs.TRAIN, "--model", f"{path}:Failing", *options, cwd=folder)


def test_exception(tmp_path):
    job = _train_failing(tmp_path, "raise ValueError('on purpose')")
    assert job.code == 5, job.text
    assert job.text.count("Traceback (most recent call last)") == 1, job.text
    assert job.text.count("ValueError: on purpose") == 1, job.text
    assert "rank 2 of 4" in job.err, job.text
    assert "failing.py" in job.err, job.text


@pytest.mark.slow
def test_exit_of_one_rank(tmp_path):
    job = _train_failing(tmp_path, "os._exit(0)")
    assert job.code != 0, job.text
    assert re.search(r"rank 2 of 4 \(process \d+\) died", job.err), job.text


def test_hang(tmp_path):
    job = _train_failing(tmp_path, "time.sleep(1000)", "--timeout", "3")
    assert job.code == 5, job.text
    assert "rank 2 of 4 made no progress" in job.err, job.text
    assert "time.sleep" in job.err, job.text
    assert "failing.py" in job.err, job.text
    assert job.text.count("made no progress") == 1, job.text


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("seconds", ["1e10", "1e300", "0.5"])
def test_any_limit_above_0(tmp_path, seconds):
    """Longer than the C library can wait is as good as for ever."""
    job = jobs.run(
        2,
        *jobs.TRAIN,
        "--epochs",
        "1",
        "--timeout",
        seconds,
        "--peer-timeout",
        seconds,
        cwd=tmp_path,
    )
    assert job.code == 0, job.text


@pytest.mark.parametrize("seconds", ["float('nan')", "0", "-1"])
def test_no_limit_is_refused(tmp_path, seconds):
    """A program's own mistake is one line as well."""
    program = f"from lepton_mpi.world.world import run; raise SystemExit(run(print, {seconds}))"
    job = jobs.run(0, "-c", program, cwd=tmp_path)
    assert job.code == 2, job.text
    (line,) = job.text.strip().splitlines()
    assert line.startswith("lepton_mpi: timeout: expected seconds above 0, got"), line


def test_killed(tmp_path):
    job = _train_failing(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert job.code != 0, job.text
    assert re.search(r"rank 2 of 4 \(process \d+\) died", job.err), job.text
    assert not jobs.processes_with(str(tmp_path))


@pytest.mark.slow
def test_stopped(tmp_path):
    job = _train_failing(tmp_path, "os.kill(os.getpid(), signal.SIGSTOP)", "--timeout", "3")
    assert job.code != 0, job.text
    assert "made no progress" in job.err, job.text
    assert not jobs.processes_with(str(tmp_path))


@pytest.mark.slow
def test_an_error_of_the_model_when_it_is_made(tmp_path):
    path = tmp_path / "failing.py"
    path.write_text("def Failing(shape, classes):\n    raise KeyError('on purpose')\n")
    job = jobs.run(3, *jobs.TRAIN, "--model", f"{path}:Failing", cwd=tmp_path)
    assert job.code == 5, job.text
    assert job.text.count("Traceback (most recent call last)") == 1, job.text


# -- the launcher ------------------------------------------------------------------------------------

# How MPI libraries name their own files in /dev/shm; a launcher that is killed cannot remove them.
_FILES_OF_MPI = (
    "sm_segment.",
    "vader_segment.",
    "mpich_",
    "Intel_MPI",
    "osc_rdma",
    "ompi",
    "pmix",
    "prte",
)


@pytest.mark.slow(but_every=2)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_launcher_ends(tmp_path, how):
    """No rank outlives it, and no memory of ours does."""
    path = tmp_path / "metrics.jsonl"
    words = (*jobs.TRAIN, "--epochs", "1000000", "--progress", "none", "--metrics", str(path))
    with jobs.started(3, *words, cwd=tmp_path) as job:
        assert _until(lambda: path.exists() and len(path.read_text().splitlines()) > 1, 60)
        ranks = [process for process in jobs.processes_with(str(path)) if process.pid != job.pid]
        assert len(ranks) >= 3
        shared = {part.path for rank in ranks for part in rank.memory_maps()}
        named = {name for name in shared if name.startswith("/dev/shm/")}
        os.kill(job.pid, how)
        job.wait(60)
        assert _until(lambda: not jobs.processes_with(str(path)), 30), [
            process.cmdline() for process in jobs.processes_with(str(path))
        ]
    left = [name for name in named if os.path.exists(name)]
    assert [name for name in left if not os.path.basename(name).startswith(_FILES_OF_MPI)] == []


def _until(condition, seconds: float) -> bool:
    """Whether ``condition()`` becomes true within ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return True
        except psutil.Error:
            pass
        time.sleep(0.1)
    return False
