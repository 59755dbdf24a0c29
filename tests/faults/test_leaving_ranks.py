"""Ways to leave a job that are neither an exception nor its end, and what is left in the machine afterwards."""

import re
from pathlib import Path

import pytest

from tests.faults import jobs

# MPICH leaves such files when a rank dies; those of jobs that run beside this one come and go.
_FILES_OF_MPI = ("sm_segment.", "vader_segment.", "mpich_", "Intel_MPI", "osc_rdma", "ompi", "pmix")

_MODEL = """
import ctypes, os, signal, sys, time
import numpy as np
from lepton_mpi.launcher import launched_rank

class Leaving:
    def __init__(self, feature_shape, class_count):
        self.shapes = {{"weight": (int(np.prod(feature_shape)), class_count)}}
        self.calls = 0

    def loss_and_gradient(self, parameters, batch, gradient, sync):
        self.calls += 1
        if self.calls == 5 and launched_rank() in {ranks}:
            {action}
        gradient["weight"][:] = 0
        return 0.0
"""


def _train_leaving(folder: Path, action: str, *options: str, ranks=(2,)) -> jobs.Ended:
    """Train on 4 ranks a model that does ``action`` at its fifth call on ``ranks``."""
    path = folder / "leaving.py"
    path.write_text(_MODEL.format(action=action, ranks=ranks))
    return jobs.run(4, *jobs.TRAIN, "--model", f"{path}:Leaving", *options, cwd=folder)


@pytest.mark.slow
def test_sys_exit_in_a_model_ends_the_job(tmp_path):
    """A rank that leaves by ``sys.exit`` is named at once; the others do not wait for the time limit."""
    job = _train_leaving(tmp_path, "sys.exit(0)", "--timeout", "15")
    assert job.code == 5, job.text
    assert "rank 2 of 4" in job.err, job.text
    assert "made no progress" not in job.err, job.text


@pytest.mark.slow
def test_sys_exit_on_all_ranks_ends_the_job(tmp_path):
    """If all ranks leave, none waits; a run that did not reach its end does not look like a good one."""
    job = _train_leaving(tmp_path, "sys.exit(0)", ranks=(0, 1, 2, 3))
    assert job.code == 5, job.text


@pytest.mark.slow
def test_an_exception_on_all_ranks_is_shown_once(tmp_path):
    """Four tracebacks of the same mistake would be three too many."""
    job = _train_leaving(tmp_path, "raise ValueError('on purpose')", ranks=(0, 1, 2, 3))
    assert job.code == 5, job.text
    assert job.text.count("Traceback (most recent call last)") == 1, job.text
    assert job.text.count("ValueError: on purpose") == 1, job.text


@pytest.mark.slow(but_every=2)
@pytest.mark.parametrize("action", ["ctypes.string_at(0)", "os.kill(os.getpid(), signal.SIGABRT)"])
def test_death_by_a_signal_is_noticed(tmp_path, action):
    """A crash in compiled code, and one that a library ends itself by."""
    job = _train_leaving(tmp_path, action)
    assert job.code != 0, job.text
    # Launchers of MPICH's family end the other ranks at once, and may be faster than these can speak.
    assert re.search(r"rank 2 of 4 \(process \d+\) died|BAD TERMINATION", job.text), job.text


_HOLDS_THE_LOCK = "ctypes.PyDLL(None).sleep(1000)"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(2,), (0, 1, 2, 3)], ids=["one rank", "all ranks"])
def test_a_hang_that_holds_the_interpreter_lock_is_shown(tmp_path, ranks):
    """No thread of such a rank can run: other ranks of its host report for it, and where there is none, the C library's timers."""
    job = _train_leaving(tmp_path, _HOLDS_THE_LOCK, "--timeout", "3", ranks=ranks)
    assert job.code == 5, job.text
    who = "rank 2" if len(ranks) == 1 else "ranks 0, 1, 2, 3"
    (line,) = job.lines("lepton_mpi: rank")
    assert line.startswith(f"lepton_mpi: {who} of 4 made no progress for 3 s (--timeout)"), line
    assert re.search(
        r"^  rank 2: compute in step \d of sync for \d+\.\d s$", job.err, re.MULTILINE
    ), job.text
    # Of several one rank's stack: a report has 12 lines at most.
    where = job.err[re.search(rf"where rank [{''.join(map(str, ranks))}] is:", job.err).start() :]
    assert re.search(r'leaving\.py", line \d+ in loss_and_gradient', where), job.text


@pytest.mark.slow
def test_a_process_alone_that_holds_the_interpreter_lock_ends(tmp_path):
    """Without a launcher, and without another rank to see it."""
    path = tmp_path / "leaving.py"
    path.write_text(_MODEL.format(action=_HOLDS_THE_LOCK, ranks=(0,)))
    words = ("--model", f"{path}:Leaving", "--timeout", "3")
    job = jobs.run(0, *jobs.TRAIN, *words, cwd=tmp_path)
    assert job.code == 5, job.text
    assert "rank 0 of 1 made no progress for 3 s (--timeout)" in job.err, job.text
    assert "rank 0: compute in step 1" in job.err and "leaving.py" in job.err, job.text
    assert 3 + 4 < job.seconds < 3 + 9 + 15, job.seconds


@pytest.mark.slow
def test_a_lock_that_is_held_for_a_while_is_no_hang(tmp_path):
    """Longer than the interval of the watchdog, shorter than the limit, again and again: nothing fires."""
    path = tmp_path / "leaving.py"
    text = _MODEL.format(action="pass", ranks=()).replace(
        "self.calls += 1", "self.calls += 1; ctypes.PyDLL(None).usleep(60_000)"
    )
    path.write_text(text)
    words = ("--model", f"{path}:Leaving", "--timeout", "2", "--epochs", "2")
    job = jobs.run(2, *jobs.TRAIN, *words, cwd=tmp_path)
    assert job.code == 0, job.text


def test_a_loss_that_is_not_finite_ends_the_job_in_one_line(tmp_path):
    """The line names the epoch and a remedy, and the exit code is one that the README explains."""
    job = jobs.run(3, *jobs.TRAIN, "--optimizer", "sgd", "--learning-rate", "1e30", cwd=tmp_path)
    (line,) = job.lines("lepton_mpi")
    assert "epoch 1" in line and "--learning-rate" in line
    assert "Traceback" not in job.text
    readme = (jobs.ROOT / "README.md").read_text("utf-8")
    assert str(job.code) in re.findall(r"^\| (\d) \|", readme, re.MULTILINE), job.code


@pytest.mark.slow
def test_a_model_file_may_hold_anything_that_a_module_may(tmp_path):
    """Dataclasses with postponed annotations look up their module by name."""
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Sizes:\n    rows: int = 3\n"
    (tmp_path / "leaving.py").write_text(text + _MODEL.format(action="pass", ranks=()))
    model = f"{tmp_path / 'leaving.py'}:Leaving"
    job = jobs.run(2, *jobs.TRAIN, "--model", model, "--epochs", "1", cwd=tmp_path)
    assert job.code == 0, job.text


@pytest.mark.slow(but_every=2)
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")
@pytest.mark.parametrize("action", ["raise ValueError", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_nothing_of_ours_is_left_in_shared_memory(tmp_path, action):
    """After an exception or a kill -9 nothing is new in /dev/shm but what MPI libraries put there."""
    before = set(Path("/dev/shm").iterdir())
    job = _train_leaving(tmp_path, action)
    assert job.code != 0, job.text
    left = {path.name for path in set(Path("/dev/shm").iterdir()) - before}
    assert not [name for name in left if not name.startswith(_FILES_OF_MPI)]
